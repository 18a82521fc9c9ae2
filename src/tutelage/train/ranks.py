"""The processes of one run: which of them this is, what they add up, and what they decide together.

    torchrun starts them and names them in the environment · torch.distributed connects them · rank 0 writes the files

Gradients are sums over examples, divided once by the weight of the whole global batch; so what the processes computed
is added, and nothing is averaged anywhere. A decision is a vote: whoever sees a reason tells it, and all act on it at
the same step. What is said between processes is JSON in tensors, never a pickled object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tutelage.errors import Problem, TutelageError, WorkerError
from tutelage.train.pulse import Pulse

T = TypeVar("T")

BUCKET = 1 << 20
"""Gradients with fewer elements are added together, up to so many; larger ones alone, without a copy."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of a run, seen from one of them; `Ranks()` is a process by itself."""

    rank: int = 0
    world: int = 1
    local: int = 0
    """Which of the processes of this machine it is."""
    device: str = "cpu"
    """Where tensors that are added lie: `cpu` or `cuda`."""
    pulse: Pulse = field(default_factory=Pulse, compare=False)

    @property
    def first(self) -> bool:
        """Whether this process writes the files and the screen."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self.world == 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same bits on each of them; the tensor itself holds it."""
        if not self.alone:
            with self.pulse.meeting():
                dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes.

        A process without one counts as zero; a parameter that has none anywhere keeps none.
        """
        every = list(parameters)
        if self.alone or not every:
            return
        counts = [parameter.grad is not None for parameter in every]
        have = self.sum(torch.tensor(counts, dtype=torch.float32, device=self.device)) > 0
        used = [parameter for parameter, any_has in zip(every, have.tolist(), strict=True) if any_has]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter, dtype=torch.promote_types(parameter.dtype, torch.float32))
        for bucket in _buckets([parameter.grad for parameter in used if parameter.grad is not None]):
            if len(bucket) == 1 and bucket[0].dtype == torch.float32 and bucket[0].is_contiguous():
                self.sum(bucket[0])
                continue
            total = self.sum(torch.cat([gradient.reshape(-1).float() for gradient in bucket]))
            for gradient, part in zip(bucket, total.split([gradient.numel() for gradient in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def largest(self, number: int) -> int:
        """The largest of what the processes say."""
        if self.alone:
            return number
        said = torch.tensor([number], dtype=torch.int64, device=self.device)
        with self.pulse.meeting():
            dist.all_reduce(said, dist.ReduceOp.MAX)
        return int(said)

    def each(self, losses: list[Tensor]) -> list[Tensor]:
        """The sum over all processes, alone in a list; a process by itself keeps its own apart."""
        if self.alone:
            return losses
        here = torch.stack(losses).double().sum() if losses else torch.zeros((), dtype=torch.float64)
        return [self.sum(here.to(self.device)).float()]

    def add(self, counts: Sequence[tuple[int, ...]]) -> list[int]:
        """The sums of each column over all rows of all processes; there is at least one row."""
        here = [sum(column) for column in zip(*counts, strict=True)] or [0, 0, 0]
        if self.alone:
            return here
        total: list[int] = self.sum(torch.tensor(here, dtype=torch.int64, device=self.device)).tolist()
        return total

    def agree(self, flags: Mapping[str, bool]) -> dict[str, list[int]]:
        """For each flag the ranks that raise it, in one meeting; no rank, where none does."""
        names = list(flags)
        if self.alone:
            return {name: [0] if flags[name] else [] for name in names}
        raised = torch.zeros(len(names), self.world, device=self.device)
        raised[:, self.rank] = torch.tensor([float(flags[name]) for name in names])
        self.sum(raised)
        return {name: row.nonzero().flatten().tolist() for name, row in zip(names, raised, strict=True)}

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank, on each of them; a value is anything that JSON holds."""
        if self.alone:
            return [value]
        written = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = torch.zeros(self.world, dtype=torch.int64)
        sizes[self.rank] = len(written)
        with self.pulse.meeting():
            dist.all_reduce(sizes)
            rows = torch.zeros(self.world, int(sizes.max()), dtype=torch.uint8)
            rows[self.rank, : len(written)] = written
            dist.all_gather(list(rows), rows[self.rank].clone())
        return [json.loads(bytes(row[:size].tolist())) for row, size in zip(rows, sizes.tolist(), strict=True)]

    def broadcast(self, value: Any = None) -> Any:
        """The value of rank 0; the others need not give one."""
        if self.alone:
            return value
        written = torch.frombuffer(bytearray(json.dumps(value if self.first else None).encode()), dtype=torch.uint8)
        size = torch.tensor([len(written)])
        with self.pulse.meeting():
            dist.broadcast(size, 0)
            row = written if self.first else torch.empty(int(size), dtype=torch.uint8)
            dist.broadcast(row, 0)
        return json.loads(bytes(row.tolist()))

    def together(self, act: Callable[[], T]) -> T:
        """What `act` returns here, once it succeeded everywhere.

        Raises:
            TutelageError: where it failed on any process, on all of them: the problems of the lowest rank, which is
                named. What is no such error is raised where it happened, and is worker/lost on the others.
        """
        if self.alone:
            return act()
        result, failed, told = None, None, None
        try:
            result = act()
        except Exception as error:
            failed, told = error, _told(error)
        for rank, problems in enumerate(self.gather(told)):
            if problems is not None:
                _raise(rank, problems, failed if rank == self.rank else None)
        return result  # type: ignore[return-value]

    def only_first(self, act: Callable[[], T]) -> T | None:
        """What `act` returns on rank 0, where alone it is called; None on the others.

        Raises:
            TutelageError: as `together`.
        """
        return self.together(act if self.first else lambda: None)

    def by_first(self, act: Callable[[], Any]) -> Any:
        """What `act` returns on rank 0, on every process; it is called there alone, and is something JSON holds.

        Raises:
            TutelageError: as `together`.
        """
        return self.broadcast(self.only_first(act))

    def in_turn(self, act: Callable[[], T]) -> T:
        """What `act` returns here; rank 0 goes first, and the others find what it left on disk.

        Raises:
            TutelageError: as `together`.
        """
        done = self.only_first(act)
        return self.together(lambda: done if self.first else act())  # type: ignore[return-value]

    def meet(self) -> None:
        """Wait until all are here."""
        self.sum(torch.zeros(1, device=self.device))

    def part(self) -> None:
        """Leave the others, at the end of a run in which nobody failed."""
        if not self.alone and dist.is_initialized():
            dist.destroy_process_group()


ALONE = Ranks()


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """In the order given: small ones together, a large one alone."""
    held: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if held and size + gradient.numel() > BUCKET:
            yield held
            held, size = [], 0
        held.append(gradient)
        size += gradient.numel()
    if held:
        yield held


def _told(error: Exception) -> list[dict[str, str]]:
    """An error as JSON holds it."""
    if isinstance(error, TutelageError):
        return [asdict(problem) for problem in error.problems]
    what = f"{type(error).__name__}: {error}"
    return [asdict(Problem("worker/lost", "another process of the run failed", found=what))]


def _raise(rank: int, problems: list[dict[str, str]], here: Exception | None) -> NoReturn:
    if here is not None:
        raise here
    told = [Problem(**problem) for problem in problems]
    first = told[0]
    where = f"rank {rank}" + (f": {first.where}" if first.where else "")
    named = Problem(first.code, first.what, where, first.found, first.why, first.fix)
    if named.code.startswith("worker/"):
        raise WorkerError(named, *told[1:])
    raise TutelageError.of([named, *told[1:]])
