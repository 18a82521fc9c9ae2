"""From one file to rows: opened wherever it lies, unpacked, and read as what its name says it is.

JSON lines, arrays of JSON, CSV and Parquet are streamed; a `.txt` file is one row. Nothing is repaired: a row with
too few fields or with bytes that are not UTF-8 is a `Problem`.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import BinaryIO

from tutelage.data.sources import lines
from tutelage.data.sources.csvrows import read_csv
from tutelage.data.sources.jsonfile import read_json
from tutelage.data.sources.jsonrows import BOM, Rows, bad_encoding, read_json_lines, too_large
from tutelage.data.sources.parquetrows import read_parquet
from tutelage.data.sources.stored import ending, no_rows, open_content, unreadable
from tutelage.types import Origin, Record


def read_file(path: str) -> Rows:
    """Yield the rows of one file or address; raises `DataError` when it is broken as a whole or holds no rows."""
    kind = ending(path)[0]
    empty = True
    try:
        with open_content(path, whole=kind == ".parquet") as content:
            for row in _READERS[kind](content, path):
                empty = False
                yield row
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, str(error)) from error
    if empty:
        raise no_rows(path)


def _read_text(content: BinaryIO, path: str) -> Rows:
    data = content.read(lines.LONGEST + 1)
    origin = Origin(path, 1)
    if len(data) > lines.LONGEST:
        yield too_large(origin, "a .txt file is one row, and this one", "cut it into rows of {'text': ...}, as .jsonl")
    elif data:
        try:
            yield Record(origin, {"text": data.removeprefix(BOM).decode()})
        except UnicodeDecodeError as error:
            yield bad_encoding(error, str(origin))


_READERS: dict[str, Callable[[io.BufferedReader, str], Rows]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".txt": _read_text,
}
