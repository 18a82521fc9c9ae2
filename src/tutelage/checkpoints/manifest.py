"""What a checkpoint consists of, and the proof that it is whole: `manifest.json`, written last.

    step-00000120/
      model.safetensors       the trained parameters, by name
      optimizer.safetensors   what the optimizer knows of each, by its name
      state.json              the position in the data, which is one number, and the guard's memory
      manifest.json           of each file its size and SHA-256, and facts of the whole

A folder whose manifest is missing, or does not describe what lies there, is not a checkpoint.
"""

from __future__ import annotations

import errno
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage import files

FILE = "manifest.json"
FORMAT = 1
"""Version of the layout."""
LONGEST = 1 << 24
"""Bytes of a manifest that are read at most."""


class Broken(Exception):
    """Why a folder is not a checkpoint."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder whose manifest was read; whether its files are as the manifest says is for `verify` to find."""

    folder: Path
    step: int
    """Optimizer steps that were made."""
    run: str
    """Identity of the run."""
    files: dict[str, dict[str, Any]]
    """Of each file `bytes` and `sha256`."""
    facts: dict[str, Any]
    """Beside: `healthy`, and `heldout_nll` where it was measured."""

    @property
    def bytes(self) -> int:
        """On disk."""
        return sum(int(known["bytes"]) for known in self.files.values())

    @property
    def healthy(self) -> bool:
        """Whether the steps before it were sound."""
        return bool(self.facts.get("healthy", True))

    @property
    def heldout_nll(self) -> float | None:
        """The held-out loss at this step, where it was measured."""
        value = self.facts.get("heldout_nll")
        return None if value is None else float(value)


class Unreadable(Broken):
    """The system could not read it; another time, or another machine, may."""


_PASSING = (errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ETIMEDOUT)
"""What the system says that may be otherwise another time; and ESTALE, of network folders."""


def _kind(error: OSError) -> type[Broken]:
    return Unreadable if error.errno in (*_PASSING, getattr(errno, "ESTALE", errno.EIO)) else Broken


def seal(folder: Path, *, step: int, run: str, facts: dict[str, Any]) -> Checkpoint:
    """Have every file of the folder survive a loss of power, hash it, and write the manifest last."""
    described: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.iterdir()):
        files.sync(path)
        described[path.name] = {"bytes": path.stat().st_size, "sha256": files.sha256(path)}
    files.sync_folder(folder)
    whole = {"format": FORMAT, "step": step, "run": run, "files": described, "facts": facts}
    files.write_whole(folder / FILE, files.as_json({**whole, "sha256": _digest(whole)}).encode())
    return Checkpoint(folder, step, run, described, facts)


def read(folder: Path) -> Checkpoint:
    """The checkpoint as its manifest describes it.

    Raises:
        Broken: there is no manifest, or it is not one.
    """
    path = folder / FILE
    try:
        if path.is_symlink() or path.stat().st_size > LONGEST:
            raise Broken(f"{FILE} is a link or too large")
        written = path.read_bytes()
        whole = json.loads(written)
    except FileNotFoundError:
        raise Broken(f"{FILE} is missing, so the save was not finished") from None
    except OSError as error:
        raise _kind(error)(f"{FILE} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise Broken(f"{FILE} cannot be read: {error}") from None
    try:
        known, found = int(whole["format"]), {str(name): dict(facts) for name, facts in whole["files"].items()}
        if known != FORMAT:
            raise Broken(f"{FILE} has format {known}, and this version reads {FORMAT}")
        odd = [name for name in found if not name or Path(name).name != name or name in (".", "..", FILE)]
        if odd:
            raise Broken(f"{FILE} names files outside of the folder: {', '.join(map(repr, odd[:3]))}")
        step = whole["step"]
        if type(step) is not int or step < 0:
            raise Broken(f"{FILE} says step {step!r}")
        for facts in found.values():
            int(facts["bytes"]), str(facts["sha256"])
        made = Checkpoint(folder, step, str(whole["run"]), found, dict(whole["facts"]))
        same = files.as_json(whole).encode() == written
        if whole.pop("sha256") != _digest(whole) or not same:
            raise Broken(f"{FILE} was changed after it was written")
        return made
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise Broken(f"{FILE} lacks what a manifest says: {error!r}") from None


def _digest(whole: dict[str, Any]) -> str:
    text = json.dumps(files.strict(whole), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def verify(checkpoint: Checkpoint) -> None:
    """Make sure that every file is there, whole, and that no other is.

    Raises:
        Broken: the first file that is not as the manifest says, and how.
    """
    try:
        _verify(checkpoint)
    except FileNotFoundError as error:
        raise Broken(f"{error.filename} is missing") from None
    except OSError as error:
        raise _kind(error)(f"{error.filename or checkpoint.folder} cannot be read: {error.strerror}") from None


def _verify(checkpoint: Checkpoint) -> None:
    present = {path.name: path for path in checkpoint.folder.iterdir()}
    for name, known in checkpoint.files.items():
        path = present.get(name)
        if path is None:
            raise Broken(f"{name} is missing")
        if path.is_symlink() or not path.is_file():
            raise Broken(f"{name} is not a regular file")
        size = path.stat().st_size
        if size != known["bytes"]:
            raise Broken(f"{name} has {size:,} bytes; {int(known['bytes']):,} were written")
    extra = sorted(set(present) - set(checkpoint.files) - {FILE})
    if extra:
        raise Broken(f"{extra[0]} does not belong to it")
    for name, known in checkpoint.files.items():
        found = files.sha256(present[name])
        if found != known["sha256"]:
            raise Broken(
                f"{name} has another content: SHA-256 {found[:16]}…, and {str(known['sha256'])[:16]}… was written"
            )
