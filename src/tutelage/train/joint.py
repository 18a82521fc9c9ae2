"""Checkpoints of a run with several processes: all save or none, and rank 0 commits.

Of replicas rank 0 writes what all of them hold. Of a divided model each process writes its slices into one folder,
which all of them must reach; rank 0 seals it when every process said that its part is there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tutelage import files
from tutelage.checkpoints import Checkpoint
from tutelage.train.optimizer import FusedAdamW
from tutelage.train.ranks import ALONE, Ranks
from tutelage.train.saver import Saver
from tutelage.train.sharding import Shards
from tutelage.train.slices import name_of
from tutelage.train.state import NotFinite, Position, restore, write


@dataclass(slots=True)
class JointSaver(Saver):
    """Of one run; every process must call each method at the same step."""

    ranks: Ranks = field(default_factory=lambda: ALONE)
    shards: Shards | None = None
    """None where every process holds the whole model."""

    def save(self, position: Position, facts: dict[str, Any]) -> str | None:
        """Begin a checkpoint; the name of a tensor that is not finite on any process, for which nothing is saved.

        Raises:
            TutelageError: what went wrong on any process, on all of them.
        """
        with self.ranks.pulse.during("saving"):
            if self.shards is not None:
                return self._save_slices(position, facts)
            broken: str | None = self.ranks.by_first(partial(Saver.save, self, position, facts))
            return broken

    def _bytes(self) -> int:
        """Of a checkpoint, of which each process writes its part."""
        return Saver._bytes(self) * (1 if self.shards is None else self.ranks.world)

    def refuse_without_room(self) -> None:
        """Make sure that there is room for what is kept.

        Raises:
            MachineError: machine/disk-full, with both figures.
        """
        self.ranks.only_first(partial(Saver.refuse_without_room, self))

    def finish(self) -> None:
        """Wait until what was begun is committed.

        Raises:
            TutelageError: what went wrong on any process, on all of them.
        """
        with self.ranks.pulse.during("saving"):
            self.ranks.together(self._settle)

    def _save_slices(self, position: Position, facts: dict[str, Any]) -> str | None:
        self.ranks.together(self._settle)
        part = Path(self.ranks.by_first(lambda: str(self._begun(position.step))))
        try:
            names = self.ranks.gather(self.ranks.together(partial(self._written_slice, part, position)))
        except BaseException:
            if self.ranks.first:
                self.checkpoints.discard(part)
            raise
        broken: str | None = next((name for name in names if name is not None), None)
        if self.ranks.first and broken is not None:
            self.checkpoints.discard(part)
        elif self.ranks.first:
            self._commit_behind(part, position.step, facts)
        return broken

    def _begun(self, step: int) -> Path:
        with files.explained(self.checkpoints.folder):
            return files.patiently(lambda: self.checkpoints.begin(step), self.wait_seconds, self._tell)

    def _written_slice(self, part: Path, position: Position) -> str | None:
        """Write what this process holds; the name of what is not finite in it."""
        named = partial(name_of, rank=self.ranks.rank, world=self.ranks.world)
        state = (part, self.parameters, self.optimizer, position)
        attempt = partial(write, *state, named=named, position_too=self.ranks.first)
        try:
            with files.explained(part):
                files.patiently(attempt, self.wait_seconds, self._tell)
        except NotFinite as error:
            return str(error)
        return None

    def restored(self, checkpoint: Checkpoint | None) -> Position | None:
        """Put the checkpoint that rank 0 names into every process; None where it names none.

        Raises:
            TutelageError: what went wrong on any process, on all of them.
        """
        with self.ranks.pulse.during("loading"):
            return self._restored(checkpoint)

    def _restored(self, checkpoint: Checkpoint | None) -> Position | None:
        named = None if checkpoint is None else {**asdict(checkpoint), "folder": str(checkpoint.folder)}
        told = self.ranks.broadcast(named)
        if told is None:
            return None
        found = Checkpoint(**{**told, "folder": Path(told["folder"])})
        if self.shards is not None:
            rows = self.shards.rows()
            return self.ranks.together(lambda: restore(found, self.parameters, self.optimizer, rows=rows))
        position = self.ranks.only_first(partial(restore, found, self.parameters, self.optimizer))
        spread(self.ranks, self.optimizer)
        return Position(**self.ranks.broadcast(None if position is None else asdict(position)))


@torch.no_grad()
def spread(ranks: Ranks, optimizer: FusedAdamW) -> None:
    """Give every process the weights and the optimizer's state of rank 0; the folder need not be reached by all."""
    if ranks.alone:
        return
    state = optimizer.state()
    tensors = [slot.parameter.detach() for slot in optimizer.slots] + list(state.values())
    with ranks.pulse.meeting():
        for tensor in tensors:
            dist.broadcast(tensor, 0)
    optimizer.load_state(state)
