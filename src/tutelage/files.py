"""Files that are whole or not there, and what the file system says put into words."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tutelage.errors import MachineError, Problem, TutelageError
from tutelage.signals import SIGNALS

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when there is no room."""

RETRY_SECONDS = 0.2
"""Between two tries to write onto a full disk."""

T = TypeVar("T")


def is_full(error: BaseException) -> bool:
    """Whether a write failed for want of room; some libraries have the system's words and not its number."""
    said = ("No space left on device", "Disk quota exceeded", "File too large")
    return (isinstance(error, OSError) and error.errno in FULL) or any(words in str(error) for words in said)


def nearest(path: Path) -> Path:
    """The path, or the first folder above it that exists."""
    found = path.absolute()
    while not found.exists():
        found = found.parent
    return found


def free_bytes(path: Path) -> int:
    """On the disk that holds the path, or would."""
    return shutil.disk_usage(nearest(path)).free


def waiting(folder: Path, seconds: int) -> str:
    """What is said once when `patiently` begins to wait."""
    return f"note    the disk of {folder} is full; waiting up to {seconds} s for room (checkpoint.wait)"


def lines(values: Iterable[Any]) -> str:
    """Values as the lines of a .jsonl file."""
    return "".join(json.dumps(strict(value), ensure_ascii=False, allow_nan=False) + "\n" for value in values)


@contextmanager
def explained(
    path: Path,
    elsewhere: str = "choose another output folder",
    *,
    needed: int | None = None,
    only_inside: bool = False,
) -> Iterator[None]:
    """Turn what the file system says about a file to write into an error with a fix; `elsewhere` is the other way.

    `needed` are the bytes to write, where they are known. With `only_inside`, what it says about files that do not lie
    in the folder `path` is left as it is.

    Raises:
        MachineError: machine/disk-full, machine/read-only.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise MemoryError(str(error)) from error
        elsewhere_too = only_inside and not _is_inside(error, path)
        if is_full(error) and not isinstance(error, TutelageError):
            code, what, fix = "machine/disk-full", "the disk is full", f"free some space, or {elsewhere}"
        elif not isinstance(error, OSError) or elsewhere_too:
            raise
        else:
            code, what, fix = "machine/read-only", f"`{path}` cannot be written", elsewhere
        inside = isinstance(error, NotADirectoryError | FileExistsError)
        found = "a file stands where a folder is needed" if inside else str(getattr(error, "strerror", None) or error)
        if is_full(error):
            to_write = "" if needed is None else f"{_size(needed)} are needed, "
            found = f"{found}; {to_write}{_size(free_bytes(path))} are free"
        raise MachineError(Problem(code, what, where=str(path), found=found, fix=fix)) from error


def _is_inside(error: Exception, folder: Path) -> bool:
    named = getattr(error, "filename", None)
    return bool(named) and Path(str(named)).is_relative_to(folder)


def ends_whole(path: Path) -> bool:
    """Whether the last line of a file has its end; True of a file that is empty or not there."""
    if not path.is_file() or not path.stat().st_size:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _size(count: int) -> str:
    return f"{count:,} bytes" if count < 100_000 else f"{count / 1e6:,.2f} MB"


def patiently(write: Callable[[], T], seconds: float, wait: Callable[[], None] = lambda: None) -> T:
    """What `write` returns; on a full disk it is tried again for so long, and `wait` is called once before that.

    Raises:
        OSError: the last one, when the time is over or a signal asks to stop; any other at once.
    """
    began = time.monotonic()
    told = False
    while True:
        try:
            return write()
        except Exception as error:
            if not is_full(error) or time.monotonic() - began >= seconds or SIGNALS.requested is not None:
                raise
        if not told:
            wait()
            told = True
        time.sleep(min(RETRY_SECONDS, seconds))


def part_of(path: Path) -> Path:
    """Where a file or a folder lies while it is being written."""
    return path.with_name(f".{path.name}.part")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that survives a loss of power, whole or not at all."""
    temporary = part_of(path)
    try:
        temporary.unlink(missing_ok=True)  # Of a process that was killed, or a link that somebody put there.
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append(path: Path, data: bytes) -> None:
    """Add to a file; where that fails, the file is as before."""
    with open(path, "ab", buffering=0, opener=no_link) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
        except BaseException:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def no_link(path: str, flags: int) -> int:
    """Open a file for writing, but no link that stands in its place: what is written stays in its folder."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def sync(path: Path) -> None:
    """Have a file's content survive a loss of power."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a loss of power, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows does not open folders.
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_all(folder: Path, paths: Iterable[Path]) -> str:
    """Of the content and the names of files below a folder, in the order of their names."""
    whole = hashlib.sha256()
    for path in sorted(paths):
        whole.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes())
    return whole.hexdigest()


def as_json(value: Any) -> str:
    """A value as strict JSON on indented lines; numbers that are not finite become null."""
    return json.dumps(strict(value), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def strict(value: Any) -> Any:
    """The value with null for each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return value
