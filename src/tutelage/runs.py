"""The run folder: one writer, one reader. Every file is JSON, YAML or safetensors; none is ever half-written.

recipe.yaml · origins.json · run.json · environment.json · data.json · quarantine.jsonl · plan.json · rows.jsonl
metrics.jsonl · examples.jsonl · evaluations.jsonl · heldout.json · heldout.jsonl · samples.jsonl · tasks.jsonl
base.json · general.safetensors · checkpoints/ · model/ · result.json · report.html
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from tutelage import files
from tutelage.checkpoints import Checkpoints
from tutelage.errors import MachineError, ModelError, Problem, RecipeError
from tutelage.locks import left_behind

JOURNALS = ("metrics.jsonl", "examples.jsonl", "evaluations.jsonl", "heldout.jsonl", "samples.jsonl", "tasks.jsonl")
"""One object a line, each with its `step`."""
MEASUREMENTS = ("evaluations.jsonl", "heldout.jsonl")
"""Of those, what a measurement of the held-out loss is written into, in this order."""
ELSEWHERE = "name a folder of your own, as in output=A/FOLDER/YOU/OWN"
_NOTHING = re.compile(r"\.lock|\.holder\.json|\.[\w.]+\.part|stacks")
"""Names of what is no run: the lock, and what a process leaves that ends before it wrote `run.json`."""
LOCK, HOLDER = ".lock", ".holder.json"
"""Held while a process writes into the folder, and who that is."""


class Run:
    """A run folder."""

    def __init__(
        self, folder: str | Path, *, wait_seconds: int = 0, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.folder = Path(folder)
        self._say = say
        self.wait_seconds = wait_seconds
        """For which a full disk is waited for."""

    @property
    def model(self) -> Path:
        """Where the trained model is saved."""
        return self.folder / "model"

    @property
    def checkpoints(self) -> Checkpoints:
        """What the run can go on from."""
        return Checkpoints(self.folder / "checkpoints")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process writes here. A folder that is still empty afterwards is removed.

        Raises:
            MachineError: machine/run-in-use, at once, naming the other process; machine/read-only;
                machine/folder-gone, whatever failed inside, when the folder is not there any more.
        """
        missing = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        self.create()
        path = self.folder / LOCK
        fresh = not path.exists()
        lock = FileLock(path)
        with files.explained(self.folder, ELSEWHERE):
            try:
                lock.acquire(timeout=0.5, poll_interval=0.05)  # `runs list` looks at locks for a moment.
            except Timeout:
                raise self._in_use(left_behind(lock)) from None
        here = self._place()
        try:
            yield
        except Exception as error:
            if self._place() == here:
                raise
            raise self._gone(next(iter(str(error).splitlines()), type(error).__name__)) from error
        else:
            if self._place() != here:
                raise self._gone("another folder stands in its place" if self.folder.is_dir() else "nothing is there")
        finally:
            with contextlib.suppress(OSError):  # The folder may have become another's, or read-only.
                (self.folder / HOLDER).unlink(missing_ok=True)
                if fresh and not self.holds_a_run():
                    (self.folder / LOCK).unlink(missing_ok=True)
            lock.release()
            for path in missing:
                with contextlib.suppress(OSError):  # not empty
                    path.rmdir()

    def claim(self) -> None:
        """Say who holds the lock, for whoever is refused."""
        who = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        self.write_json(HOLDER, who)

    def refuse_if_taken(self) -> None:
        """Make sure that a run can be written here, without leaving anything behind.

        Raises:
            RecipeError: recipe/run-exists, when the folder is not empty.
            MachineError: machine/read-only, when it cannot be written.
        """
        if self.folder.is_file() or not self.is_empty():
            holds = "a file" if self.folder.is_file() else "a run" if self.holds_a_run() else "something"
            goes_on = "; --resume continues the run in this one" if holds == "a run" else ""
            raise RecipeError(
                Problem(
                    "recipe/run-exists",
                    f"`{self.folder}` already holds {holds}",
                    where=str(self.folder),
                    why="a run never overwrites anything",
                    fix=f"choose another folder, as in output=runs/NAME, or remove this one{goes_on}",
                )
            )
        with files.explained(self.folder, ELSEWHERE), tempfile.NamedTemporaryFile(dir=files.nearest(self.folder)):
            pass

    def is_empty(self) -> bool:
        """Whether nothing has been written yet; a lock is nothing."""
        if not self.folder.is_dir():
            return True
        return all(_NOTHING.fullmatch(path.name) for path in self.folder.iterdir())

    def holds_a_run(self) -> bool:
        """Whether a run was begun here."""
        return (self.folder / "run.json").is_file()

    def create(self) -> None:
        """Make the folder."""
        missing = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        with files.explained(self.folder, ELSEWHERE):
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in missing:
                files.sync_folder(path.parent)

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        path, data = self.folder / name, text.encode("utf-8", errors="replace")
        with files.explained(path, needed=len(data)):
            files.patiently(lambda: files.write_whole(path, data), self.wait_seconds, self.tell_of_waiting)

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as strict JSON; numbers that are not finite become null."""
        self.write_text(name, files.as_json(value))

    def append(self, name: str, values: Iterable[Any]) -> None:
        """Add lines to a .jsonl file, all of them or none."""
        path, data = self.folder / name, files.lines(values).encode("utf-8", errors="replace")
        with files.explained(path, needed=len(data)):
            files.patiently(lambda: files.append(path, data), self.wait_seconds, self.tell_of_waiting)

    def write_lines(self, name: str, values: Iterable[Any]) -> None:
        """Write a .jsonl file whole."""
        self.write_text(name, files.lines(values))

    def forget(self, name: str) -> None:
        """Remove a file, if it is there."""
        with files.explained(self.folder / name):
            (self.folder / name).unlink(missing_ok=True)

    def sync_journals(self) -> None:
        """Have what the journals hold survive a loss of power."""
        for name in JOURNALS:
            if (self.folder / name).is_file():
                files.sync(self.folder / name)
        files.sync_folder(self.folder)

    def cut_back(self, step: int, journals: Sequence[str] = JOURNALS) -> None:
        """Leave of the journals what was written up to a step; a last line that was cut short goes as well.

        What the finished model answered goes too, since it is measured anew.
        """
        for name in journals:
            path = self.folder / name
            if path.is_file():
                with files.explained(path), open(path, "r+b", opener=files.no_link) as journal:
                    journal.truncate(_end_of(journal, step))
                    os.fsync(journal.fileno())

    def read_json(self, name: str, *, needed: bool = True) -> Any:
        """The value of a JSON file, or None where there is no such file; without `needed`, also where it is damaged.

        Raises:
            ModelError: checkpoint/unreadable.
        """
        path = self.folder / name
        try:
            return json.loads(path.read_text("utf-8")) if path.is_file() else None
        except (OSError, ValueError, RecursionError) as error:
            if not needed:
                return None
            what, fix = "a file of the run cannot be read", "bring it back from a copy, or begin another run"
            raise ModelError(Problem("checkpoint/unreadable", what, str(path), found=str(error), fix=fix)) from error

    def read_lines(self, name: str, *, whole: bool = True) -> Iterator[Any]:
        """The values of a .jsonl file; nothing where there is no such file.

        Without `whole`, a line that is not JSON ends it: a process that was killed left it so.
        """
        path = self.folder / name
        if path.is_file():
            with path.open(encoding="utf-8", errors="strict" if whole else "replace") as file:
                for line in file:
                    try:
                        value = json.loads(line)
                    except ValueError:
                        if whole:
                            raise
                        return
                    yield value

    def tell_of_waiting(self) -> None:
        """Say that a full disk is waited for."""
        self._say(files.waiting(self.folder, self.wait_seconds))

    def _in_use(self, otherwise: str) -> MachineError:
        held = ""
        with contextlib.suppress(KeyError, TypeError):  # Who holds it has not said so yet.
            who = self.read_json(HOLDER, needed=False)
            held = f"process {who['pid']} on {who['host']} since {who['since']}"
        return MachineError(
            Problem(
                "machine/run-in-use",
                "another process is working in this run folder",
                where=str(self.folder),
                found=held,
                fix=f"wait for it, or choose another folder, as in output=runs/NAME{otherwise}",
            )
        )

    def _place(self) -> tuple[int, int] | None:
        """What tells the folder from another of its name, which some library may have made."""
        try:
            found = self.folder.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _gone(self, found: str) -> MachineError:
        return MachineError(
            Problem(
                "machine/folder-gone",
                "the run folder is not there any more",
                where=str(self.folder),
                found=found,
                why="somebody removed, renamed or replaced it while the run wrote into it",
                fix="put it back where it was and `--resume`, or begin the run again",
            )
        )


def _end_of(journal: BinaryIO, step: int) -> int:
    """Where the last line ends that was written up to a step; looked for from the end, so nothing before is read."""
    end = journal.seek(0, os.SEEK_END)
    if not end:
        return 0
    with mmap.mmap(journal.fileno(), 0, access=mmap.ACCESS_READ) as text:
        end = text.rfind(b"\n") + 1
        while end:
            start = text.rfind(b"\n", 0, end - 1) + 1
            with contextlib.suppress(ValueError, KeyError, TypeError):
                line = json.loads(text[start:end])
                if line["step"] <= step and line.get("model") != "tuned":
                    return end
            end = start
    return 0


def summary(run: Run) -> dict[str, Any]:
    """What the steps of a run add up to, whatever processes made them."""
    counted = ("seconds", "skipped", "tokens", "supervised_tokens")
    sums, steps, peak = dict.fromkeys(counted, 0.0), 0, 0
    for line in run.read_lines("metrics.jsonl", whole=False):
        steps, peak = steps + 1, max(peak, line["peak_memory_bytes"])
        for name in counted:
            sums[name] += line[name]
    seconds = sums["seconds"]
    return {
        "steps": steps,
        "skipped_steps": int(sums["skipped"]),
        "tokens_per_second": sums["tokens"] / seconds if seconds else None,
        "supervised_tokens_per_second": sums["supervised_tokens"] / seconds if seconds else None,
        "training_seconds": seconds,
        "peak_memory_bytes": peak,
    }
