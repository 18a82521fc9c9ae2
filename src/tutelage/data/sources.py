"""From what the recipe names to rows: a file, a folder, an address or a hub data set.

A row that cannot be read never stops the reading and never vanishes: it is yielded as a `Problem`, so that whoever
counts rows counts it too. A file that cannot be read at all raises `DataError`. A local path comes first; only a
name like `organisation/name` that is no local path is asked of the hub, and only an address (`https://`, `s3://`,
`hf://` ...) is fetched.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tutelage.data.files import (
    ENDINGS,
    ending,
    missing_package,
    no_rows,
    open_stored,
    read_file,
    unreachable,
    unreadable,
)
from tutelage.data.jsonrows import Rows
from tutelage.errors import DataError, Problem, RecipeError
from tutelage.recipe import HeldoutFile, Source
from tutelage.types import Origin, Record

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def read(source: Source | HeldoutFile) -> Rows:
    """Yield the rows of a file, folder, address or hub data set in order, at most `source.limit` of them.

    Raises `DataError` at once when the path names nothing that can be read, and while reading when a file is broken
    as a whole or holds no rows; `MachineError` when an optional package is missing; `RecipeError` when a split is
    named for what has none.
    """
    if _is_hub_id(source.path):
        rows = _hub_rows(_load_from_hub(source), source)
    else:
        _refuse_split(source)
        rows = chain.from_iterable(map(read_file, _locate(source.path)))
    return islice(rows, source.limit)


def _refuse_split(source: Source | HeldoutFile) -> None:
    if source.split is not None:
        what = f"`split` is for hub data sets, and `{source.path}` is a file or folder"
        raise RecipeError(Problem("recipe/conflict", what, found=f"split = {source.split}", fix="remove `split`"))


def fingerprint(source: Source | HeldoutFile) -> dict[str, object]:
    """Return what identifies the content: path, bytes and SHA-256 as stored; files and rows for a hub data set."""
    if _is_hub_id(source.path):
        loaded = _load_from_hub(source)
        files = sorted(loaded.info.download_checksums or ())
        return {"path": source.path, "split": _split(source), "rows": loaded.num_rows, "files": files}
    files = _locate(source.path)
    if files == [source.path]:
        return _digest(source.path)
    parts = [_digest(file) for file in files]
    whole = "".join(f"{part['sha256']}  {Path(str(part['path'])).name}\n" for part in parts)
    size = sum(int(str(part["bytes"])) for part in parts)
    return {
        "path": source.path,
        "bytes": size,
        "sha256": hashlib.sha256(whole.encode()).hexdigest(),
        "files": parts,
    }


def _digest(path: str) -> dict[str, object]:
    with open_stored(path) as raw:
        digest, size = hashlib.sha256(), 0
        while block := raw.read(1 << 20):
            digest.update(block)
            size += len(block)
    return {"path": path, "bytes": size, "sha256": digest.hexdigest()}


def _is_hub_id(path: str) -> bool:
    return bool(_HUB_ID.fullmatch(path)) and not Path(path).exists() and not ending(path)[0]


def _locate(path: str) -> list[str]:
    """List the files a path stands for: itself, or the data files of a folder sorted by name."""
    place = Path(path)
    if "://" not in path and not place.exists():
        raise DataError(Problem("data/missing-file", f"`{path}` does not exist", **_neighbours(place)))
    if place.is_dir():
        return _list_folder(place)
    if not ending(path)[0]:
        known = f"the known endings are {ENDINGS}"
        raise DataError(Problem("data/unknown-type", f"`{path}` has an unknown ending", path, fix=known))
    return [path]


def _list_folder(folder: Path) -> list[str]:
    inside = sorted(folder.iterdir(), key=lambda entry: entry.name)
    files = [str(entry) for entry in inside if ending(entry.name)[0] and not entry.is_dir()]
    if not files:
        found = ", ".join(f"`{entry.name}`" for entry in inside[:10]) or "nothing"
        what = f"the folder `{folder}` holds no data file"
        known = f"name a folder or file with one of the endings {ENDINGS}"
        raise DataError(Problem("data/missing-file", what, str(folder), found=found, fix=known))
    return files


def _neighbours(place: Path) -> dict[str, str]:
    """Say what lies near a path that does not exist."""
    if not place.parent.is_dir():
        return {"found": f"there is no folder `{place.parent}`", "fix": "correct the path"}
    names = [entry.name for entry in place.parent.iterdir()]
    close = difflib.get_close_matches(place.name, names, n=3, cutoff=0.5)
    fix = "did you mean " + " or ".join(f"`{place.parent / name}`" for name in close) if close else "correct the path"
    return {"found": f"{len(names)} other names in `{place.parent}`", "fix": fix}


def _load_from_hub(source: Source | HeldoutFile) -> Any:
    """Load a data set by its id, as a `datasets.Dataset`."""
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        found = "no local file or folder has this name, and `datasets`, which reads the hub, is not installed"
        raise missing_package(source.path, found) from error
    try:
        return load_dataset(source.path, split=_split(source))
    except OSError as error:
        found = "no local file or folder has this name, and the hub gave no such data set"
        raise unreachable(source.path, found, error, fix=_neighbours(Path(source.path))["fix"]) from error
    except (ValueError, RuntimeError, DatasetsError) as error:
        raise unreadable(source.path, str(error)) from error


def _split(source: Source | HeldoutFile) -> str:
    return source.split or ("train" if isinstance(source, Source) else "test")


def _hub_rows(loaded: Any, source: Source | HeldoutFile) -> Rows:
    for number, fields in enumerate(loaded, start=1):
        yield Record(Origin(source.path, number), fields)
    if not loaded.num_rows:
        raise no_rows(source.path)
