"""Forty things that somebody may be handed: each tries to write a canary or to call a port when it is read.

An artifact spoils a case, which is a folder with a model, rows and a recipe, and says what must come of `train`:
the error's code, or None where the run goes well without ever looking at it.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tinyruns

CALL = "import os, socket; open({canary!r}, 'w').close(); socket.create_connection(('127.0.0.1', {port}), 1).close()"


class Case:
    """A working folder with a model of its own, rows and a recipe."""

    def __init__(self, folder: Path, model: Path, port: int) -> None:
        self.folder = folder
        self.model = shutil.copytree(model, folder / "model")
        self.rows = tinyruns.write_rows(folder / "rows.jsonl", tinyruns.demonstrations(12))
        self.canary, self.port = folder / "CANARY", port
        self.values = tinyruns.recipe(Path("model"), Path("rows.jsonl"), Path("run"), train={"steps": 1})
        self.values["evaluate"] = {"points": 0, "samples": 0}
        self.code = CALL.format(canary=str(self.canary), port=port)

    def pickled(self) -> bytes:
        """A pickle that calls when it is opened."""
        return pickle.dumps(Calls(self.code))

    def settings(self, file: str = "config.json", **values: Any) -> None:
        """Put keys into a JSON file of the model folder."""
        path = self.model / file
        known = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**known, **values}))

    def script(self, name: str = "own.py") -> None:
        """A script in the model folder with the classes that settings name."""
        classes = "class C: ...\nclass M: ...\nclass T: ...\ndef generate(*a, **k): ...\n"
        (self.model / name).write_text(f"{self.code}\n{classes}")

    def template(self, text: str) -> None:
        """Another chat template, in both places."""
        (self.model / "chat_template.jinja").write_text(text)

    def without_weights(self) -> None:
        (self.model / "model.safetensors").unlink()


class Calls:
    """Pickles to a call."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code,)


Artifact = Callable[[Case], None]
ARTIFACTS: dict[str, tuple[Artifact, str | None]] = {}


def artifact(name: str, code: str | None) -> Callable[[Artifact], Artifact]:
    def add(make: Artifact) -> Artifact:
        ARTIFACTS[name] = (make, code)
        return make

    return add


def _pickle_beside(name: str) -> Artifact:
    return lambda case: (case.model / name).write_bytes(case.pickled()) and None


for _name in (
    *("pytorch_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt"),
    *("adapter_model.bin", "tokenizer.pkl", "cache.mdl", "model.ckpt", "embeddings.npy", "global_step1.pt"),
):
    ARTIFACTS[f"{_name} beside the weights"] = (_pickle_beside(_name), None)


def _setting(code: str, **values: Any) -> tuple[Artifact, str]:
    def make(case: Case) -> None:
        case.script()
        case.settings(**values)

    return make, code


REFUSED = "security/remote-code"
OWN = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}
ARTIFACTS |= {
    "auto_map of an unknown type": _setting(REFUSED, auto_map=OWN, model_type="own"),
    "auto_map in another repository": _setting(REFUSED, auto_map={"AutoConfig": "a/b--own.C"}, model_type="own"),
    "auto_map in a nested config": _setting(REFUSED, text_config={"auto_map": OWN, "model_type": "own"}),
    "attention of the hub": _setting(REFUSED, _attn_implementation_internal="somebody/kernel"),
    "attention of the hub, public key": _setting(REFUSED, attn_implementation="somebody/kernel"),
    "experts of the hub": _setting(REFUSED, _experts_implementation="somebody/kernel"),
    "attention in a nested config": _setting(REFUSED, vision_config={"_attn_implementation_internal": "a/b:f"}),
    "trust in the settings": _setting(REFUSED, trust_remote_code=True),
    "trust in a nested config": _setting(REFUSED, keypoint_detector_config={"trust_remote_code": True}),
    "_target_": _setting(REFUSED, _target_="os.system", _args_=["true"]),
    "_component_ in a list": _setting(REFUSED, extra=[{"_component_": "os.system"}]),
    "custom_pipelines": _setting(REFUSED, custom_pipelines={"text": {"impl": "own.M"}}),
    "a private property": _setting(REFUSED, _auto_class="own.M"),
    "an unknown type": _setting("model/unknown-architecture", model_type="own"),
    "an unknown class of a known type": _setting(None, architectures=["OwnForCausalLM"]),
}


@artifact("auto_map of a known type", None)
def known_type(case: Case) -> None:
    case.script()
    case.settings(auto_map=OWN)


@artifact("a tokenizer of the folder", REFUSED)
def own_tokenizer(case: Case) -> None:
    case.script()
    case.settings("tokenizer_config.json", auto_map={"AutoTokenizer": ["own.T", None]}, tokenizer_class="OwnTokenizer")


@artifact("code for generating", REFUSED)
def own_generation(case: Case) -> None:
    (case.model / "custom_generate").mkdir()
    (case.model / "custom_generate" / "generate.py").write_text(f"{case.code}\ndef generate(*a, **k): ...\n")
    case.settings("generation_config.json", custom_generate="own.generate")


@artifact("scripts beside the weights", None)
def scripts(case: Case) -> None:
    for name in (
        "own.py",
        "modeling_llama.py",
        "configuration_llama.py",
        "sitecustomize.py",
        "conftest.py",
        "torch.py",
    ):
        case.script(name)
    (case.model / "custom_generate").mkdir()
    case.script("custom_generate/generate.py")


@artifact("pickled weights alone", "model/no-weights")
def pickled_alone(case: Case) -> None:
    case.without_weights()
    (case.model / "pytorch_model.bin").write_bytes(case.pickled())


@artifact("a pickle named safetensors", "model/bad-weights")
def disguised(case: Case) -> None:
    (case.model / "model.safetensors").write_bytes(case.pickled())


@artifact("an index that leads out", "security/path-escape")
def index_escapes(case: Case) -> None:
    case.without_weights()
    (case.folder / "outside.safetensors").write_bytes(case.pickled())
    case.settings("model.safetensors.index.json", weight_map={"lm_head.weight": "../outside.safetensors"})


@artifact("an index of pickles", "model/bad-weights")
def index_of_pickles(case: Case) -> None:
    case.without_weights()
    (case.model / "weights.bin").write_bytes(case.pickled())
    case.settings("model.safetensors.index.json", weight_map={"lm_head.weight": "weights.bin"})


@artifact("an absolute path in an index", "security/path-escape")
def absolute_index(case: Case) -> None:
    case.without_weights()
    case.settings("model.safetensors.index.json", weight_map={"lm_head.weight": "/etc/passwd"})


@artifact("a template that is a link", "security/path-escape")
def linked_template(case: Case) -> None:
    (case.folder / "private.key").write_text("mine")
    (case.model / "chat_template.jinja").unlink()
    (case.model / "chat_template.jinja").symlink_to(case.folder / "private.key")


@artifact("settings that are a pipe", "model/unreadable")
def pipe(case: Case) -> None:
    (case.model / "generation_config.json").unlink()
    os.mkfifo(case.model / "generation_config.json")


@artifact("settings of a hundred thousand levels", "model/unreadable")
def deep(case: Case) -> None:
    (case.model / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)


@artifact("a tokenizer of a hundred thousand levels", "model/unreadable")
def deep_tokenizer(case: Case) -> None:
    (case.model / "tokenizer.json").write_text("[" * 100_000)


@artifact("a thousand million layers", "model/impossible-size")
def many_layers(case: Case) -> None:
    case.settings(num_hidden_layers=10**9)


@artifact("a vocabulary of two thousand million", "model/impossible-size")
def large_vocabulary(case: Case) -> None:
    case.settings(vocab_size=2 * 10**9)


@artifact("a header that promises a hundred gigabytes", "model/bad-weights")
def promising_header(case: Case) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [25 * 10**9], "data_offsets": [0, 10**11]}}).encode()
    (case.model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


for _name, _text, _code in (
    ("globals", "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}", "template/broken"),
    ("attributes", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "template/broken"),
    ("the filter attr", "{{ (''|attr('__class__')).__mro__ }}", "template/broken"),
    ("an include", "{% include '/etc/passwd' %}", "template/broken"),
    ("a loop", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "template/limit"),
    ("a gigabyte", "{{ 'a' * 1000000000 }}", "template/limit"),
    ("a gigabyte by doubling", "{% set n = namespace(s='aa') %}{% for i in range(40) %}{% set n.s = n.s ~ n.s %}"
     "{% endfor %}{{ n.s }}", "template/limit"),
    ("a gigabyte of zeros", "{{ '%01000000000d' % 1 }}", "template/limit"),
):  # fmt: skip
    ARTIFACTS[f"a template that reaches for {_name}"] = (lambda case, text=_text: case.template(text), _code)


@artifact("a YAML tag", "recipe/bad-yaml")
def yaml_tag(case: Case) -> None:
    case.values = {"raw": f"model: !!python/object/apply:os.system ['touch {case.canary}']\n"}


@artifact("YAML that grows", "recipe/bad-yaml")
def yaml_bomb(case: Case) -> None:
    case.values = {"raw": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"}


@artifact("rows that are a pickle", "data/unknown-type")
def pickled_rows(case: Case) -> None:
    (case.folder / "rows.pkl").write_bytes(case.pickled())
    case.values["data"]["train"] = [{"path": "rows.pkl"}]


@artifact("a pickle named jsonl", "data/bad-encoding")
def disguised_rows(case: Case) -> None:
    case.rows.write_bytes(case.pickled())


@artifact("rows with a script beside them", None)
def script_of_rows(case: Case) -> None:
    folder = case.folder / "set"
    folder.mkdir()
    shutil.move(case.rows, folder / "rows.jsonl")
    (folder / "set.py").write_text(case.code)
    case.values["data"]["train"] = [{"path": "set"}]


@artifact("a table with pickled types", "data/unreadable")
def extension_type(case: Case) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = tinyruns.demonstrations(12)
    table = pyarrow.Table.from_pylist(rows)
    kind = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": case.pickled()}
    fields = [field.with_metadata(kind) for field in table.schema]
    path = case.folder / "rows.parquet"
    pyarrow.parquet.write_table(table.cast(pyarrow.schema(fields)), path)
    case.values["data"]["train"] = [{"path": "rows.parquet"}]
