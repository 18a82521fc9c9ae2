"""Saves checkpoints while training goes on.

The state is written when the saver is called, at the speed of memory, since the system takes the bytes before the disk
does. A thread then waits for the disk, hashes what is there, commits, and removes what need not stay. The next save
waits for the one before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from tutelage import files
from tutelage.checkpoints import Checkpoint, Checkpoints
from tutelage.errors import MachineError, ModelError, Problem, TutelageError
from tutelage.train.optimizer import FusedAdamW
from tutelage.train.state import NotFinite, Position, write


@dataclass(slots=True)
class Saver:
    """Of one run."""

    checkpoints: Checkpoints
    run: str
    """Identity of the run."""
    parameters: Mapping[str, nn.Parameter]
    optimizer: FusedAdamW
    keep: int
    wait_seconds: int
    """For which a full disk is waited for."""
    say: Callable[[str], None]
    before_commit: Callable[[], None] = lambda: None
    """Has the run's journals survive what the checkpoint survives."""
    named: int | None = None
    """A step whose checkpoint is kept whatever else is removed."""
    last: Checkpoint | None = None
    """Committed by this process, or restored."""
    _thread: threading.Thread | None = None
    _errors: list[BaseException] = field(default_factory=list)

    def save(self, position: Position, facts: dict[str, Any]) -> str | None:
        """Begin a checkpoint; the name of a tensor that is not finite, for which nothing is saved.

        Raises:
            MachineError: machine/disk-full, machine/read-only, now or of the save before.
        """
        self._settle()
        part = None
        try:
            with self._explained():
                part = files.patiently(lambda: self._written(position), self.wait_seconds, self._tell)
        except NotFinite as error:
            return str(error)
        self._commit_behind(part, position.step, facts)
        return None

    def refuse_without_room(self) -> None:
        """Make sure that the checkpoints that are kept, and the one being written, find room.

        Raises:
            MachineError: machine/disk-full, with both figures.
        """
        with files.explained(self.checkpoints.folder):
            self.checkpoints.folder.mkdir(exist_ok=True)
        there = sum(one.bytes for one in self.checkpoints.all())
        needed = (self.keep + 1) * self._bytes() - there
        if files.free_bytes(self.checkpoints.folder) < needed:
            raise self._full(
                needed, f"found before training, for checkpoint.keep={self.keep} and the one being written"
            )

    def newest(self, *, healthy: bool = False) -> Checkpoint | None:
        """The checkpoint to go on from, or the newest after sound steps; what is not whole is said and put aside.

        Raises:
            ModelError: checkpoint/none, when there were some and none is whole.
        """
        broken: list[tuple[Path, str]] = []
        found = self.checkpoints.newest(self.run, lambda *what: broken.append(what), healthy=healthy)
        for folder, reason in broken:
            aside = ".broken-" in folder.name
            how = "is not whole and was put aside as" if aside else "cannot be read and is not used:"
            self.say(f"note    a checkpoint {how} {folder.name}: {reason}")
        left = [one for one in broken if one[0].exists()]
        if found is None and (aside := self.checkpoints.put_aside() or left):
            raise ModelError(
                Problem(
                    "checkpoint/none",
                    "none of the run's checkpoints is whole",
                    where=str(self.checkpoints.folder),
                    found="; ".join(f"{folder.name}: {reason}" for folder, reason in aside),
                    fix="bring one back from elsewhere, or begin another run with output=runs/NAME; without the "
                    "folders that were put aside this one begins again",
                )
            )
        self.checkpoints.retain(self.keep, found, self.named)  # A process that ended after a commit had no time for it.
        return found

    def of_step(self, step: int) -> Checkpoint | None:
        """The checkpoint of a step; None where it is gone or not whole."""
        return self.checkpoints.of_step(step, self.run)

    def finish(self) -> None:
        """Wait until what was begun is committed.

        Raises:
            MachineError: machine/disk-full, machine/read-only.
        """
        self._settle()

    def join(self) -> None:
        """Wait for the thread and raise nothing: for when something else is raised already."""
        if self._thread is not None:
            self._thread.join()

    def check(self) -> None:
        """Raise what the thread met, without waiting for it."""
        if self._errors:
            with self._explained():
                raise self._errors.pop()

    @property
    def broken(self) -> bool:
        """Whether `check` would raise."""
        return bool(self._errors)

    def where(self) -> str:
        """Where the run can go on, in words that continue a sentence."""
        return (
            "" if self.last is None else f"; {self.last.folder} holds step {self.last.step}, and --resume goes on there"
        )

    def _settle(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _written(self, position: Position) -> Any:
        part = self.checkpoints.begin(position.step)
        try:
            write(part, self.parameters, self.optimizer, position)
        except BaseException:
            self.checkpoints.discard(part)
            raise
        return part

    def _commit_behind(self, part: Any, step: int, facts: dict[str, Any]) -> None:
        """Let a thread commit what was written."""
        self._thread = threading.Thread(target=self._commit, args=(part, step, facts), name="checkpoint")
        self._thread.start()

    def _commit(self, part: Any, step: int, facts: dict[str, Any]) -> None:
        def commit() -> Checkpoint:
            self.before_commit()
            return self.checkpoints.commit(part, step=step, run=self.run, facts=facts)

        try:
            self.last = files.patiently(commit, self.wait_seconds, self._tell)
            self.checkpoints.retain(self.keep, named=self.named)
        except BaseException as error:  # It is raised where the run asks.
            self.checkpoints.discard(part)
            self._errors.append(error)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the file system says into an error with a fix.

        Raises:
            MachineError: machine/disk-full, with both figures; machine/read-only.
        """
        with files.explained(self.checkpoints.folder):
            try:
                yield
            except Exception as error:  # The writer of safetensors has errors of its own.
                if isinstance(error, TutelageError) or not files.is_full(error):
                    raise
                said = getattr(error, "strerror", None) or error
                raise self._full(self._bytes(), f"{said}; the checkpoints before it are whole") from error

    def _bytes(self) -> int:
        """Of a checkpoint."""
        tensors = [*self.parameters.values(), *self.optimizer.state().values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _full(self, needed: int, why: str) -> MachineError:
        free = files.free_bytes(self.checkpoints.folder)
        return MachineError(
            Problem(
                "machine/disk-full",
                "the disk has no room for a checkpoint",
                where=str(self.checkpoints.folder),
                found=f"{needed / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free",
                why=why,
                fix="free some space and --resume, name another output folder, or keep fewer with checkpoint.keep=1",
            )
        )

    def _tell(self) -> None:
        self.say(files.waiting(self.checkpoints.folder, self.wait_seconds))
