"""What a model folder may hold: the settings, headers, indexes, templates and adapters that are refused, and why."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tutelage.errors import SecurityError, TutelageError
from tutelage.models.adapters import adapt
from tutelage.models.foreign import code_allowed
from tutelage.models.inspection import inspect
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.models.tokenizer import chat_tokenizer, load_tokenizer
from tutelage.models.weights import header_of, tensors_of
from tutelage.recipe import Lora, ModelOptions


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    return shutil.copytree(tiny_model("llama"), tmp_path / "model")


def refused(code: str, call, *arguments: Any, **options: Any) -> str:
    with pytest.raises(TutelageError) as caught:
        call(*arguments, **options)
    assert caught.value.code == code
    return str(caught.value)


def settings(folder: Path, file: str = "config.json", **values: Any) -> None:
    path = folder / file
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**known, **values}))


# Settings

PUBLISHED: list[tuple[str, dict[str, Any]]] = [
    ("config.json", {"_name_or_path": "meta/llama", "_attn_implementation_autoset": True}),
    ("config.json", {"attn_implementation": "sdpa", "cache_implementation": "hybrid", "_sliding_window_pattern": 6}),
    ("config.json", {"quantization_config": {"_load_in_4bit": True, "_load_in_8bit": False, "quant_method": "bnb"}}),
    ("config.json", {"rope_scaling": {"type": "yarn", "factor": 4.0}, "layer_types": ["full_attention"] * 2}),
    ("config.json", {"head_dim": 8, "num_attention_heads": 5, "num_key_value_heads": 5}),
    ("config.json", {"_num_labels": 3, "_remove_final_layer_norm": False, "_model_name_or_path": "SmolLM2"}),
    ("config.json", {"n_inner": None, "auto_mapping": None}),
    ("generation_config.json", {"_from_model_config": True, "temperature": 0.6, "top_p": 0.9}),
    ("tokenizer_config.json", {"tokenizer_file": "/root/.cache/x", "added_tokens_decoder": {"0": {"content": "<s>"}}}),
    ("tokenizer_config.json", {"bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False}}),
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "a.T"]}, "tokenizer_class": "LlamaTokenizer"}),
]


@pytest.mark.parametrize(("file", "values"), PUBLISHED)
def test_what_published_models_have_is_let_through(model, file, values):
    settings(model, file, **values)
    inspect(model)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"num_hidden_layers": 10**9}, "1000000000"),
        ({"num_hidden_layers": 9999}, "9,999 layers"),
        ({"hidden_size": -32}, "-32"),
        ({"hidden_size": 0}, "= 0"),
        ({"hidden_size": 32.5}, "32.5"),
        ({"hidden_size": True}, "True"),
        ({"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": None}, "32 and 3 heads"),
        ({"num_key_value_heads": 3}, "4 heads and 3"),
        ({"vocab_size": 10**8}, "100,000,000"),
        ({"intermediate_size": 10**7}, "10,000,000"),
        ({"max_position_embeddings": 2**40}, "1099511627776"),
        ({"text_config": {"num_hidden_layers": 10**12}}, "1000000000000"),
    ],
)
def test_sizes_that_no_model_has(model, values, found):
    settings(model, **values)
    assert found in refused("model/impossible-size", locate, str(model))


def test_more_parameters_than_the_files_hold(model):
    """A size that passes one by one, and that the whole does not: found before a byte is allocated."""
    settings(model, head_dim=8192)
    said = refused("model/impossible-size", load_model, locate(str(model)))
    assert "parameters; the files have" in said


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[]", "list"),
        ("{", "line 1"),
        ('{"a": 1, "a": 2}', "`a` is given twice"),
        ('{"a":' * 40 + "1" + "}" * 40, "32 levels"),
        ("\xff\xfe{}", "utf-8"),
        ('{"a": "' + "x" * (5 << 20) + '"}', "4,194,304 are allowed"),
    ],
)
def test_settings_that_are_no_settings(model, text, found):
    (model / "config.json").write_bytes(text.encode("latin-1"))
    assert found in refused("model/unreadable", locate, str(model))


def test_every_refused_key_is_named_with_its_place(model):
    settings(model, text_config={"extra": [{"trust_remote_code": True}]}, _target_="os.system")
    said = refused("security/remote-code", locate, str(model))
    assert "text_config.extra.0.trust_remote_code = true" in said
    assert "_target_" in said


def test_what_is_not_opened_is_said(model):
    for name in ("training_args.bin", "rng_state.pth", "cache.pkl", "own.py"):
        (model / name).write_bytes(b"x")
    remarks = locate(str(model)).remarks
    assert any("cache.pkl, rng_state.pth, training_args.bin" in remark for remark in remarks)
    assert any("own.py" in remark for remark in remarks)
    for name in ("training_args.bin", "rng_state.pth", "cache.pkl", "own.py"):
        (model / name).unlink()
    assert locate(str(model)).remarks == ()


@pytest.mark.parametrize(
    "id", ["owner/..", "owner/na me", "owner/a;b", "owner/" + "x" * 200, "../owner", "a--b/c", "-o/n"]
)
def test_what_is_no_hub_id(id):
    refused("model/missing", locate, id)


def test_links_inside_the_folder_and_in_the_cache_of_the_hub_are_followed(model, tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    blobs = snapshot.parent.parent / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(model.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    locate(str(snapshot))
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(model / "config.json")
    assert str(model / "config.json") in refused("security/path-escape", locate, str(snapshot))


# Headers


def written(path: Path, header: bytes | dict[str, Any], data: bytes = b"", *, length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def tensor(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [1] if shape is None else shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "data", "length", "found"),
    [
        (b"", b"", 0, "no header"),
        (b"{}", b"", 1 << 40, "would have"),
        (b"{}", b"", 50, "longer than the file"),
        (b'\x80\x04\x95' + b" " * 9, b"", None, "not JSON"),
        (b'{"\xff": 1}', b"", None, "UTF-8"),
        (b'{"a": {}, "a": {}}', b"", None, "twice"),
        (b"{" + b'"a":{' * 9999, b"", None, "not JSON"),
        ({"a": tensor(0, 4), "b": tensor(2, 6)}, b"123456", None, "overlaps"),
        ({"a": tensor(4, 8)}, b"12345678", None, "gap"),
        ({"a": tensor(0, 4)}, b"12345678", None, "end at byte 4"),
        ({"a": tensor(0, 4)}, b"12", None, "end at byte 4"),
        ({"a": tensor(0, 4, dtype="PICKLE")}, b"1234", None, "unknown type"),
        ({"a": tensor(0, 4, [2**40, 2**40])}, b"1234", None, "needs others"),
        ({"a": tensor(0, 4, [2**62])}, b"1234", None, "shape"),
        ({"a": tensor(0, 4, [-1])}, b"1234", None, "shape"),
        ({"a": tensor(0, 4, [1.0])}, b"1234", None, "shape"),
        ({"a": tensor(0, 4, [True])}, b"1234", None, "shape"),
        ({"a": {"dtype": "F32", "shape": [1]}}, b"1234", None, "does not say"),
        ({"a": tensor(0, 4), "__metadata__": {"x": 1}}, b"1234", None, "metadata"),
    ],
)  # fmt: skip
def test_headers_that_lie(tmp_path, header, data, length, found):
    path = written(tmp_path / "model.safetensors", header, data, length=length)
    assert found in refused("model/bad-weights", header_of, path)
    with pytest.raises(Exception):  # noqa: B017, PT011
        load_file(path)


def test_headers_that_hold(tmp_path):
    tensors = {
        "a": torch.zeros(2, 3),
        "b": torch.zeros(0, 4, dtype=torch.bfloat16),
        "c": torch.tensor(1, dtype=torch.int64),
        "d": torch.zeros(5, dtype=torch.bool),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = header_of(tmp_path / "x.safetensors")
    assert {name: (t.dtype, t.shape) for name, t in found.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("BF16", (0, 4)),
        "c": ("I64", ()),
        "d": ("BOOL", (5,)),
    }


# Indexes


@pytest.fixture
def parts(model) -> Path:
    """The same model in two files with an index."""
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, half in halves.items():
        save_file({name: tensors[name] for name in half}, model / file, metadata={"format": "pt"})
    places = {name: file for file, half in halves.items() for name in half}
    settings(model, "model.safetensors.index.json", weight_map=places, metadata={"total_size": 1})
    (model / "model.safetensors").unlink()
    return model


def test_a_model_in_parts(parts, tiny_model):
    whole = load_model(locate(str(tiny_model("llama")))).state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in load_model(locate(str(parts))).state_dict().items())


def test_an_index_that_does_not_fit(parts):
    path = parts / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    first = "model-00001-of-00002.safetensors"

    def with_map(places: dict[str, Any]) -> Path:
        path.write_text(json.dumps({"weight_map": places}))
        return parts

    places = index["weight_map"]
    said = refused("model/bad-weights", tensors_of, with_map({**places, "x": "model-00009-of-00009.safetensors"}))
    assert "model-00009" in said
    assert "x" in refused("model/bad-weights", tensors_of, with_map({**places, "x": first}))
    assert first in refused(
        "model/bad-weights", tensors_of, with_map({name: file for name, file in places.items() if file != first})
    )
    refused("model/bad-weights", tensors_of, with_map({}))
    for name in (
        "../x.safetensors",
        "/etc/x.safetensors",
        "a/b.safetensors",
        "a\\b.safetensors",
        "a\0.safetensors",
        "..",
    ):
        refused("security/path-escape", tensors_of, with_map({**places, "x": name}))
    (parts / "model-00003-of-00003.safetensors").write_bytes((parts / first).read_bytes())
    assert "model-00003" in refused("model/bad-weights", tensors_of, with_map(places))


# Weights


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(model, value):
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"][3] = value
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    assert "model.norm.weight (1 of 32 numbers)" in refused("model/bad-weights", load_model, locate(str(model)))


def test_weights_that_lack_a_tensor(model):
    tensors = load_file(model / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    assert "model.norm.weight" in refused("model/unreadable", load_model, locate(str(model)))


# Adapters


@pytest.fixture
def adapter(tiny_model, tmp_path) -> Path:
    """A folder with an adapter of rank 4 that changes what the model says."""
    base = tiny_model("llama")
    adapted = adapt(load_model(locate(str(base))), Lora(rank=4), seed=0, base=str(base))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_and_its_base(adapter, tiny_model):
    location = locate(str(adapter))
    assert location.base is not None
    from transformers import AutoModelForCausalLM

    ids = torch.arange(5, 30)[None]
    with torch.no_grad():
        right = AutoModelForCausalLM.from_pretrained(adapter, dtype=torch.float32)(input_ids=ids).logits
        assert torch.equal(load_model(location)(input_ids=ids).logits, right)
        assert not torch.allclose(load_model(locate(str(tiny_model("llama"))))(input_ids=ids).logits, right)


def test_an_adapter_for_another_base(adapter, tmp_path, tiny_model):
    base = shutil.copytree(tiny_model("llama"), tmp_path / "other")
    tensors = {
        name: torch.zeros(tuple(2 * n for n in value.shape))
        for name, value in load_file(base / "model.safetensors").items()
    }
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    settings(adapter, "adapter_config.json", base_model_name_or_path=str(base))
    assert ".lora_" in refused("model/other-base", locate, str(adapter))


def test_the_base_of_an_adapter_is_looked_into_as_well(adapter, model):
    settings(adapter, "adapter_config.json", base_model_name_or_path=str(model))
    locate(str(adapter))
    settings(model, trust_remote_code=True)
    refused("security/remote-code", locate, str(adapter))


def test_adapters_that_are_none(adapter):
    settings(adapter, "adapter_config.json", base_model_name_or_path=str(adapter))
    refused("model/other-base", locate, str(adapter))
    settings(adapter, "adapter_config.json", base_model_name_or_path=None)
    refused("model/missing", locate, str(adapter))
    settings(adapter, "adapter_config.json", auto_mapping={"base_model_class": "X", "parent_library": "own"})
    refused("security/remote-code", locate, str(adapter))


def test_a_pickled_adapter(adapter):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert "tutelage convert" in refused("model/no-weights", locate, str(adapter))


# Templates


def test_two_templates_that_differ(model):
    settings(model, "tokenizer_config.json", chat_template="{{ messages[0].content }}")
    tokenizer = load_tokenizer(locate(str(model)))
    said = refused("template/ambiguous", chat_tokenizer, tokenizer, ModelOptions(path="x"))
    assert "chat_template.jinja" in said
    assert "tokenizer_config.json" in said
    named = ModelOptions(path="x", template=str(model / "chat_template.jinja"))
    assert chat_tokenizer(tokenizer, named)[1] is not None


def test_the_same_template_twice(model):
    text = (model / "chat_template.jinja").read_text()
    settings(model, "tokenizer_config.json", chat_template=text + "\n")
    chat_tokenizer(load_tokenizer(locate(str(model))), ModelOptions(path="x"))


def test_of_several_templates_one_is_named(model):
    text = (model / "chat_template.jinja").read_text()
    folder = model / "additional_chat_templates"
    folder.mkdir()
    (folder / "tool_use.jinja").write_text(text.replace("im_start", "im_end"))
    tokenizer = load_tokenizer(locate(str(model)))
    said = refused("template/ambiguous", chat_tokenizer, tokenizer, ModelOptions(path="x"))
    assert "default, tool_use" in said
    assert "model.template=default" in said
    for name, source in (("default", text), ("tool_use", text.replace("im_start", "im_end"))):
        template = chat_tokenizer(tokenizer, ModelOptions(path="x", template=name))[1]
        assert template is not None
        assert template.source == source


# Trust

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM
open({ran!r}, "a").close()
class C(LlamaConfig):
    model_type = "own"
class M(LlamaForCausalLM):
    config_class = C
"""


@pytest.fixture
def own(model, tmp_path, monkeypatch) -> Path:
    """A model with code of its own, which transformers does not know."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    (model / "own.py").write_text(CODE.format(ran=str(tmp_path / "RAN")))
    auto_map = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}
    settings(model, auto_map=auto_map, model_type="own", architectures=["M"])
    return model


def test_code_runs_where_the_recipe_says_so_and_is_recorded(own, tmp_path):
    refused("security/remote-code", locate, str(own))
    assert not (tmp_path / "RAN").exists()
    location = locate(str(own), trusted=True)
    model = load_model(location)
    assert type(model).__name__ == "M"
    assert (tmp_path / "RAN").exists()
    said = location.describe()
    assert said["trust_remote_code"] is True
    assert said["code"] == {"own.py": hashlib.sha256((own / "own.py").read_bytes()).hexdigest()}
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]


def test_the_door_is_shut_without_it(own, tmp_path):
    """Whatever slips through the settings still meets the second lock."""
    from transformers import AutoConfig

    with code_allowed(False):
        pass
    with pytest.raises(SecurityError):
        AutoConfig.from_pretrained(own, trust_remote_code=True)
    assert not (tmp_path / "RAN").exists()


def test_trust_does_not_reach_into_nested_settings_or_other_repositories(own):
    settings(own, text_config={"auto_map": {"AutoModel": "own.M"}})
    refused("security/remote-code", locate, str(own), trusted=True)
    settings(own, text_config={}, auto_map={"AutoConfig": "somebody/else--own.C"})
    refused("security/remote-code", locate, str(own), trusted=True)
