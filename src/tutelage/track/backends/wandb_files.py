"""What W&B wrote while it was offline: the steps in its `.wandb` files, which hold records in LevelDB's log format."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEAD, FILE_HEAD = 32768, 7, 7
"""Bytes of a block, before each piece of a record, and at the beginning of the file."""

FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[bytes]:
    """The whole records of a file; one that is torn ends it."""
    data = path.read_bytes()
    place, held = FILE_HEAD, b""
    while place + HEAD <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEAD:  # Too little for a piece: the rest of the block is empty.
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        piece = data[place + HEAD : place + HEAD + length]
        if len(piece) < length or kind not in (FULL, FIRST, MIDDLE, LAST):
            return
        place += HEAD + length
        held = piece if kind in (FULL, FIRST) else held + piece
        if kind in (FULL, LAST):
            yield held


def history(path: Path) -> Iterator[dict[str, Any]]:
    """Each logged row of a file."""
    import json

    from wandb.proto.wandb_internal_pb2 import Record

    for data in records(path):
        record = Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            yield {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}


def held_offline(folder: Path, id: str) -> dict[str, int]:
    """The last step of each stream in all offline files of a run."""
    held: dict[str, int] = {}
    for path in sorted(folder.glob(f"offline-run-*/run-{id}.wandb")):
        for row in history(path):
            for key, value in row.items():
                stream, _, name = key.rpartition("/")
                if name == "step":
                    held[stream] = max(int(value), held.get(stream, -1))
    return held
