"""From the recipe's `data` section to examples: encoded once into a store, then chosen from, every row accounted for.

stream ──> building ──> store ──> selection ──> train · held out
(content decides: built once)     (options decide: chosen anew for each run)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data.adjust import Adjustment
from tutelage.data.encode import Encoder
from tutelage.data.encode.skeleton import Unsteady
from tutelage.data.examples import Examples, Training
from tutelage.data.ledger import Ledger
from tutelage.data.mixture import name_of
from tutelage.data.refusals import over_long_error, refuse_bad_rows
from tutelage.data.renderings import rendered
from tutelage.data.selection import HELDOUT, TRAIN, Selection, select
from tutelage.data.sources import fingerprint
from tutelage.data.split import prompt_key
from tutelage.data.store import Store
from tutelage.data.store.building import Building, stored_renderings
from tutelage.data.store.identity import identity
from tutelage.data.store.shelf import Shelf
from tutelage.data.stream import Parsed, Progress, Stream, sources_of
from tutelage.errors import DataError, Problem
from tutelage.recipe import DataOptions, Rows
from tutelage.types import Conversation, Demonstration, Example, Origin


@dataclass(frozen=True, slots=True)
class Row:
    """A stored row that stayed, with its side."""

    index: int
    origin: Origin
    split: str
    source: int
    examples: tuple[Example, ...]
    """In its first rendering."""


@dataclass(slots=True)
class Dataset:
    """What the run trains on and what it holds out."""

    store: Store
    options: DataOptions
    selection: Selection
    ledger: Ledger
    sources: list[dict[str, Any]]
    stream: Stream
    quarantined: list[Problem] = field(default_factory=list)

    @property
    def stop_ids(self) -> dict[int, int]:
        """Token id -> how many answers end with it."""
        return {int(id): count for id, count in self.store.facts["stop_ids"].items()}

    def training(self) -> Training:
        """The examples to train on."""
        return Training(self.store, self.selection.rows(TRAIN), self.options)

    def examples(self, split: str, limit: int | None = None) -> Examples:
        """The examples of `train` (in their first rendering) or `heldout` (in each held-out one), in file order.

        Of the held-out ones at most `limit`: whole rows, chosen by the hash of their prompts, but always one.
        """
        if split == "train":
            return Examples(self.store, self.training().at(0))
        chosen: list[int] = []
        count = 0
        for row in self._by_hash(self.selection.rows(HELDOUT)):
            added = len(self._measured(row))
            if limit is not None and chosen and count + added > limit:
                break
            chosen.append(row)
            count += added
        found = [index for row in sorted(chosen) for index in self._measured(row)]
        return Examples(self.store, np.array(found, dtype=np.int64))

    def _measured(self, row: int) -> list[int]:
        """The stored examples of a held-out row in each held-out rendering; a row that has none is the same in all."""
        names = self.options.renderings.heldout
        return list(dict.fromkeys(index for name in names for index in self._in_rendering(row, name)))

    def _by_hash(self, rows: NDArray[np.int64]) -> list[int]:
        """The rows in an order of their prompts' hashes, so that the first of them are of all sources and tasks."""
        # The side was decided by the upper bits of the same key.
        order = np.argsort(self.store.rows["prompt"][rows] & np.uint64(0xFFFFFFFF), kind="stable")
        return [int(row) for row in rows[order]]

    def rows_of(self, examples: Examples) -> NDArray[np.int64]:
        """The stored row of each of the examples."""
        return self.store.rows_of(examples.indices)

    def rendering_of(self, examples: Examples) -> list[str]:
        """In which rendering each of the examples is; "" for a row that has none."""
        rows = self.rows_of(examples)
        counts, variants = (self.store.rows[name][rows].astype(np.int64) for name in ("examples", "renderings"))
        places = (examples.indices - self.store.first_example[rows]) // (counts // np.maximum(variants, 1))
        names = self.store.facts["renderings"]
        return [names[place] if many > 1 else "" for place, many in zip(places, variants, strict=True)]

    def _in_rendering(self, row: int, name: str) -> range:
        first, count = int(self.store.first_example[row]), int(self.store.rows["examples"][row])
        variants = int(self.store.rows["renderings"][row])
        each = count // variants
        place = self.store.facts["renderings"].index(name) if variants > 1 else 0
        return range(first + place * each, first + (place + 1) * each)

    def rows(self, split: str | None = None) -> Iterator[Row]:
        """The rows that stayed, in the order of the files, or those of one side."""
        for index, side in enumerate(self.selection.sides.tolist()):
            named = {TRAIN: "train", HELDOUT: "heldout"}.get(side)
            if named is not None and split in (None, named):
                yield self._row(index, named)

    def asking(self, limit: int) -> list[Row]:
        """At most so many held-out rows that have a prompt, chosen by its hash, in the order of the files."""
        sources, facts = sources_of(self.options), self.store.facts["sources"]
        plain = [
            facts[number]["format"] in ("text", "code") and source.completion_after is None
            for number, source in enumerate(sources)
        ]
        rows = self.selection.rows(HELDOUT)
        asking = rows[~np.array(plain)[self.store.rows["source"][rows]]]
        return [self._row(index, "heldout") for index in sorted(self._by_hash(asking)[:limit])]

    def _row(self, index: int, split: str) -> Row:
        names = self.options.renderings
        within = self._in_rendering(index, (names.train if split == "train" else names.heldout)[0])
        examples = tuple(self.store.example(place) for place in within)
        return Row(index, self.store.origin(index), split, int(self.store.rows["source"][index]), examples)

    def trained(self, indices: Iterable[int]) -> list[Row]:
        """These stored rows, which are on the side that is trained."""
        return [self._row(index, "train") for index in indices]

    def demonstrations(self, rows: Sequence[Row]) -> list[Demonstration]:
        """The rows as they were before they were encoded; read from their sources again."""
        # Rows of one origin may ask the same; they come in the order in which they were stored.
        alike = {self._place(row.index): self._all_alike(row.index) for row in rows}
        found: dict[int, Demonstration] = {}
        for item in self.stream.items(only=[(row.source, row.origin) for row in rows]) if rows else ():
            if isinstance(item, Parsed):
                places = alike.get((item.source, str(item.row.origin), prompt_key(item.row)))
                if places:
                    found[places.pop(0)] = item.row
        return [self._as_stored(found[row.index], row) for row in rows]

    def _place(self, index: int) -> tuple[int, str, int]:
        row = self.store.rows[index]
        return int(row["source"]), str(self.store.origin(index)), int(row["prompt"])

    def _all_alike(self, index: int) -> list[int]:
        """The stored rows that cannot be told from this one: those around it with its origin and prompt."""
        lines, place = self.store.rows["line"], self._place(index)
        first = last = index
        while first > 0 and lines[first - 1] == lines[index]:
            first -= 1
        while last + 1 < len(lines) and lines[last + 1] == lines[index]:
            last += 1
        return [other for other in range(first, last + 1) if self._place(other) == place]

    def _as_stored(self, row: Demonstration, stored: Row) -> Demonstration:
        names = self.options.renderings
        name = (names.train if stored.split == "train" else names.heldout)[0]
        many = int(self.store.rows["renderings"][stored.index]) > 1 or stored_renderings(self.options) != ("plain",)
        return rendered(row, name) if many and isinstance(row, Conversation) else row

    def describe(self) -> dict[str, Any]:
        """What `data.json` says beside the ledger: tokens and lengths, in tokens."""
        train, heldout = self.examples("train"), self.examples("heldout")
        lengths = train.lengths if len(train) else np.zeros(1, np.int64)
        return {
            "tokens": {
                "train": int(lengths.sum()),
                "supervised": int(train.supervised.sum()),
                "heldout": int(heldout.lengths.sum()),
                "quantiles": {str(q): int(np.percentile(lengths, q)) for q in (50, 90, 99, 100)},
            },
            "sources": self.sources,
            **({"adjusted": self.selection.adjusted.as_json()} if self.options.adjust is not None else {}),
        }


def prepare(
    options: DataOptions,
    encoder: Encoder,
    progress: Progress = lambda stage, rows: None,
    say: Callable[[str], None] = lambda text: None,
) -> Dataset:
    """Every row of every source, accounted for.

    Raises:
        DataError: rows are malformed and the policy is to stop; rows are over-long and there is no policy; too many
            were set aside; nothing is left.
        ModelError: the template refuses the rows or writes no stop token.
        MachineError: the token store cannot be written.
    """
    if options.adjust is not None:
        Adjustment.read(options.adjust)  # Before the rows, which may take long.
    stream = Stream(options, as_chat=encoder.template is not None, progress=progress)
    content = identity(options, encoder, stream)

    def build(folder: Path) -> None:
        try:
            Building(folder, stream, encoder, options).run()
        except Unsteady:
            shutil.rmtree(folder)
            folder.mkdir()
            encoder.notices.clear()
            encoder.stop_ids.clear()
            Building(folder, stream, encoder, options).run()
        _refuse_changed(sources_of(options), content["sources"])
        _refuse(Store(folder), options)

    shelf = Shelf(options.store, options.store_limit)
    busy = "another process is encoding the same rows; waiting for it"
    store = shelf.opened(content, build, lambda otherwise: say(busy + otherwise))
    ledger = Ledger.restored(store.facts["ledger"])
    problems = _refuse(store, options)
    selection = select(store, options, ledger)
    store.factors = selection.adjusted.factors
    for remark in selection.adjusted.remarks():
        say(f"note    {remark}")
    names = [*map(name_of, options.train), "held out"]
    described = [
        {"name": name, **content, **facts}
        for name, content, facts in zip(names, content["sources"], store.facts["sources"], strict=False)
    ]
    ledger.balance(sum(source["rows"] for source in store.facts["sources"]))
    if not ledger.trained:
        raise DataError(Problem("data/no-rows", "no row is left to train on", found=ledger.summary()))
    return Dataset(store, options, selection, ledger, described, stream, problems)


def _refuse(store: Store, options: DataOptions) -> list[Problem]:
    """Refuse what the recipe does not allow; the malformed rows that it does.

    Raises:
        DataError: as `prepare` says.
    """
    problems = [Problem(**problem) for state in store.states for problem in state["problems"]]
    refuse_bad_rows(problems, store.facts, options)
    if store.facts["over_long"] and options.over_long == "error":
        raise over_long_error(store, options.max_length)
    return problems


def _refuse_changed(rows: list[Rows], before: list[dict[str, Any]]) -> None:
    """Make sure that the files are still those whose hash names the store.

    Raises:
        DataError: data/unreadable, when one was changed while it was read.
    """
    for source, known in zip(rows, before, strict=True):
        if "split" not in known and fingerprint(source) != known:  # a hub set has one
            what, fix = "a file was changed while it was read", "run it again"
            raise DataError(Problem("data/unreadable", what, str(known["path"]), fix=fix))
