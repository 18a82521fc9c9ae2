"""Pickled weights become safetensors in a process without network, or not at all."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts import Case
from safetensors.torch import load_file
from test_artifacts import Port

import tinyruns
from tutelage.errors import TutelageError
from tutelage.models import pickled, unpickling
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.models.pickled import convert


def can_isolate() -> bool:
    command = (
        "import sys; from tutelage.models.unpickling import _leave_the_network as f; sys.exit(not f(required=False))"
    )
    return subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


@pytest.fixture(autouse=True)
def isolation() -> None:
    if not can_isolate():
        pytest.skip("this system lets no process give up the network")


@pytest.fixture
def old(tiny_model, tmp_path) -> Path:
    """The model as it was published in former times."""
    folder = shutil.copytree(tiny_model("llama"), tmp_path / "old")
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def refused(code: str, *arguments: Any, **options: Any) -> str:
    with pytest.raises(TutelageError) as caught:
        convert(*arguments, **options)
    assert caught.value.code == code
    return str(caught.value)


def assert_same(folder: Path, right: Path) -> None:
    one, other = (load_model(locate(str(path))).state_dict() for path in (folder, right))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_pickled_model_becomes_the_same_model(old, tmp_path, tiny_model):
    new = tmp_path / "new"
    (old / "LICENSE").write_text("free")
    for name in ("training_args.bin", "own.py", "rng_state.pth", "notes.pdf"):
        (old / name).write_bytes(b"x")
    outcome = tinyruns.tutelage("convert", old, new)
    assert outcome.code == 0, outcome.err
    assert "in a process without network" in outcome.out
    assert {path.name for path in new.iterdir()} == {
        *("LICENSE", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    assert_same(new, tiny_model("llama"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_error_for_pickled_weights_names_the_command(old):
    with pytest.raises(TutelageError) as caught:
        locate(str(old))
    assert f"tutelage convert {old} NEW-FOLDER" in str(caught.value)


@pytest.mark.parametrize("form", ["legacy", "wrapped", "ordered", "parameters", "views", "two-files"])
def test_every_form_that_weights_were_saved_in(old, tmp_path, tiny_model, form):
    file = old / "pytorch_model.bin"
    tensors: dict[str, Any] = torch.load(file, weights_only=True)
    if form == "legacy":
        torch.save(tensors, file, _use_new_zipfile_serialization=False)
    elif form == "wrapped":
        torch.save({"state_dict": tensors, "epoch": 3}, file)
    elif form == "ordered":
        torch.save(OrderedDict(tensors), file)
    elif form == "parameters":
        torch.save({name: torch.nn.Parameter(value) for name, value in tensors.items()}, file)
    elif form == "views":
        # Transposed twice in storage, and one slice of a larger tensor.
        views = {n: v.T.contiguous().T if v.dim() == 2 else torch.stack([v, v])[1] for n, v in tensors.items()}
        torch.save(views, file)
    else:
        names = sorted(tensors)
        places = {name: f"pytorch_model-0000{1 + (n > 8)}-of-00002.bin" for n, name in enumerate(names)}
        for part in set(places.values()):
            torch.save({name: tensors[name] for name in names if places[name] == part}, old / part)
        (old / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
        file.unlink()
    convert(old, tmp_path / "new")
    assert_same(tmp_path / "new", tiny_model("llama"))


@pytest.mark.parametrize("tied", [True, False])
def test_tensors_that_share_their_memory(old, tmp_path, tied):
    config = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": tied}))
    tensors = torch.load(old / "pytorch_model.bin", weights_only=True)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    torch.save(tensors, old / "pytorch_model.bin")
    convert(old, tmp_path / "new")
    names = set(load_file(tmp_path / "new" / "model.safetensors"))
    assert ("lm_head.weight" in names) is not tied
    load_model(locate(str(tmp_path / "new")))


def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path, tiny_model):
    port = Port()
    case = Case(tmp_path, tiny_model("llama"), port.number)
    (case.model / "model.safetensors").unlink()
    for name in ("raw", "zip", "legacy"):
        if name == "raw":
            (case.model / "pytorch_model.bin").write_bytes(case.pickled())
        else:
            values = {"a": torch.zeros(2), "b": pickle.loads(pickle.dumps(_Late(case.code)))}
            torch.save(values, case.model / "pytorch_model.bin", _use_new_zipfile_serialization=name == "zip")
        said = refused("security/pickle", case.model, tmp_path / "new")
        assert "pytorch_model.bin" in said
        assert not (tmp_path / "new").exists()
    port.close()
    assert not case.canary.exists()
    assert port.calls == 0


class _Late:
    """Pickles to a call, but only the second time, so that a test can hold it."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Late, (self.code,)) if sys._getframe(1).f_globals["__name__"] == __name__ else (exec, (self.code,))


def test_no_second_try_with_less_care(old, tmp_path):
    """A harmless object that weights_only does not know is refused like any other."""
    torch.save({"a": torch.zeros(2), "path": Path("x")}, old / "pytorch_model.bin")
    refused("security/pickle", old, tmp_path / "new")


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"a": torch.zeros(2, 2).to_sparse()}, "sparse"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "complex"),
        ({"a": torch.zeros(1).expand(1000)}, "many times"),
        ({"a": [1.0]}, "list"),
        ({1: torch.zeros(2)}, "name"),
        ({"a\n": torch.zeros(2)}, "name"),
        ([torch.zeros(2)], "list"),
        ({}, "dict"),
    ],
)
def test_what_is_no_plain_tensor(old, tmp_path, values, found):
    torch.save(values, old / "pytorch_model.bin")
    assert found in refused("model/bad-weights", old, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_archive_that_unpacks_to_more(old, tmp_path):
    packed = tmp_path / "packed.bin"
    with (
        zipfile.ZipFile(old / "pytorch_model.bin") as stored,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for entry in stored.infolist():
            out.writestr(entry.filename, stored.read(entry))
    packed.replace(old / "pytorch_model.bin")
    assert "packed" in refused("security/pickle", old, tmp_path / "new")


def test_settings_that_ask_for_code_stop_it_before_anything_is_opened(old, tmp_path, monkeypatch):
    monkeypatch.setattr(pickled, "_in_a_fresh_process", lambda *a, **k: pytest.fail("a pickle was opened"))
    (old / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.C"}}))
    refused("security/remote-code", old, tmp_path / "new")


def test_nothing_is_written_over(old, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_text("x")
    refused("usage/output-exists", old, tmp_path / "new")
    refused("usage/output-exists", old, old)
    refused("model/missing", tmp_path / "none", tmp_path / "newer")


def test_folders_without_one_clear_pickle(old, tmp_path):
    (old / "pytorch_model.bin").rename(old / "a.pt")
    shutil.copy(old / "a.pt", old / "b.pt")
    assert "a.pt, b.pt" in refused("model/no-weights", old, tmp_path / "new")
    (old / "a.pt").unlink()
    (old / "b.pt").rename(old / "optimizer.pt")
    refused("model/no-weights", old, tmp_path / "new")
    (old / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "../b.bin"}}))
    refused("security/path-escape", old, tmp_path / "new")


def test_the_process_has_neither_network_nor_secrets(tmp_path, monkeypatch):
    port = Port()
    code = (
        "import json, os, socket\n"
        "from tutelage.models.unpickling import _leave_the_network\n"
        "_leave_the_network(required=True)\n"
        "try:\n"
        f"    socket.create_connection(('127.0.0.1', {port.number}), 2)\n"
        "    print('connected')\n"
        "except OSError as error:\n"
        "    print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    port.close()
    assert port.calls == 0
    assert done.stdout.strip() != "connected"

    seen: dict[str, Any] = {}

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        seen.update(options["env"])
        return subprocess.CompletedProcess(command, 1, "", "stopped")

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(pickled.subprocess, "run", run)
    with pytest.raises(TutelageError):
        pickled._in_a_fresh_process([tmp_path / "x.bin"], tmp_path, {}, isolated=True)
    assert "HF_TOKEN" not in seen
    assert seen["HOME"] == str(tmp_path)
    assert set(seen) <= {*pickled._KEPT_VARIABLES, "HOME"}
    assert os.environ["HF_TOKEN"] == "hf_secret"


def test_where_the_network_cannot_be_left_it_is_refused(monkeypatch):
    """As on other systems than Linux; with the flag it goes on, and says so."""
    monkeypatch.setattr(unpickling.sys, "platform", "darwin")
    with pytest.raises(unpickling._Refused) as caught:
        unpickling._leave_the_network(required=True)
    assert caught.value.code == "security/no-isolation"
    assert unpickling._leave_the_network(required=False) is False


def test_the_refusal_names_the_flag(old, tmp_path, monkeypatch):
    answer = json.dumps({"code": "security/no-isolation", "found": "unshare: Operation not permitted", "file": ""})
    monkeypatch.setattr(
        pickled.subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 1, answer, "")
    )
    assert "--allow-network" in refused("security/no-isolation", old, tmp_path / "new")
