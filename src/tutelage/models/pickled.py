"""Pickled weights as safetensors: the one place where a pickle is opened, and that in a process of its own.

    settings checked -> fresh process without network and without the environment: torch.load(weights_only=True),
    every tensor checked, safetensors written -> the new folder inspected like any other -> renamed

`weights_only` has been broken before, so it is not the wall: the process that uses it has no network and no secrets,
and what it writes is read as data.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import MachineError, ModelError, Problem, RecipeError, SecurityError, TutelageError
from tutelage.models.inspection import inspect
from tutelage.models.settings import TEXTS, Settings, read_object, read_settings, refuse_code
from tutelage.models.weights import ADAPTER, INDEX, WHOLE, tensors_of

_INDEX = "pytorch_model.bin.index.json"
_NAMES = ("pytorch_model.bin", "adapter_model.bin", "model.pt", "pytorch_model.pt", "model.pth", "consolidated.00.pth")
_ENDINGS = (".bin", ".pt", ".pth", ".ckpt")
_STATE = re.compile(r"training_args|optimizer|scheduler|rng_state|scaler|trainer_state", re.IGNORECASE)
"""Files of a training run that hold no weights."""
_PAPERS = re.compile(r"(?:LICEN[SC]E|NOTICE|USE_POLICY|README)[\w.-]*", re.IGNORECASE)
_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "OMP_NUM_THREADS", "LD_LIBRARY_PATH", "TMPDIR")
_HOURS = 2


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written."""

    folder: Path
    tensors: int
    bytes: int
    isolated: bool
    """Whether the process that opened the pickles had no network."""


def convert(source: Path, target: Path, *, isolated: bool = True) -> Converted:
    """Write the folder's weights as safetensors into a new folder, with its settings and vocabulary.

    With `isolated` unset the pickles are opened even where the system cannot keep their process from the network.

    Raises:
        ModelError: model/missing, model/no-weights, and what `inspect` finds in either folder.
        RecipeError: usage/output-exists. MachineError: machine/read-only.
        SecurityError: security/pickle, security/no-isolation, and what `inspect` finds.
    """
    settings = _settings_of(source)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        what = f"`{target}` already holds something"
        raise RecipeError(Problem("usage/output-exists", what, str(target), fix="choose another folder"))
    files = _pickles(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        what = "the new folder cannot be written"
        raise MachineError(Problem("machine/read-only", what, str(target), str(error.strerror))) from error
    try:
        done = _in_a_fresh_process(files, temporary, settings, isolated=isolated)
        for path in _harmless(source):
            shutil.copyfile(path, temporary / path.name)
        adapter = "adapter_config.json" in settings
        inspect(temporary)
        tensors = tensors_of(temporary, adapter=adapter)
        size = sum(path.stat().st_size for path in temporary.glob("*.safetensors"))
        if target.exists():
            target.rmdir()
        temporary.chmod(0o755)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Converted(target, len(tensors), size, bool(done["isolated"]))


def _settings_of(source: Path) -> Settings:
    named = [name for name in ("config.json", "adapter_config.json") if (source / name).is_file()]
    if not named:
        found = "no config.json" if source.is_dir() else "no such folder"
        raise ModelError(Problem("model/missing", f"`{source}` is not a model folder", str(source), found))
    settings = read_settings(source)
    refuse_code(source, settings, trusted=False)
    return settings


def _pickles(source: Path) -> list[Path]:
    """The files of weights: those that the index names, or the one that has a usual name, or the only one."""
    if (source / _INDEX).is_file():
        places = read_object(source / _INDEX).get("weight_map")
        names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
        for name in names:
            if Path(name).name != name or name == ".." or "\\" in name or "\0" in name:
                what = "the index of the weights names a file outside the model folder"
                raise SecurityError(Problem("security/path-escape", what, str(source / _INDEX), f"{name[:120]!r}"))
    else:
        there = sorted(p.name for p in source.iterdir() if p.suffix in _ENDINGS and not _STATE.search(p.name))
        usual = [name for name in _NAMES if name in there]
        names = usual[:1] or there
        if len(names) > 1:
            raise _nothing(source, f"several files, and no index: {', '.join(names[:5])}")
    if not names:
        raise _nothing(source, f"no file ending in {', '.join(_ENDINGS)} that holds weights")
    for name in names:
        if not (source / name).is_file():
            raise _nothing(source, f"{name} is missing")
    return [source / name for name in names]


def _nothing(source: Path, found: str) -> TutelageError:
    what = "the folder holds no pickled weights to convert"
    return ModelError(Problem("model/no-weights", what, where=str(source), found=found))


def _harmless(source: Path) -> Iterator[Path]:
    """Settings, vocabulary, templates, and the papers that come with a model."""
    for path in sorted(source.iterdir()):
        wanted = path.suffix in TEXTS or (_PAPERS.fullmatch(path.name) and not path.is_symlink())
        if path.is_file() and wanted and path.name not in (_INDEX, INDEX):
            yield path


def _in_a_fresh_process(files: list[Path], folder: Path, settings: Settings, *, isolated: bool) -> dict[str, Any]:
    adapter = "adapter_config.json" in settings
    if adapter:
        names = [ADAPTER]
    elif len(files) == 1:
        names = [WHOLE]
    else:
        names = [f"model-{n:05}-of-{len(files):05}.safetensors" for n in range(1, len(files) + 1)]
    order = {
        "files": [str(path.resolve()) for path in files],
        "names": names,
        "index": INDEX,
        "isolated": isolated,
        "tied": settings.get("config.json", {}).get("tie_word_embeddings") is True,
    }
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    command = [sys.executable, "-m", "tutelage.models.unpickling"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(order),
            cwd=folder,
            env={**kept, "HOME": str(folder)},
            capture_output=True,
            text=True,
            timeout=_HOURS * 3600,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _failed("security/pickle", files[0], f"it took more than {_HOURS} hours") from error
    said = done.stdout.strip().splitlines()[-1:]
    try:
        answer = json.loads(said[0]) if said else {}
    except ValueError:
        answer = {}
    if done.returncode == 0 and answer.get("done") is True:
        return dict(answer)
    if answer.get("code") == "security/no-isolation":
        raise SecurityError(
            Problem(
                "security/no-isolation",
                "this system does not let a process give up the network, and pickles are opened without it alone",
                where=str(files[0].parent),
                found=str(answer.get("found"))[:300],
                fix="convert on a Linux machine with user namespaces; or take the risk: --allow-network",
            )
        )
    found = str(answer.get("found") or done.stderr.strip()[-300:] or f"the process ended with {done.returncode}")
    file = str(answer.get("file") or files[0])
    raise _failed("model/bad-weights" if answer.get("code") == "model/bad-weights" else "security/pickle", file, found)


def _failed(code: str, file: str | Path, found: str) -> TutelageError:
    fix = "do not use this folder: what is in the file is not weights; ask its makers for safetensors"
    return TutelageError.of([Problem(code, "the pickled weights were not converted", str(file), found[:400], fix=fix)])
