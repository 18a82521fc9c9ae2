"""From Parquet to rows, as a stream; extension types are never loaded."""

from __future__ import annotations

from typing import Any, BinaryIO

from tutelage.data.sources.jsonrows import Rows
from tutelage.errors import DataError, Problem
from tutelage.types import Origin, Record

_ROWS_AT_ONCE = 1024
_BYTES_AT_ONCE = 1 << 26


def read_parquet(content: BinaryIO, path: str) -> Rows:
    """Yield the rows of a file that can be read from its end; raises `DataError` when it is broken or not plain."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(content) as table:
            if why := _unsafe(list(table.schema_arrow), pa):
                raise _unreadable(path, why)
            for batch in table.iter_batches(_batch_size(table.metadata)):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(Origin(path, number), fields)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        found = f"byte 0x{byte:02x} at offset {error.start} of a text after row {number:,}"
        raise DataError(Problem("data/bad-encoding", "a text is not UTF-8", path, found)) from error
    except pa.ArrowException as error:
        raise _unreadable(path, str(error).strip()) from error


def _batch_size(metadata: Any) -> int:
    """Return how many rows to unpack at once: fewer where rows are long, so that memory stays bounded."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    longest = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=1)
    return max(1, min(_ROWS_AT_ONCE, int(_BYTES_AT_ONCE / max(longest, 1))))


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


def _unreadable(path: str, found: str) -> DataError:
    return DataError(Problem("data/unreadable", f"`{path}` cannot be read", path, found))
