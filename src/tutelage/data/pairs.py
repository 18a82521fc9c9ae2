"""The pairs of a preference set: two answers to one prompt in a row, or the rankings in a tree of answers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from tutelage.data import formats, sources
from tutelage.data.formats.trees import ranked_pairs
from tutelage.data.stream import LOOKED_AT, Dropped, refused
from tutelage.errors import DataError, Problem
from tutelage.recipe import Source
from tutelage.types import Preference, Record


def pairs(source: Source) -> Iterator[tuple[Preference, ...] | Dropped | Problem]:
    """What became of each row of a source: its pairs, of which a tree has several.

    Raises:
        DataError: data/unknown-format, when the rows hold no pairs; a file cannot be read.
    """
    read = sources.read(source)
    first = list(islice(read, LOOKED_AT))
    tree = _are_trees(source, [item for item in first if isinstance(item, Record)])
    for item in chain(first, read):
        if isinstance(item, Problem):
            yield item
            continue
        try:
            yield tuple(ranked_pairs(item, source.weight)) if tree else (formats.parse_preference(item, source.weight),)
        except DataError as error:
            yield refused(error, item.origin)


def _are_trees(source: Source, records: list[Record]) -> bool:
    """Tell trees from rows of two answers.

    Raises:
        DataError: data/unknown-format, when the rows are neither.
    """
    if source.format in ("oasst", "preference"):
        return source.format == "oasst"
    if not records or any(record.fields.keys() >= {"chosen", "rejected"} for record in records):
        return False
    first = records[0]
    if source.format == "auto" and isinstance(first.fields.get("prompt"), dict) and "replies" in first.fields["prompt"]:
        return True
    raise DataError(
        Problem(
            "data/unknown-format",
            "the rows hold no pairs of answers",
            str(first.origin),
            found=", ".join(f"`{name}`" for name in first.fields) or "no columns",
            why="a pair has the columns `chosen` and `rejected`, or is made of a tree whose replies have ranks",
            fix="rename other columns, as in data.train.0.fields={chosen: better, rejected: worse}; answers that were "
            "judged one by one make no pairs: data.train.0.format=preference trains the good ones",
        )
    )
