"""From one file to rows: opened wherever it lies, unpacked, and read as what its name says it is.

The name alone decides: the last ending is the type, `.gz` or `.zst` after it the packing. Content that is plainly
something else (an archive, UTF-16, a Git LFS pointer) is named in the error. CSV and Parquet are streamed; a `.txt`
file is one row. Nothing is repaired: a row with too few fields or with bytes that are not UTF-8 is a `Problem`.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tutelage.data.jsonrows import BOM, SAVE_AS, Rows, bad_encoding, read_json, read_json_lines
from tutelage.errors import DataError, MachineError, Problem
from tutelage.types import Origin, Record

_MAGIC = {
    b"\x1f\x8b": "gzip data",
    b"\x28\xb5\x2f\xfd": "zstandard data",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a Parquet file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"version https://git-lfs": "a Git LFS pointer; `git lfs pull` fetches the file",
}
_ROWS_AT_ONCE = 1024


def read_file(path: str) -> Rows:
    """Yield the rows of one file or address; raises `DataError` when it is broken as a whole or holds no rows."""
    kind = ending(path)[0]
    empty = True
    try:
        with _open_content(path) as content:
            if kind != ".parquet":
                _refuse_disguise(content, path)
            for row in _READERS[kind](content, path):
                empty = False
                yield row
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, str(error)) from error
    if empty:
        raise no_rows(path)


def ending(path: str) -> tuple[str, str]:
    """Return what the name says, as (type, packing): (".jsonl", ".gz"); each "" when it says nothing known."""
    name = path.split("?")[0].lower() if "://" in path else path.lower()
    packed = next((end for end in (".gz", ".zst") if name.endswith(end)), "")
    kind = Path(name.removesuffix(packed)).suffix
    return (kind if kind in _READERS else ""), packed


@contextmanager
def open_stored(path: str) -> Iterator[BinaryIO]:
    """Open the bytes as they are stored, on this machine or elsewhere."""
    with _open_elsewhere(path) if "://" in path else _open_here(path) as raw:
        yield raw


def _open_here(path: str) -> BinaryIO:
    if not Path(path).is_file():  # a pipe would wait for ever, a device never end
        raise unreadable(path, "not a regular file")
    try:
        return open(path, "rb")
    except OSError as error:
        raise unreadable(path, str(error.strerror)) from error


def _open_elsewhere(address: str) -> BinaryIO:
    try:
        import fsspec  # type: ignore[import-untyped]

        file: BinaryIO = fsspec.open(address, "rb").open()
    except ImportError as error:
        raise missing_package(address, str(error)) from error
    except (OSError, ValueError) as error:
        found = "it is not a local path, and the address gave no file"
        raise unreachable(address, found, error, fix="correct the address") from error
    return file


@contextmanager
def _open_content(path: str) -> Iterator[io.BufferedReader]:
    """Open the content: stored bytes, unpacked."""
    with open_stored(path) as raw:
        unpacked: Any = raw
        packed = ending(path)[1]
        if packed == ".gz":
            unpacked = gzip.GzipFile(fileobj=raw)
        elif packed == ".zst":
            # Not the `zstandard` module: its reader takes a file that was cut off for a shorter one.
            from pyarrow import CompressedInputStream

            unpacked = CompressedInputStream(raw, "zstd")
        with io.BufferedReader(unpacked, 1 << 16) as content:
            yield content


def _refuse_disguise(content: io.BufferedReader, path: str) -> None:
    start = content.peek(32)
    for magic, meaning in _MAGIC.items():
        if start.startswith(magic):
            raise unreadable(path, f"the content is {meaning}")


def _read_text(content: BinaryIO, path: str) -> Rows:
    data = content.read()
    if data:
        origin = Origin(path, 1)
        try:
            yield Record(origin, {"text": data.removeprefix(BOM).decode()})
        except UnicodeDecodeError as error:
            yield bad_encoding(error, str(origin))


def _read_csv(content: BinaryIO, path: str) -> Rows:
    """Read CSV; bytes that are not UTF-8 come through as lone surrogates, so that they cost one row, not the file."""
    csv.field_size_limit(2**31 - 1)
    with io.TextIOWrapper(content, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        lines = _csv_lines(csv.reader(text, strict=True), path)
        _, columns = next(lines, (None, []))
        if isinstance(columns, Problem):
            raise DataError(columns)
        if len(set(columns)) < len(columns):
            raise unreadable(path, "the header names a column twice: " + ", ".join(columns))
        for origin, values in lines:
            yield values if isinstance(values, Problem) else _csv_row(origin, columns, values)


def _csv_row(origin: Origin, columns: list[str], values: list[str]) -> Record | Problem:
    if len(values) == len(columns):
        return Record(origin, dict(zip(columns, values, strict=True)))
    found = f"{len(values)} fields; the header has {len(columns)}"
    fix = "put quotes around a field that holds a comma or a line break"
    return Problem("data/bad-row", "the row has another number of fields", str(origin), found, fix=fix)


def _csv_lines(reader: Any, path: str) -> Iterator[tuple[Origin, list[str] | Problem]]:
    """Yield (where the row starts, its values), blank lines left out."""
    while True:
        origin = Origin(path, reader.line_num + 1)
        try:
            values = next(reader, None)
            for value in values or ():
                if not value.isascii():
                    value.encode()
        except csv.Error as error:
            yield origin, Problem("data/bad-row", "the row is not valid CSV", str(origin), str(error))
            continue
        except UnicodeEncodeError as error:
            byte, before = ord(error.object[error.start]) - 0xDC00, error.object[: error.start].encode()
            found = f"byte 0x{byte:02x} after {len(before)} bytes of the field"
            yield origin, Problem("data/bad-encoding", "the row is not UTF-8", str(origin), found, fix=SAVE_AS)
            continue
        if values is None:
            return
        if values:
            yield origin, values


def _read_parquet(content: io.BufferedReader, path: str) -> Rows:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    whole = io.BytesIO(content.read()) if ending(path)[1] else content  # Parquet is read from its end
    try:
        with ParquetFile(whole) as table:
            if why := _unsafe(list(table.schema_arrow), pa):
                raise unreadable(path, why)
            number = 0
            for batch in table.iter_batches(_ROWS_AT_ONCE):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(Origin(path, number), fields)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise unreadable(path, str(error)) from error


def _unsafe(fields: list[Any], pa: Any) -> str:
    """Say why columns cannot be taken as plain Python values; "" when they can."""
    names = [field.name for field in fields]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        return f"the column `{twice[0]}` occurs twice"
    for field in fields:
        if isinstance(field.type, pa.BaseExtensionType) or b"ARROW:extension:name" in (field.metadata or {}):
            return f"the column `{field.name}` has an extension type, which is never loaded"
        inner = [field.type.field(index) for index in range(field.type.num_fields)]
        if why := _unsafe(inner, pa):
            return why
    return ""


_READERS: dict[str, Callable[[io.BufferedReader, str], Rows]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_text,
}
ENDINGS = f"{' '.join(_READERS)}, each also with .gz or .zst"


def unreadable(path: str, found: str) -> DataError:
    """Make the error for a file that cannot be read as a whole."""
    return DataError(Problem("data/unreadable", f"`{path}` cannot be read", path, found))


def no_rows(path: str) -> DataError:
    """Make the error for a file without rows."""
    return DataError(Problem("data/empty-file", f"`{path}` holds no rows", path))


def unreachable(path: str, found: str, error: Exception, fix: str) -> DataError:
    """Make the error for an address or hub id that gave nothing."""
    fix = f"{fix}, or connect to the network"
    return DataError(Problem("data/missing-file", f"`{path}` was not found", path, f"{found} ({error})", fix=fix))


def missing_package(path: str, found: str) -> MachineError:
    """Make the error for an optional package that is not installed."""
    what = f"reading `{path}` needs an optional package"
    return MachineError(Problem("machine/missing-package", what, path, found, fix='pip install "tutelage[hub]"'))
