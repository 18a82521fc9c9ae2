"""Parquet files that cannot be taken, or only look so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from makers import MEGABYTE, maker


def _parquet(folder: Path, columns: dict[str, Any], **options: Any) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    path = folder / "rows.parquet"
    parquet.write_table(pa.table(columns), path, **options)
    return path


GOOD = {"instruction": ["Ask 1", "Ask 2", "Ask 3"], "output": ["Yes 1.", "Yes 2.", "Yes 3."]}


@maker
def parquet_without_rows(folder: Path) -> None:
    import pyarrow as pa

    _parquet(folder, {name: pa.array([], pa.string()) for name in GOOD})


@maker
def parquet_cut_off(folder: Path) -> None:
    path = _parquet(folder, GOOD)
    path.write_bytes(path.read_bytes()[:-30])


@maker
def parquet_with_a_hole(folder: Path) -> None:
    path = _parquet(folder, GOOD, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:60] = bytes(56)
    path.write_bytes(bytes(data))


@maker
def parquet_with_wrong_magic(folder: Path) -> None:
    path = _parquet(folder, GOOD)
    path.write_bytes(b"PARX" + path.read_bytes()[4:-4] + b"PARX")


@maker
def parquet_encrypted(folder: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet
    from pyarrow.parquet import encryption

    class Keys(encryption.KmsClient):  # type: ignore[misc]
        def __init__(self, config: object) -> None:
            super().__init__()

        def wrap_key(self, key: bytes, name: str) -> bytes:
            return key

    factory = encryption.CryptoFactory(Keys)
    config = encryption.EncryptionConfiguration(footer_key="one", column_keys={"one": list(GOOD)})
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), config)
    table = pa.table(GOOD)
    with parquet.ParquetWriter(folder / "rows.parquet", table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)


@maker
def parquet_extension_type(folder: Path) -> None:
    import pyarrow as pa

    class Own(pa.ExtensionType):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(pa.string(), "tutelage.tests.own")

        def __arrow_ext_serialize__(self) -> bytes:
            return b"__reduce__"

        @classmethod
        def __arrow_ext_deserialize__(cls, storage: object, serialized: bytes) -> Own:
            return cls()

    output = pa.ExtensionArray.from_storage(Own(), pa.array(GOOD["output"]))
    _parquet(folder, {"instruction": GOOD["instruction"], "output": output})


@maker
def parquet_nested_10_deep(folder: Path) -> None:
    import pyarrow as pa

    value: Any = 1
    kind = pa.int64()
    for _ in range(10):
        value, kind = [value], pa.list_(kind)
    _parquet(folder, {**GOOD, "nested": pa.array([value] * 3, kind)})


@maker
def parquet_nested_answer(folder: Path) -> None:
    _parquet(folder, {**GOOD, "output": [[["Yes 1."]]] * 3})


@maker
def parquet_kinds_of_text(folder: Path) -> None:
    import pyarrow as pa

    instruction = pa.array(GOOD["instruction"], pa.large_string())
    _parquet(folder, {"instruction": instruction, "output": pa.array(GOOD["output"]).dictionary_encode()})


@maker
def parquet_binary(folder: Path) -> None:
    import pyarrow as pa

    _parquet(folder, {**GOOD, "output": pa.array([text.encode() for text in GOOD["output"]], pa.binary())})


@maker
def parquet_not_utf8(folder: Path) -> None:
    import pyarrow as pa

    bad = pa.array([b"Yes 1.", b"Y\xe9s 2.", b"Yes 3."], pa.binary()).view(pa.string())
    _parquet(folder, {**GOOD, "output": bad})


@maker
def parquet_null_weight(folder: Path) -> None:
    _parquet(folder, {**GOOD, "weight": [None, float("nan"), 2.0]})


@maker
def parquet_columns_twice(folder: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    column = pa.array(["a"])
    table = pa.Table.from_arrays([column, column, column], ["instruction", "output", "output"])
    parquet.write_table(table, folder / "rows.parquet")


@maker
def parquet_huge_value(folder: Path) -> None:
    """40 MiB in one value, in a file of a few kilobytes."""
    _parquet(folder, {**GOOD, "output": ["Yes 1.", "a" * (40 * MEGABYTE), "Yes 3."]}, compression="zstd")
