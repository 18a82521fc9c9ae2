"""What makes the numbers of a run wrong, called in a child before it runs, as `injections:NAME`.

What was done goes into the file `told`, a JSON object a line: `broke` with the step, and for the steps around it the
digests of the trained parameters `before` and `after` the update.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STAYING = ("parameter", "optimizer", "base")
"""Kinds whose value stays in memory after the step. A process breaks each step once: a return mends it."""


def breaking(kind: str, at: Sequence[int], told: str, factor: str = "nan", once: bool = False) -> None:
    """Multiply by `factor`, or put it there, in the steps `at` (from 1). With `once`, no later process does it again.

    loss        of each micro-batch, and so the gradient
    gradient    that the second micro-batch adds to one tensor; the loss stays
    masked      the loss of each micro-batch is zero, as where nothing is trained
    parameter   one value of a trained tensor, before the step
    optimizer   one value of its state, before the update
    base        one value of a frozen tensor
    """
    from tutelage.objectives import nll as objective
    from tutelage.train import loop
    from tutelage.train.optimizer import FusedAdamW

    place, done, hooked = {"step": 0, "micro": 0}, set[int](), set[int]()
    derive, nll, update, value = loop.derive, objective.nll, FusedAdamW.step, float(factor)

    def where(seed: int, purpose: str, *numbers: int) -> int:
        if purpose == "functions":
            place.update(step=numbers[0], micro=numbers[1])
        return derive(seed, purpose, *numbers)

    def due(which: Sequence[str], micro: int | None = None) -> bool:
        step = place["step"]
        if kind not in which or step not in at or (micro is not None and place["micro"] != micro):
            return False
        if (kind in STAYING and step in done) or (once and step not in done and step in broken(told)):
            return False
        if step not in done:
            _tell(told, {"broke": step})
        done.add(step)
        return True

    def wrong(forward: Any, batch: Any) -> Any:
        trained = [p for p in forward.model.parameters() if p.requires_grad]
        if due(("parameter", "base"), 0):
            frozen = (p for p in forward.model.parameters() if not p.requires_grad)
            tensor = trained[0] if kind == "parameter" else next(p for p in frozen if p.dim() > 1)
            tensor.data[0] = value
        if kind == "gradient" and id(trained[0]) not in hooked:
            hooked.add(id(trained[0]))
            trained[0].register_hook(lambda gradient: gradient * value if due(("gradient",), 1) else gradient)
        loss = nll(forward, batch)
        return type(loss)(loss.sum * (0.0 if kind == "masked" else value), loss.weight) if due(_LOSSES) else loss

    @functools.wraps(update)
    def watched(self: Any, *arguments: Any, **named: Any) -> None:
        if due(("optimizer",)):
            self.slots[0].square.view(-1)[0] = value
        before = _digest(self)
        update(self, *arguments, **named)
        if place["step"] in {step + later for step in at for later in (0, 1)}:
            _tell(told, {"step": place["step"], "before": before, "after": _digest(self)})

    loop.derive, objective.nll = where, wrong  # type: ignore[attr-defined,assignment]
    FusedAdamW.step = watched  # type: ignore[method-assign]


def dying(after: int) -> None:
    """End this process without warning when it writes down that step, the last time that it does.

    A step that the run goes back over is not the last time: the process dies when the step is made again.
    """
    from tutelage.learning import Learning

    noted, went_back = Learning._note, [False]
    back = Learning._go_back

    def note(self: Any, step: Any, *rest: Any) -> None:
        noted(self, step, *rest)
        if step.step == after and went_back[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    def go_back(self: Any, *arguments: Any) -> None:
        back(self, *arguments)
        went_back[0] = True

    Learning._note, Learning._go_back = note, go_back  # type: ignore[method-assign]


def filling(disk: str, name: str, nth: int = 1, leave: int = 0, freed_after: float | None = None) -> None:
    """Fill a disk before the file `name` is written the `nth` time, but for `leave` bytes.

    With `freed_after`, the room is given back so many seconds later.
    """
    from tutelage import files
    from tutelage.data.store import shelf
    from tutelage.export import delivery
    from tutelage.report import page
    from tutelage.train import state

    count = [0]

    def before(module: Any, function: str, named: Callable[..., str]) -> None:
        write = getattr(module, function)

        @functools.wraps(write)
        def watched(*arguments: Any, **options: Any) -> Any:
            if named(*arguments, **options) == name:
                count[0] += 1
                if count[0] == nth:
                    _fill(Path(disk), leave)
                    if freed_after is not None:
                        threading.Timer(freed_after, (Path(disk) / FILLER).unlink).start()
            return write(*arguments, **options)

        setattr(module, function, watched)

    before(files, "write_whole", lambda path, data: Path(path).name)
    before(files, "append", lambda path, data: Path(path).name)
    before(state, "save_file", lambda tensors, path, *rest: Path(path).name)
    before(delivery, "save", lambda *arguments, **options: "model")
    before(page, "render", lambda *arguments, **options: "report.html")
    before(shelf.Shelf, "opened", lambda *arguments, **options: "store")


FILLER = "filler"
"""The file that takes a disk's room."""


def _fill(disk: Path, leave: int) -> None:
    with (disk / FILLER).open("wb", buffering=0) as file:
        piece = bytes(1 << 16)
        while piece:
            try:
                file.write(piece)
            except OSError:
                piece = piece[: len(piece) // 2]
        file.truncate(max(0, file.tell() - leave))


def no_room(file: str, nth: int) -> None:
    """From the `nth` time on that this process writes tensors into a file of that name, its disk is full half-way."""
    from tutelage.train import state

    count, write = itertools.count(1), state.save_file

    @functools.wraps(write)
    def watched(tensors: Any, path: Any) -> None:
        write(tensors, path)
        if Path(path).name.startswith(file) and next(count) >= nth:
            os.truncate(path, Path(path).stat().st_size // 2)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    state.save_file = watched


def smaller_files(most: int) -> None:
    """No file that this process writes may be larger."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def printing_to(stream: str, path: str) -> None:
    """What is printed goes into a file or device, `closed`: nowhere, or `deaf`: a pipe that nobody reads."""
    number = {"stdout": 1, "stderr": 2}[stream]
    if path == "closed":
        os.close(number)
        return
    reading, handle = os.pipe() if path == "deaf" else (-1, os.open(path, os.O_WRONLY))
    os.dup2(handle, number)
    os.close(handle)
    if reading >= 0:
        os.close(reading)


def jumping(jumps: Sequence[float]) -> None:
    """The clock of the wall jumps by so many seconds, each time that it is read by another one."""
    real, calls = time.time, itertools.count()
    time.time = lambda: max(0.0, real() + jumps[next(calls) % len(jumps)])


def out_of_memory(at: Mapping[str, int]) -> None:
    """Memory runs out in these steps at that micro-batch, as long as it holds more than one example."""
    import torch

    from tutelage.objectives import nll as objective
    from tutelage.train import loop

    place, derive, nll = {"step": 0, "micro": 0}, loop.derive, objective.nll

    def where(seed: int, purpose: str, *numbers: int) -> int:
        if purpose == "functions":
            place.update(step=numbers[0], micro=numbers[1])
        return derive(seed, purpose, *numbers)

    def small(forward: Any, batch: Any) -> Any:
        if at.get(str(place["step"])) == place["micro"] and len(set(batch.owners.tolist())) > 1:
            raise torch.OutOfMemoryError("out of memory, as the test wants it")
        return nll(forward, batch)

    loop.derive, objective.nll = where, small  # type: ignore[attr-defined,assignment]


def without_network() -> None:
    """The process reaches no network, not even itself."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
        raise OSError(ctypes.get_errno(), "no network of its own for this process")


def signalled(phase: str, numbers: Sequence[int], delay: float, told: str, nth: int = 1, apart: float = 0.0) -> None:
    """Send itself signals, `delay` seconds after the `nth` time that a phase begins and so far apart from each other.

    A phase is the beginning or the end of a stage's name, or `save`.
    """
    from tutelage.cli import screen
    from tutelage.train import saver

    count = itertools.count(1)

    def begins() -> None:
        if next(count) == nth:
            threading.Thread(target=send, daemon=True).start()

    def send() -> None:
        time.sleep(delay)
        for number in numbers:
            _tell(told, {"sent": number, "at": time.time(), "phase": phase})
            os.kill(os.getpid(), number)
            time.sleep(apart)

    stage, save = screen.Terminal.stage, saver.Saver.save

    def staged(self: Any, name: str, total: int | None) -> Any:
        if name.startswith(phase) or name.endswith(phase):
            begins()
        return stage(self, name, total)

    def saved(self: Any, *arguments: Any) -> None:
        if phase == "save":
            begins()
        save(self, *arguments)

    screen.Terminal.stage, saver.Saver.save = staged, saved  # type: ignore[method-assign]


_LOSSES = ("loss", "masked")


@contextmanager
def mended() -> Iterator[None]:
    """Afterwards this process is as it was before `breaking`."""
    from tutelage.objectives import nll as objective
    from tutelage.train import loop
    from tutelage.train.optimizer import FusedAdamW

    was = loop.derive, objective.nll, FusedAdamW.step
    try:
        yield
    finally:
        loop.derive, objective.nll, FusedAdamW.step = was  # type: ignore[attr-defined,method-assign]


def broken(told: str | Path) -> list[int]:
    """The steps that were broken, as often as they were."""
    return [line["broke"] for line in told_lines(told) if "broke" in line]


def told_lines(told: str | Path) -> list[dict[str, Any]]:
    """Everything that was told."""
    path = Path(told)
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def _tell(told: str, value: dict[str, Any]) -> None:
    with Path(told).open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def _digest(optimizer: Any) -> str:
    whole = hashlib.blake2b(digest_size=16)
    for slot in optimizer.slots:
        whole.update(slot.parameter.detach().numpy().tobytes())
    return whole.hexdigest()
