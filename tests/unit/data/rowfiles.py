"""Files of rows for the tests of reading, and what reading them gives."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tutelage.data.sources import read
from tutelage.errors import Problem, TutelageError
from tutelage.recipe import Source
from tutelage.types import Record


def lines(rows: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def zst(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


def parquet(rows: Sequence[dict[str, Any]], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink, **options)
    return sink.getvalue()


def table(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0].keys(), quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


CONTENT = {
    ".jsonl": lines,
    ".json": lambda rows: json.dumps(rows, ensure_ascii=False, indent=1).encode(),
    ".csv": table,
    ".parquet": parquet,
}
PACKING = {"": bytes, ".gz": gzip.compress, ".zst": zst}


def write(path: Path, rows: Sequence[Any]) -> Path:
    """Write rows as what the file's name says."""
    packing = path.suffix if path.suffix in (".gz", ".zst") else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PACKING[packing](CONTENT[Path(path.name.removesuffix(packing)).suffix](rows)))
    return path


def items(path: object, **options: Any) -> list[Record | Problem]:
    named = tuple(map(str, path)) if isinstance(path, list) else str(path)
    return list(read(Source(path=named, **options)))


def values(path: object, **options: Any) -> list[dict[str, Any]]:
    """The rows, none of which may be a problem."""
    found = items(path, **options)
    assert all(isinstance(item, Record) for item in found), found
    return [dict(item.fields) for item in found if isinstance(item, Record)]


def problems(path: object, **options: Any) -> list[Problem]:
    return [item for item in items(path, **options) if isinstance(item, Problem)]


def refusal(path: object, **options: Any) -> Problem:
    """The problem for which the whole source is refused."""
    with pytest.raises(TutelageError) as caught:
        items(path, **options)
    return caught.value.problems[0]
