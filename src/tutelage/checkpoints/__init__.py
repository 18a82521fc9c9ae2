"""The checkpoints of a run: begun beside, committed by one rename, found by looking, verified before use, kept by rule.

No pointer says which one is the latest: the folder is read, and the newest one that verifies counts. One that does
not is put aside under another name, with the reason in it, and never deleted.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage import files
from tutelage.checkpoints.manifest import Broken, Checkpoint, Unreadable, read, seal, verify
from tutelage.errors import ModelError, Problem

__all__ = ["Broken", "Checkpoint", "Checkpoints", "Unreadable", "read", "verify"]

_NAME = re.compile(r"step-([0-9]{8,})", re.ASCII)
_PART = re.compile(r"\.step-[0-9]{8,}-[0-9a-f]{8}\.part", re.ASCII)
_GONE = re.compile(r"\.step-[0-9]{8,}-[0-9a-f]{8}\.gone", re.ASCII)
_WAS = re.compile(r"\.(step-[0-9]{8,})-[0-9a-f]{8}\.was", re.ASCII)
REASON = "why-broken.txt"
"""In a folder that was put aside."""


class Checkpoints:
    """The folder `checkpoints/` of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> list[Path]:
        """Folders with a checkpoint's name, the newest first; whatever else lies there is left alone."""
        if not self.folder.is_dir():
            return []
        named = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
        return sorted((path for path in named if not path.is_symlink()), key=_step_of, reverse=True)

    def all(self) -> list[Checkpoint]:
        """Those with a manifest, the newest first; their files were not looked at."""
        found = []
        for path in self.paths():
            with contextlib.suppress(Broken):
                found.append(_named(read(path)))
        return found

    def newest(self, run: str, tell: Callable[[Path, str], None], *, healthy: bool = False) -> Checkpoint | None:
        """The newest one of the run that verifies, or the newest after sound steps.

        Each newer one that does not is put aside, and one that cannot be read is left; `tell` is given the folder and
        the reason.
        """
        for path in self.paths():
            try:
                checkpoint = _named(read(path))
                verify(checkpoint)
                if checkpoint.run != run:
                    raise Broken(f"it is of the run {checkpoint.run}, and this is {run}")
                if checkpoint.healthy or not healthy:
                    return checkpoint
            except Unreadable as unreadable:
                tell(path, str(unreadable))
            except Broken as broken:
                tell(self._move_aside(path, str(broken)), str(broken))
        return None

    def of_step(self, step: int, run: str) -> Checkpoint | None:
        """The one of a step of the run, verified; None where there is none that is whole."""
        for path in self.paths():
            with contextlib.suppress(Broken, Unreadable):
                if _step_of(path) == step:
                    checkpoint = _named(read(path))
                    verify(checkpoint)
                    return checkpoint if checkpoint.run == run else None
        return None

    def not_kept(self, step: int) -> ModelError:
        """Make the error for a step that was made, and whose checkpoint is not whole or not there."""
        there = ", ".join(f"{one.step:,}" for one in reversed(self.all()) if one.step != step) or "none"
        return ModelError(
            Problem(
                "checkpoint/not-kept",
                f"step {step:,} was made, and its checkpoint is not there",
                where=str(self.folder),
                found=f"checkpoints of the steps {there}",
                fix="give export.step one of these, or best or last; a run that is given a step from its beginning, or "
                "a larger checkpoint.keep, keeps more",
            )
        )

    def put_aside(self) -> list[tuple[Path, str]]:
        """What was put aside, and why."""
        found = []
        for path in sorted(self.folder.glob("step-*.broken-*")) if self.folder.is_dir() else ():
            try:
                found.append((path, (path / REASON).read_text("utf-8").strip()))
            except (OSError, UnicodeDecodeError):
                found.append((path, "nobody wrote down why"))
        return found

    def begin(self, step: int) -> Path:
        """A new folder to write a checkpoint into; it becomes one by `commit`."""
        part = self.folder / f".step-{step:08}-{secrets.token_hex(4)}.part"
        if self.folder.is_symlink():
            raise NotADirectoryError(f"{self.folder} is a link")  # What a run writes stays in its folder.
        self.folder.mkdir(exist_ok=True)  # A run folder that was taken away is not made again.
        part.mkdir()
        return part

    def commit(self, part: Path, *, step: int, run: str, facts: dict[str, Any]) -> Checkpoint:
        """Seal the folder and give it its name; from here on it survives everything."""
        sealed = seal(part, step=step, run=run, facts=facts)
        path = self.folder / f"step-{step:08}"
        # One of a run that went back to before it makes room; it is removed when the new one has the name.
        older = self._renamed_away(path, "was") if path.exists() else None
        os.rename(part, path)
        files.sync_folder(self.folder)
        if older is not None:
            shutil.rmtree(older, ignore_errors=True)
        return Checkpoint(path, step, run, sealed.files, facts)

    def retain(self, keep: int, whole: Checkpoint | None = None, named: int | None = None) -> None:
        """Remove all but the newest `keep`, the best, that of the step `named`, the newest after sound steps, `whole`.

        Called after the newest one was committed, so what is removed is never the only one; or with the newest one that
        verifies, since one that cannot be read counts here like any other.
        """
        every = self.all()
        # Losses on other rows, of before the run's rows changed, say nothing.
        rows = every[0].facts.get("heldout_rows") if every else None
        measured = [one for one in every if one.heldout_nll is not None and one.facts.get("heldout_rows") == rows]
        best = min(measured, key=lambda one: (one.heldout_nll or 0.0, one.step), default=None)
        healthy = next((one for one in every if one.healthy), None)
        kept = {one.folder for one in (*every[: max(1, keep)], best, healthy, whole) if one is not None}
        for one in every:
            if one.folder not in kept and one.step != named:
                self._remove(one.folder)

    def sweep(self) -> None:
        """Remove what a killed process left half written or half removed; nobody else may be writing."""
        if self.folder.is_dir():
            for path in list(self.folder.iterdir()):
                was = _WAS.fullmatch(path.name)
                if was and not (self.folder / was[1]).exists():
                    os.rename(path, self.folder / was[1])  # It made room for one that never came.
                elif was or _GONE.fullmatch(path.name) or _PART.fullmatch(path.name):
                    shutil.rmtree(path, ignore_errors=True)

    def remove_after(self, step: int) -> None:
        """Remove those of later steps, when the run has gone back to before them."""
        for one in self.all():
            if one.step > step:
                self._remove(one.folder)

    def discard(self, part: Path) -> None:
        """Remove a folder that was begun."""
        shutil.rmtree(part, ignore_errors=True)

    def _remove(self, path: Path) -> None:
        # It loses its name first, so that a removal cut short leaves nothing that looks like a checkpoint.
        gone = self._renamed_away(path, "gone")
        files.sync_folder(self.folder)
        shutil.rmtree(gone, ignore_errors=True)

    def _renamed_away(self, path: Path, why: str) -> Path:
        gone = path.with_name(f".{path.name}-{secrets.token_hex(4)}.{why}")
        os.rename(path, gone)
        return gone

    def _move_aside(self, path: Path, reason: str) -> Path:
        aside = path.with_name(f"{path.name}.broken-{secrets.token_hex(4)}")
        os.rename(path, aside)
        with contextlib.suppress(OSError):
            (aside / REASON).write_text(reason + "\n", "utf-8")
        return aside


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _named(checkpoint: Checkpoint) -> Checkpoint:
    """Refuse one that lies under another step's name."""
    if _step_of(checkpoint.folder) != checkpoint.step:
        raise Broken(f"its manifest is of step {checkpoint.step}")
    return checkpoint
