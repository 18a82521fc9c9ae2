"""Every change that this process makes to the files below a folder, seen before and after it happens.

Seen are mkdir, open for writing, write, fsync, rename and replace, unlink, rmdir, and the writer of safetensors, which
writes outside of Python and counts as one operation. As hooks of a child: `record` lists them, `die` ends the process.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

THREAD = "checkpoint"
"""The name of the thread in which checkpoints are committed."""


@dataclass(frozen=True)
class Operation:
    """A change to a file or a folder."""

    kind: str
    path: str
    other: str = ""
    """The new name."""
    data: bytes = b""

    def named(self, root: Path) -> str:
        """In words, without the folder and the random part of names."""
        short = [os.path.relpath(path, root) for path in (self.path, self.other) if path]
        return f"{self.kind} {' to '.join(short)}"


Seen = Callable[[Operation], None]


class Watched:
    """A file opened for writing."""

    def __init__(self, file: Any, path: str, before: Seen, after: Seen) -> None:
        self._file, self._path, self._before, self._after = file, path, before, after

    def write(self, data: Any) -> Any:
        raw = data.encode() if isinstance(data, str) else bytes(data)
        operation = Operation("write", self._path, data=raw)
        self._before(operation)
        written = self._file.write(data)
        self._after(operation)
        return written

    def __enter__(self) -> Watched:
        self._file.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        return self._file.__exit__(*error)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def watching(root: Path, before: Seen, after: Seen = lambda operation: None) -> Iterator[None]:
    """Inside, both are told of every change below the folder."""
    import safetensors.torch

    top = os.path.abspath(root)
    kept: list[tuple[Any, str, Any]] = []

    def inside(path: Any) -> str | None:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        path = os.path.abspath(os.fspath(path))
        return path if isinstance(path, str) and (path == top or path.startswith(top + os.sep)) else None

    def replace(module: Any, name: str, new: Callable[[Any], Any]) -> None:
        old = getattr(module, name)
        kept.append((module, name, old))
        setattr(module, name, new(old))

    def simple(kind: str) -> Callable[[Any], Any]:
        def wrap(old: Any) -> Any:
            def call(path: Any, *rest: Any, **options: Any) -> Any:
                where = options.get("dir_fd")
                whole = path if where is None else os.path.join(os.readlink(f"/proc/self/fd/{where}"), path)
                if (name := inside(whole)) is None:
                    return old(path, *rest, **options)
                folder = kind == "fsync" and os.path.isdir(name)
                other = os.path.abspath(os.fspath(rest[0])) if kind == "rename" else ""
                operation = Operation("fsync folder" if folder else kind, name, other)
                before(operation)
                value = old(path, *rest, **options)
                after(operation)
                return value

            return call

        return wrap

    def opening(old: Any) -> Any:
        def call(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            if isinstance(path, int) or not set(mode) & set("wxa+") or (name := inside(path)) is None:
                return old(path, mode, *rest, **options)
            operation = Operation("open", name, data=b"" if "a" in mode else b"new")
            before(operation)
            file = old(path, mode, *rest, **options)
            after(operation)
            return Watched(file, name, before, after)

        return call

    def serializing(old: Any) -> Any:
        def call(tensors: Any, path: Any, *rest: Any, **options: Any) -> Any:
            if (name := inside(path)) is None:
                return old(tensors, path, *rest, **options)
            operation = Operation("save", name)
            before(operation)
            value = old(tensors, path, *rest, **options)
            after(Operation("save", name, data=Path(name).read_bytes()))
            return value

        return call

    for kind, names in {"rename": ("rename", "replace"), "unlink": ("unlink", "remove")}.items():
        for name in names:
            replace(os, name, simple(kind))
    for name in ("mkdir", "rmdir", "fsync"):
        replace(os, name, simple(name))
    replace(io, "open", opening)
    kept.append((builtins, "open", builtins.open))
    builtins.open = io.open
    replace(safetensors.torch, "serialize_file", serializing)
    try:
        yield
    finally:
        for module, name, old in reversed(kept):
            setattr(module, name, old)


def record(root: str, out: str, since: str = "", thread: bool = False) -> None:
    """From now on write a line into `out` for each operation below `root`, from the first whose text has `since`."""
    handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(number: int, operation: Operation) -> None:
        os.write(handle, json.dumps([number, operation.kind, operation.named(Path(root))]).encode() + b"\n")

    _from_now_on(root, _Counting(since, thread, tell, root))


def die(root: str, at: int, since: str = "", thread: bool = False, half: bool = False) -> None:
    """End the process before the operation with this number; with `half`, in the middle of it. The exit code is 9."""

    def tell(number: int, operation: Operation) -> None:
        if number == at:
            if half:
                _half_done(operation)
            os._exit(9)

    _from_now_on(root, _Counting(since, thread, tell, root))


class _Counting:
    """Numbers the operations from the first that has `since` in its words; with `thread`, those of saving alone."""

    def __init__(self, since: str, thread: bool, tell: Callable[[int, Operation], None], root: str) -> None:
        self.since, self.thread, self.tell, self.root = since, thread, tell, Path(root)
        self.number, self.counting = 0, not since
        self.lock = threading.Lock()

    def __call__(self, operation: Operation) -> None:
        saves = threading.current_thread().name == THREAD or "/checkpoints" in operation.path
        with self.lock:
            self.counting = self.counting or self.since in operation.named(self.root)
            if self.counting and (saves or not self.thread):
                self.number += 1
                self.tell(self.number, operation)


_KEPT: list[Any] = []  # A context that nobody holds is left at once.


def _from_now_on(root: str, before: Seen) -> None:
    _KEPT.append(watching(Path(root), before))
    _KEPT[-1].__enter__()


def _half_done(operation: Operation) -> None:
    """Leave what a process leaves that ends in the middle of an operation, where it has a middle."""
    if operation.kind == "write":
        handle = os.open(operation.path, os.O_WRONLY | os.O_APPEND)
        os.write(handle, operation.data[: len(operation.data) // 2])
    elif operation.kind == "save":
        handle = os.open(operation.path, os.O_WRONLY | os.O_CREAT)
        os.write(handle, (1 << 16).to_bytes(8, "little") + b'{"part":')
