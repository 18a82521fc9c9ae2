"""The bytes of a file wherever it lies, as they are stored and unpacked; what cannot be a data file is refused.

A name says what a file is: the last ending is the type, `.gz` or `.zst` after it the packing. Content that is plainly
something else (an archive, UTF-16, an error page) is named in the error.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from tutelage.data.sources.lines import BLOCK
from tutelage.data.sources.remote import open_address
from tutelage.errors import DataError, MachineError, Problem

TYPES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".txt")
ENDINGS = f"{' '.join(TYPES)}, each also with .gz or .zst"
_PACKED = {".gz": "gzip", ".zst": "zstd"}
_BOMB_BYTES = 1 << 30
_BOMB_RATIO = 200

_SIGNS = {
    b"\x1f\x8b": "gzip data",
    b"\x28\xb5\x2f\xfd": "zstandard data",
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
    b"version https://git-lfs": "a Git LFS pointer; `git lfs pull` fetches the file",
}
_OWN_SIGNS = {".parquet": b"PAR1", ".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
_PAGES = (b"<!doctype", b"<html", b"<?xml")
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def ending(path: str) -> tuple[str, str]:
    """Return what the name says, as (type, packing): (".jsonl", ".gz"); each "" when it says nothing known."""
    name = path.split("?")[0].split("#")[0].lower() if "://" in path else path.lower()
    packed = next((end for end in _PACKED if name.endswith(end)), "")
    kind = Path(name.removesuffix(packed)).suffix
    return (kind if kind in TYPES else ""), packed


def regular(path: str) -> os.stat_result:
    """Return what is known of a file on this machine.

    Raises `DataError` when it is no regular file: a pipe would make us wait for ever, a device never end.
    `MachineError` when it may not be looked at.
    """
    try:
        known = os.stat(path)
    except PermissionError as error:
        raise no_access(path, error) from error
    except OSError as error:
        found = "a link that leads nowhere" if error.errno == errno.ENOENT else str(error.strerror)
        raise unreadable(path, found) from error
    if not stat.S_ISREG(known.st_mode):
        found = _KINDS.get(stat.S_IFMT(known.st_mode), "something else")
        raise unreadable(path, f"{found}, not a regular file")
    return known


@contextmanager
def open_stored(path: str) -> Iterator[BinaryIO]:
    """Open the bytes as they are stored, on this machine or elsewhere."""
    with open_address(path) if "://" in path else _open_here(path) as raw:
        yield raw


def _open_here(path: str) -> BinaryIO:
    regular(path)
    try:
        return open(path, "rb")
    except PermissionError as error:
        raise no_access(path, error) from error
    except OSError as error:
        raise unreadable(path, str(error.strerror)) from error


@contextmanager
def open_content(path: str, *, whole: bool = False) -> Iterator[io.BufferedReader]:
    """Open the content: stored bytes, unpacked; with `whole` as a file in which one can go back and forth.

    Raises `DataError` when the content is not what the name says.
    """
    kind, packed = ending(path)
    with open_stored(path) as stored:
        raw: io.BufferedReader = io.BufferedReader(cast(Any, stored), BLOCK)
        _refuse_disguise(raw, path, packed or kind)
        content = raw
        if packed:
            content = io.BufferedReader(cast(Any, _Unpacked(raw, _PACKED[packed])), BLOCK)
            _refuse_disguise(content, path, kind)
        if whole and not (content is raw and raw.seekable()):
            with _spool(content, path) as file:
                yield file
        else:
            yield content


def _refuse_disguise(content: io.BufferedReader, path: str, kind: str) -> None:
    """Refuse content that begins like something else than `kind`, a type or a packing."""
    start = content.peek(64)[:64]
    own = _OWN_SIGNS.get(kind)
    for sign, meaning in _SIGNS.items():
        if sign != own and start.startswith(sign):
            raise unreadable(path, f"the content is {meaning}")
    if kind != ".txt" and start.lstrip().lower().startswith(_PAGES):
        raise unreadable(path, "the content is a web page, such as a server's error message")
    if own is None and b"\0" in start[:2]:
        raise unreadable(path, "the content is not text, or it is UTF-16 text; save it as UTF-8")


class _Unpacked(io.RawIOBase):
    """The content of packed bytes; one that grows beyond all measure is refused, not read for ever."""

    def __init__(self, stored: io.BufferedReader, packing: str) -> None:
        # Not the modules gzip and zstandard: the one is slower, the other takes a file that was cut off for a whole.
        from pyarrow import CompressedInputStream

        self._stored, self._stream, self._size = stored, CompressedInputStream(stored, packing), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self._stream.readinto(buffer))
        self._size += count
        if self._size > _BOMB_BYTES and self._size > _BOMB_RATIO * self._stored.tell():
            limit = f"more than {_BOMB_BYTES >> 30} GiB and more than {_BOMB_RATIO} times its stored bytes"
            raise OSError(f"it unpacks to {limit}, which no real text does")
        return count


@contextmanager
def _spool(content: BinaryIO, path: str) -> Iterator[io.BufferedReader]:
    """Write the content to a temporary file: what is read from its end must lie on a disk."""
    with tempfile.TemporaryFile() as file:
        try:
            shutil.copyfileobj(content, file, BLOCK)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            what = f"unpacking `{path}` filled the disk of {tempfile.gettempdir()}"
            fix = "unpack it yourself, or set TMPDIR to a folder with more room"
            raise MachineError(Problem("machine/disk-full", what, path, fix=fix)) from error
        file.seek(0)
        yield cast(io.BufferedReader, file)


def unreadable(path: str, found: str) -> DataError:
    """Make the error for a file that cannot be read as a whole."""
    return DataError(Problem("data/unreadable", f"`{path}` cannot be read", path, found))


def no_rows(path: str) -> DataError:
    """Make the error for a file without rows."""
    return DataError(Problem("data/empty-file", f"`{path}` holds no rows", path))


def no_access(path: str, error: OSError) -> MachineError:
    """Make the error for a file or folder that this user may not read."""
    found = f"{error.strerror}, as user {os.geteuid()}" if hasattr(os, "geteuid") else str(error.strerror)
    what = f"`{path}` may not be read"
    return MachineError(Problem("machine/no-access", what, path, found, fix="change its permissions, or copy it"))
