"""Where a run may be written, and what a name in a folder may not do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import tinyruns
from tutelage import config
from tutelage.errors import MachineError, RecipeError
from tutelage.models import hub
from tutelage.models.location import locate
from tutelage.runs import Run


def recipe(output: str, **given: Any) -> config.Resolved:
    values: dict[str, Any] = {
        "model": {"path": given.get("model", "nothing")},
        "data": {"train": [{"path": given.get("data", "nothing.jsonl")}], "heldout": 0.1, "max_length": 64},
        "train": {"global_batch_size": 4},
        "output": output,
    }
    return config.resolve(values)


def refused(output: str, **given: Any) -> str:
    resolved = recipe(output, **given)
    with pytest.raises(RecipeError) as caught:
        config.refuse_misplaced(resolved.recipe, resolved.origins)
    return str(caught.value)


@pytest.fixture
def places(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("home/me", "data/set", "model"):
        (workdir / name).mkdir(parents=True)
    (workdir / "data" / "set" / "rows.jsonl").write_text("")
    monkeypatch.setenv("HOME", str(workdir / "home" / "me"))
    return workdir


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("/", "root"),
        ("/..", "root"),
        ("~", "home"),
        ("home/me", "home"),
        ("home", "home"),
        ("home/me/x/..", "home"),
        ("data/set", "is what `data.train.0.path` reads"),
        ("data/set/run", "lies inside what `data.train.0.path` reads"),
        ("data", "holds what `data.train.0.path` reads"),
        ("model", "is what `model.path` reads"),
        ("model/run", "lies inside what `model.path` reads"),
        ("link", "is what `model.path` reads"),
        ("runs/" + "x" * 300, "255 bytes"),
        ("runs/" + "é" * 130, "255 bytes"),
        ("runs/a\nb", "character"),
        ("runs/a\x1b[31m", "character"),
        ("runs/a\x00b", "character"),
    ],
)
def test_where_a_run_may_not_be(places, output, said):
    (places / "link").symlink_to(places / "model")
    assert said in refused(output, data="data/set", model="model")


@pytest.mark.parametrize("output", ["run", "data/run", "home/me/run", "../other", "-run", "läuft gut", "🙂", "~/run"])
def test_where_it_may(places, output):
    resolved = recipe(output, data="data/set/rows.jsonl", model="model")
    config.refuse_misplaced(resolved.recipe, resolved.origins)


def test_a_file_of_rows_is_not_a_folder_to_write(places):
    assert "is what" in refused("data/set/rows.jsonl", data="data/set/rows.jsonl")


class Hub:
    """A hub with one model, in place of the real one."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.folder = folder / "snapshots" / self.COMMIT
        self.folder.mkdir(parents=True)
        self.files, self.asked, self.online = files, [], True

    def model_info(self, id: str, revision: str | None = None) -> Any:
        if not self.online:
            raise OSError("no network")
        siblings = [type("File", (), {"rfilename": name}) for name in self.files]
        return type("Info", (), {"sha": self.COMMIT, "siblings": siblings})

    def snapshot_download(self, id: str, **options: Any) -> str:
        self.asked.append(options)
        return str(self.folder)


def test_of_a_model_of_the_hub_one_commit_is_fetched_and_nothing_that_runs(tmp_path, monkeypatch):
    import huggingface_hub

    wanted = [
        "config.json",
        "model.safetensors",
        "tokenizer.model",
        "merges.txt",
        "additional_chat_templates/rag.jinja",
    ]
    others = ["own.py", "pytorch_model.bin", "training_args.bin", "onnx/model.onnx", "original/params.json", "x.gguf"]
    there = Hub(tmp_path, wanted + others)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: there)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", there.snapshot_download)
    assert hub.fetch("owner/name", "main") == (there.folder, Hub.COMMIT)
    assert there.asked == [{"revision": "main", "allow_patterns": wanted}]
    there.asked.clear()
    hub.fetch("owner/name", code=True)
    assert set(there.asked[0]["allow_patterns"]) == {*wanted, "own.py"}
    there.online = False
    (there.folder / "config.json").write_text("{}")
    there.asked.clear()
    assert hub.fetch("owner/name") == (there.folder, Hub.COMMIT)
    assert there.asked[0]["local_files_only"] is True


def test_the_commit_is_recorded(tmp_path, monkeypatch, tiny_model):
    monkeypatch.setattr("tutelage.models.location.fetch", lambda id, revision, code: (tiny_model("llama"), Hub.COMMIT))
    location = locate("owner/name", "v1")
    assert location.describe() == {
        "path": "owner/name",
        "commit": Hub.COMMIT,
        "trust_remote_code": False,
        "code": {},
    }
    assert location.name == "owner/name"
    assert location.path == str(tiny_model("llama"))


def test_a_link_in_a_run_folder_leads_nothing_out_of_it(tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    run = Run(tmp_path / "run")
    run.create()
    for name in ("recipe.yaml", ".recipe.yaml.part", "metrics.jsonl"):
        (run.folder / name).symlink_to(outside)
    run.write_text("recipe.yaml", "output: run\n")
    with pytest.raises(MachineError):
        run.append("metrics.jsonl", [{"step": 1}])
    assert outside.read_text() == "mine"
    assert not (run.folder / "recipe.yaml").is_symlink()
    assert (run.folder / "recipe.yaml").read_text() == "output: run\n"


HOSTILE = "-rf --help $(touch ran); `touch ran` \"'&"


def test_names_that_a_shell_would_run_are_names(tmp_path, tiny_model, monkeypatch):
    """Of the model, the rows and the run: also where other processes are given them, to prove a save and to track."""
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model("llama"), tmp_path / f"{HOSTILE} model")
    tinyruns.write_rows(tmp_path / f"{HOSTILE}.jsonl", tinyruns.demonstrations())
    values = tinyruns.recipe(
        Path(f"{HOSTILE} model"),
        Path(f"{HOSTILE}.jsonl"),
        Path(f"{HOSTILE} run"),
        track={"to": ["tensorboard"], "project": HOSTILE},
    )
    recipe = tinyruns.write_recipe(Path("recipe.yaml"), values)
    done = tinyruns.process("train", recipe, folder=tmp_path)
    assert done.code == 0, done.err
    again = tinyruns.process("runs", "verify", f"./{HOSTILE} run", folder=tmp_path)
    assert again.code == 0, again.err
    expected = {"recipe.yaml", f"{HOSTILE} model", f"{HOSTILE}.jsonl", f"{HOSTILE} run"}
    assert expected <= {path.name for path in tmp_path.iterdir()}
    assert not list(tmp_path.rglob("ran"))
