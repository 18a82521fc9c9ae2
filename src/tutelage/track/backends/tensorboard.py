"""TensorBoard: one event file in the run folder, written record by record without torch and tensorflow."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from tutelage.track.identity import Identity
from tutelage.track.points import Point

FILE = "events.out.tfevents.0000000000.tutelage"
"""Always the same, so that a follower goes on in the file of the one before."""

_AROUND = 12, 4
"""Bytes before a record's data (its length and the length's check sum) and after it (the data's check sum)."""


class TensorBoard:
    """An event file."""

    durable = True
    remote = None

    def __init__(self, told: Identity) -> None:
        folder = told.folder / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        self._held: dict[str, int] = {}
        path = folder / FILE
        new = self._recover(path) == 0
        self._file = path.open("ab")
        self._records = RecordWriter(self._file)
        if new:
            self._write(Event(file_version="brain.Event:2"))
            self._write(_text("recipe", json.dumps(told.config, ensure_ascii=False, indent=2)))

    def held(self) -> Mapping[str, int]:
        """What stands in the file."""
        return self._held

    def send(self, points: Sequence[Point]) -> None:
        """One event for each point; on the disk when this returns."""
        for point in points:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
            self._write(Event(step=point.step, summary=Summary(value=values)))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self, status: str | None) -> None:
        """Say how the run ended, and close the file."""
        if status is not None:
            self._write(_text("status", status))
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())

    def _recover(self, path: Path) -> int:
        """Read what is in the file and cut off a record that is not whole; the bytes that stay."""
        if not path.exists():
            return 0
        whole = 0
        with path.open("r+b") as file:
            for data, whole in _records(file):  # noqa: B007  The last value is what is asked for.
                event = Event.FromString(data)
                for value in event.summary.value:
                    self._held[value.tag] = max(event.step, self._held.get(value.tag, -1))
            file.truncate(whole)
        return whole


def open_run(told: Identity, remote: str | None) -> TensorBoard:
    """The run's event file, new or found again."""
    return TensorBoard(told)


def _records(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The data of each whole record, and where it ends."""
    before, after = _AROUND
    while len(head := file.read(before)) == before:
        (length, check) = struct.unpack("<QI", head)
        if check != masked_crc32c(head[:8]):
            return
        data, tail = file.read(length), file.read(after)
        if len(tail) < after or struct.unpack("<I", tail)[0] != masked_crc32c(data):
            return
        yield data, file.tell()


def _text(tag: str, text: str) -> Any:
    """An event that TensorBoard's text page shows as code."""
    shown = "\n".join(f"    {line}" for line in text.splitlines())
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[shown.encode()], tensor_shape=shape)
    return Event(summary=Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)]))
