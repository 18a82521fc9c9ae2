"""Data sets of the hub, through `datasets`: stored on this machine and read from there, or streamed.

No code of a data set is run, and nobody is told what was loaded: `datasets` would count each load on a server.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.data.sources.jsonrows import Rows
from tutelage.data.sources.located import neighbours
from tutelage.data.sources.remote import missing_package, unreachable
from tutelage.data.sources.stored import no_rows, unreadable
from tutelage.errors import Problem, RecipeError
from tutelage.recipe import HeldoutFile
from tutelage.recipe import Rows as RowOptions
from tutelage.types import Origin, Record

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class HubSet:
    """One split of a data set."""

    id: str
    split: str
    subset: str | None
    limit: int | None
    streamed: bool
    loaded: Any
    """The `Dataset`, or the `IterableDataset` when it is streamed."""
    revision: str | None
    """The commit on the hub; None for what is stored already."""

    def rows(self) -> Rows:
        """Yield the rows in order; raises `DataError` when the stream breaks off or there are none."""
        number = 0
        try:
            for number, fields in enumerate(self._values(), start=1):
                yield Record(Origin(self.id, number), fields)
        except Exception as error:  # every transport has errors of its own
            raise unreadable(self.id, f"after {number:,} rows: {error}") from error
        if not number:
            raise no_rows(self.id)

    def _values(self) -> Iterator[dict[str, Any]]:
        if self.streamed:
            yield from self.loaded
            return
        # As Arrow tables: faster than row by row, and no picture or sound is decoded.
        for table in self.loaded.with_format("arrow").iter(_ROWS_AT_ONCE):
            yield from table.to_pylist()

    def fingerprint(self) -> dict[str, object]:
        """Return what identifies the content: the hash of what is stored, or the commit of what is streamed."""
        known = {"path": self.id, "subset": self.subset, "split": self.split}
        if self.streamed:
            return {**known, "revision": self.revision, "limit": self.limit}
        size, digest = 0, hashlib.sha256()
        for stored in self.loaded.cache_files:
            with open(stored["filename"], "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
                size += file.tell()
        return {**known, "rows": self.loaded.num_rows, "bytes": size, "sha256": digest.hexdigest()}


def load(id: str, rows: RowOptions) -> HubSet:
    """Load a data set by its id.

    Raises `DataError` when there is no such data set or split, `MachineError` when `datasets` is not installed, and
    `RecipeError` when a stream has no limit.
    """
    if rows.streaming and rows.limit is None:
        what = f"`streaming` of `{id}` needs `limit`"
        why = "a stream has no known length, and a plan needs one"
        raise RecipeError(Problem("recipe/conflict", what, why=why, fix="say how many rows, as in limit: 100000"))
    split = rows.split or ("test" if isinstance(rows, HeldoutFile) else "train")
    try:
        datasets = _quiet_datasets()
    except ImportError as error:
        found = "no local file or folder has this name, and `datasets`, which reads the hub, is not installed"
        raise missing_package(id, found, '"tutelage[hub]"') from error
    revision = None
    try:
        if rows.streaming:
            builder = datasets.load_dataset_builder(id, name=rows.subset)
            loaded, revision = builder.as_streaming_dataset(split=split), builder.hash
        else:
            loaded = datasets.load_dataset(id, name=rows.subset, split=split)
    except OSError as error:
        found = "no local file or folder has this name, and the hub gave no such data set"
        raise unreachable(id, found, error, fix=neighbours(Path(id))["fix"]) from error
    except (ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise unreadable(id, str(error)) from error
    return HubSet(id, split, rows.subset, rows.limit, rows.streaming, loaded, revision)


def _quiet_datasets() -> Any:
    """Import `datasets` with telemetry and the counting of downloads switched off."""
    for name, value in {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}.items():
        os.environ.setdefault(name, value)
    import datasets
    import datasets.exceptions
    from huggingface_hub import constants

    # Both read the variables when they are imported, which somebody may have done before.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    return datasets
