"""From what the recipe names to rows: files, folders, patterns, addresses, hub data sets, and mixtures of them.

    path ── located ──> files ── files, hub ──> rows ── joined ──> selected (where) ──> limit ──> columns (fields)

A row that cannot be read never stops the reading and never vanishes: it is yielded as a `Problem`, so that whoever
counts rows counts it too. A file that cannot be read at all raises `DataError`. A local path comes first; only a
name like `organisation/name` that is no local path is asked of the hub, and only an address (`https://`, `s3://`,
`hf://` ...) is fetched. Nothing is read before it is asked for, nor further than needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from tutelage.data.sources import hub
from tutelage.data.sources.columns import rename
from tutelage.data.sources.files import read_file
from tutelage.data.sources.joined import Joined, files_of
from tutelage.data.sources.located import Place, locate
from tutelage.data.sources.selected import Selected, all_text
from tutelage.data.sources.stored import ending, open_stored
from tutelage.errors import Problem, RecipeError
from tutelage.recipe import Rows
from tutelage.types import Record

_BLOCK = 1 << 20


class Reading(Iterator[Record | Problem]):
    """The rows of a source, one after another, and what `where` left out of them so far."""

    def __init__(self, rows: Iterator[Record | Problem], selected: Selected | None) -> None:
        self._rows = rows
        self.selected = selected
        """Counts of `where`, complete when the rows are; None when the recipe has none."""

    def __iter__(self) -> Iterator[Record | Problem]:
        return self._rows

    def __next__(self) -> Record | Problem:
        return next(self._rows)


def read(rows: Rows) -> Reading:
    """Yield the rows of a source in order, at most `rows.limit` of them, bad ones among them.

    Raises `DataError` at once when a path names nothing that can be read, and while reading when a file is broken
    as a whole or holds no rows, or when `where`, `fields` or `join` name what no row has; `MachineError` when an
    optional package or a permission is missing; `RecipeError` when options contradict each other.
    """
    places = _places(rows)
    joined = Joined(rows.join) if rows.join else None
    selected = Selected(rows.where) if rows.where else None
    sets = {place.path: hub.load(place.path, rows) for place in places if place.on_hub}
    parts = [sets[place.path].rows() if place.on_hub else read_file(place.path) for place in places]
    texts = [not place.on_hub and ending(place.path)[0] == ".csv" for place in places]
    if joined:
        parts = [joined.join(part, text=text) for part, text in zip(parts, texts, strict=True)]
    if selected:
        columns, is_text = (joined.columns, joined.is_text) if joined else (set[str](), False)
        parts = [
            selected.select(part, all_text(columns, text, is_text)) for part, text in zip(parts, texts, strict=True)
        ]
    stream: Iterator[Record | Problem] = chain.from_iterable(parts)
    if selected:
        stream = _checked(stream, selected, ", ".join(dict.fromkeys(place.named for place in places)))
    stream = islice(stream, rows.limit)
    return Reading(rename(stream, rows.fields) if rows.fields else stream, selected)


def _checked(stream: Iterator[Record | Problem], selected: Selected, named: str) -> Iterator[Record | Problem]:
    yield from stream
    selected.check(named)


def _places(rows: Rows) -> list[Place]:
    """List the files and hub data sets of a source; refuse options that none of them would heed."""
    places = locate(rows.path)
    if not any(place.on_hub for place in places):
        options = {"split": rows.split, "subset": rows.subset, "streaming": rows.streaming or None}
        for name, value in options.items():
            if value is not None:
                what = f"`{name}` is for hub data sets, and `{places[0].named}` is a file or folder"
                raise RecipeError(Problem("recipe/conflict", what, found=f"{name} = {value}", fix=f"remove `{name}`"))
    return places


def fingerprint(rows: Rows) -> dict[str, object]:
    """Return what identifies the content: path, bytes and SHA-256 as stored, of each file if there are several.

    The joined file is under `join`; a hub data set has its split and rows, or its commit when it is streamed. When a
    file was written has no part in it.
    """
    places = _places(rows)
    parts = [hub.load(place.path, rows).fingerprint() if place.on_hub else _digest(place.path) for place in places]
    content = parts[0] if parts[0]["path"] == rows.path else _together(rows.path, parts)
    if rows.join:
        join = [_digest(file) for file in files_of(rows.join)]
        content = {**content, "join": join[0] if len(join) == 1 else _together(rows.join.path, join)}
    return content


def _together(path: str | tuple[str, ...], parts: list[dict[str, object]]) -> dict[str, object]:
    lines = (f"{part.get('sha256') or part['revision']}  {Path(str(part['path'])).name}\n" for part in parts)
    return {
        "path": path if isinstance(path, str) else list(path),
        "bytes": sum(int(str(part.get("bytes", 0))) for part in parts),
        "sha256": hashlib.sha256("".join(lines).encode()).hexdigest(),
        "files": parts,
    }


def _digest(path: str) -> dict[str, object]:
    with open_stored(path) as raw:
        digest, size = hashlib.sha256(), 0
        while block := raw.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return {"path": path, "bytes": size, "sha256": digest.hexdigest()}
