"""The worst of a run, tried before its first step, so that what would fail after hours fails within a minute.

The longest examples that fill the token budget go forward and backward with gradients and the optimizer's state in
place, an optimizer step is made that changes nothing, held-out rows are measured where they are larger, and what the
end of the run writes is written and removed. Weights, random numbers and the run's own optimizer are as before.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage import files
from tutelage.data.batch import MicroBatch
from tutelage.errors import MachineError, Problem
from tutelage.models.forward import Forward
from tutelage.objectives.base import Objective
from tutelage.train.choice import Choice, does_not_fit
from tutelage.train.memory import forget_peak, give_back_memory, is_out_of_memory, peak_memory_bytes
from tutelage.train.optimizer import FusedAdamW
from tutelage.train.probe import empty_step
from tutelage.train.work import Work


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the worst of the run took."""

    peak_memory_bytes: int
    tokens: int
    """Computed at once."""
    token_seconds: float
    """Forward and backward, for each computed token."""
    update_seconds: float
    """The optimizer's step."""
    saved_bytes: int
    saved_seconds: float

    def as_json(self) -> dict[str, Any]:
        """As `plan.json` holds it."""
        return asdict(self)


def rehearse_until_it_fits(
    choice: Choice,
    work: Work,
    forward: Forward,
    objective: Objective,
    parameters: Mapping[str, nn.Parameter],
    *,
    allowed: int | None,
    **options: Any,
) -> Choice:
    """The choice with what the rehearsal measured; with a smaller token budget where the plan chose one too large.

    Raises:
        MachineError: machine/out-of-memory, machine/disk-full.
    """
    tokens = choice.estimate.token_budget
    free = "train.token_budget" in choice.chosen
    give_back_memory()
    forget_peak(forward.device)  # Of planning and loading, which are over.
    while True:
        done = rehearse(
            forward,
            objective,
            parameters,
            batch=work.largest(tokens),
            heldout=work.largest_heldout(tokens),
            disk_bytes=choice.estimate.disk_bytes,
            **options,
        )
        if done is not None and (allowed is None or done.peak_memory_bytes <= allowed):
            return choice.measured_by(done.as_json(), tokens)
        if not free or tokens <= work.longest:
            needed = choice.estimate.peak_memory_bytes if done is None else done.peak_memory_bytes
            fix = f"train.token_budget={tokens // 2}" if tokens > work.longest else "a smaller data.max_length"
            fix += " computes less at once; train.checkpointing=full keeps less of it"
            raise does_not_fit(needed, choice.limit if allowed is None else allowed, choice.limited_by, fix)
        tokens = max(work.longest, tokens // 2)
        give_back_memory()
        forget_peak(forward.device)


def rehearse(
    forward: Forward,
    objective: Objective,
    parameters: Mapping[str, nn.Parameter],
    *,
    batch: MicroBatch,
    heldout: MicroBatch | None,
    build: Callable[[], FusedAdamW],
    save: Callable[[Path], None],
    folder: Path,
    disk_bytes: int,
) -> Rehearsal | None:
    """The figures, or None where memory ran out.

    `build` makes an optimizer, which is thrown away; `save` writes into a new folder inside `folder`, which is removed.

    Raises:
        MachineError: machine/disk-full.
    """
    refuse_full_disk(folder, disk_bytes)
    devices = [forward.device] if forward.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        figures = _passes(forward, objective, batch, heldout, build)
        for parameter in parameters.values():
            parameter.grad = None
        if figures is None:
            return None
        saved_bytes, saved_seconds = _try_saving(save, folder)
    token_seconds, update_seconds = figures
    return Rehearsal(
        peak_memory_bytes(forward.device),
        batch.computed_tokens,
        token_seconds,
        update_seconds,
        saved_bytes,
        saved_seconds,
    )


def _passes(
    forward: Forward,
    objective: Objective,
    batch: MicroBatch,
    heldout: MicroBatch | None,
    build: Callable[[], FusedAdamW],
) -> tuple[float, float] | None:
    """(seconds a token, seconds of an optimizer step), or None where memory ran out."""
    try:
        forward.model.train()
        optimizer = build()
        objective(forward, batch).sum.backward()
        _elapsed(forward.device, lambda: empty_step(optimizer))
        # The second pass adds to gradients that are there, beside a state that is there: the most there ever is.
        _elapsed(forward.device, lambda: objective(forward, batch).sum.backward())
        # A step of the run takes what a pass takes that needs no new memory.
        passing = _elapsed(forward.device, lambda: objective(forward, batch).sum.backward())
        updating = _elapsed(forward.device, lambda: empty_step(optimizer))
        if heldout is not None:
            forward.model.eval()
            with torch.no_grad():
                forward.nll(heldout)
        return passing / batch.computed_tokens, updating
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def refuse_full_disk(folder: Path, needed: int) -> None:
    """Make sure that there is room for what the run will write.

    Raises:
        MachineError: machine/disk-full, with both figures.
    """
    free = files.free_bytes(folder)
    if free < needed:
        raise _full(folder, f"{free / 1e6:,.1f} MB are free, the run will write {needed / 1e6:,.1f} MB")


def _try_saving(save: Callable[[Path], None], folder: Path) -> tuple[int, float]:
    started = time.perf_counter()
    trial = Path(tempfile.mkdtemp(prefix=".rehearsal-", dir=folder))
    try:
        save(trial)
        return sum(path.stat().st_size for path in trial.rglob("*") if path.is_file()), time.perf_counter() - started
    except Exception as error:
        if files.is_full(error):
            raise _full(folder, str(error)) from error
        raise
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def _full(folder: Path, found: str) -> MachineError:
    return MachineError(
        Problem(
            "machine/disk-full",
            "the disk is too full for what the run will write",
            where=str(folder),
            found=found,
            why="found in the rehearsal; nothing was trained yet",
            fix="free some space, or choose another output folder",
        )
    )


def _elapsed(device: torch.device, run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
