"""What rows are like: the verbs that write nothing but a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from tutelage import commands
from tutelage.curate.given import What, given
from tutelage.curate.outputs import Outputs
from tutelage.data.mixture import name_of
from tutelage.data.show import PreviewRow
from tutelage.data.statistics.lengths import token_statistics
from tutelage.data.stream import Dropped, Parsed, Stream
from tutelage.data.survey import Survey
from tutelage.data.written import as_line
from tutelage.errors import Problem
from tutelage.prepared import Prepared
from tutelage.recipe import DataOptions
from tutelage.runs import Run
from tutelage.screen import SILENT, Screen

SAMPLES = 20
"""At most this many examples are shown token by token."""


def survey(options: DataOptions, screen: Screen = SILENT, *, as_chat: bool = True) -> Survey:
    """The rows, counted and selected as a run would.

    Raises:
        DataError: as a run would raise it.
    """
    with screen.stage("reading the data", None) as advance:
        return Survey(options, lambda stage, rows: advance(rows, note=stage), as_chat=as_chat)


def stats(
    what: What, overrides: Sequence[str] = (), screen: Screen = SILENT, *, page: str | Path | None = None
) -> dict[str, Any]:
    """What the rows are like; with tokens, the mixture and coloured samples where a model is named.

    `page` is where the same is written as HTML that needs nothing else.

    Raises:
        TutelageError: as a run would; usage/output-exists.
    """
    file = None if page is None else Outputs(page, ending=".html").file
    chosen = given(what, overrides, sections=("data", "model"))
    options = chosen.data
    looked = survey(options, screen)
    names = [*map(name_of, options.train), "held out"]
    facts: dict[str, Any] = {
        "name": chosen.file or ", ".join(names[:-1]),
        "ledger": looked.ledger.as_json(),
        "sources": [{"name": names[index], **looked.stream.describe(index)} for index in looked.stream.counts],
        "statistics": looked.statistics.as_json(),
    }
    if chosen.has_model:
        prepared, _ = commands.preview(chosen.resolved, (), screen)
        store, slots = prepared.dataset.store, prepared.training.at(0)
        facts |= {
            "ledger": prepared.dataset.ledger.as_json(),
            "sources": prepared.dataset.sources,
            "mixture": prepared.describe_mixture(),
            "samples": _samples(prepared),
            "tokens": token_statistics(
                store.lengths[slots],
                store.supervised[slots],
                prepared.training.source,
                names[:-1],
                max_length=options.max_length,
            ),
        }
    if file is not None:
        _write_page(facts, file)
    return facts


def _samples(prepared: Prepared) -> list[dict[str, Any]]:
    """A few training examples of each source in turn, from its first to its last."""
    store, slots, source = prepared.dataset.store, prepared.training.at(0), prepared.training.source
    present = np.unique(source)
    each = max(1, SAMPLES // max(1, len(present)))
    chosen = [np.flatnonzero(source == one) for one in present]
    spread = [np.unique(np.linspace(0, len(mine) - 1, each).astype(int)).tolist() for mine in chosen]
    turns = zip_longest(*([mine[i] for i in places] for mine, places in zip(chosen, spread, strict=True)))
    examples = [store.example(int(slots[slot])) for turn in turns for slot in turn if slot is not None][:SAMPLES]
    pieces = prepared.encoder.tokenizer.pieces
    return [PreviewRow(example, "train", pieces(example.input_ids.tolist())).coloured() for example in examples]


def _write_page(facts: Any, file: Path) -> None:
    from tutelage.report.data_page import data_page

    html = data_page(facts)
    folder = Run(file.parent)
    folder.create()
    folder.write_text(file.name, html)


def show(what: What, overrides: Sequence[str] = (), *, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """The rows as Tutelage reads them, one object each; a row that leaves says why.

    Raises:
        DataError: a file cannot be read.
    """
    stream = Stream(given(what, overrides).data, as_chat=False)
    for number, item in enumerate(stream.items()):
        if limit is not None and number >= limit:
            return
        if isinstance(item, Parsed):
            found = [f"{f.rule.replace('_', ' ')} ({f.action}): {f.excerpt}" for f in item.findings]
            yield {**as_line(item.row), **({"found": found} if found else {})}
        else:
            yield left(item)


def left(item: Dropped | Problem) -> dict[str, Any]:
    """A row that leaves, and why."""
    if isinstance(item, Problem):
        return {"origin": item.where, "dropped": item.code.partition("/")[2], "what": item.what, "found": item.found}
    line: dict[str, Any] = {"origin": str(item.origin), "dropped": item.reason}
    if item.hit is not None:
        line |= {"question": str(item.hit.origin), "kind": item.hit.kind, "found": item.hit.excerpt}
    elif item.findings:
        line |= {"found": "; ".join(f.excerpt for f in item.findings if f.action == "dropped")}
    return line
