"""The verbs of `tutelage data`, as plain functions: each looks at rows, or writes rows that `train` reads.

They take what a recipe's `data` section takes: a recipe, or data files, with overrides spelled as in a recipe.
Nothing is overwritten, and what leaves is written beside what stays, with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage import assemble, commands
from tutelage.data.lengths import token_statistics
from tutelage.data.mixture import Mixture, name_of, portions
from tutelage.data.pairs import pairs
from tutelage.data.refusals import refuse_bad_rows
from tutelage.data.selection import HELDOUT, REASONS, TRAIN
from tutelage.data.stream import Dropped, Parsed, Stream
from tutelage.data.survey import Survey
from tutelage.data.written import Files, Form, as_line, pair_as_line
from tutelage.errors import DataError, Problem, RecipeError
from tutelage.named import Given, Named, Outputs, named
from tutelage.recipe import DataOptions
from tutelage.screen import SILENT, Screen
from tutelage.types import Completion, Conversation, Document

SAMPLES = 20
"""Examples that are shown token by token."""


def survey(options: DataOptions, screen: Screen = SILENT, *, as_chat: bool = True) -> Survey:
    """The rows, counted and selected as a run would.

    Raises:
        DataError: as a run would raise it.
    """
    with screen.stage("reading the data", None) as advance:
        return Survey(options, lambda stage, rows: advance(rows, note=stage), as_chat=as_chat)


def stats(what: Given, overrides: Sequence[str] = (), screen: Screen = SILENT) -> dict[str, Any]:
    """What the rows are like; with tokens, the mixture and coloured samples where a model is named.

    Raises:
        TutelageError: as a run would.
    """
    given = named(what, overrides, sections=("data", "model"))
    options = given.data
    looked = survey(options, screen)
    names = [*map(name_of, options.train), "held out"]
    facts: dict[str, Any] = {
        "name": given.recipe_file or ", ".join(names[:-1]),
        "ledger": looked.ledger.as_json(),
        "sources": [{"name": names[index], **looked.stream.describe(index)} for index in looked.stream.counts],
        "statistics": looked.statistics.as_json(),
    }
    if given.has_model:
        prepared, rows = commands.preview(given.resolved, (), screen, limit=SAMPLES)
        train = prepared.train
        facts |= {
            "ledger": prepared.dataset.ledger.as_json(),
            "sources": prepared.dataset.sources,
            "mixture": assemble.describe_mixture(prepared),
            "samples": [row.coloured() for row in rows],
            "tokens": token_statistics(
                train.lengths, train.supervised, prepared.training.source, names, max_length=options.max_length
            ),
        }
    return facts


def show(what: Given, overrides: Sequence[str] = (), *, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """The rows as Tutelage reads them, one object each; a row that leaves says why.

    Raises:
        DataError: a file cannot be read.
    """
    stream = Stream(named(what, overrides).data, as_chat=False)
    for number, item in enumerate(stream.items()):
        if limit is not None and number >= limit:
            return
        if isinstance(item, Parsed):
            found = [f"{f.rule.replace('_', ' ')} ({f.action}): {f.excerpt}" for f in item.findings]
            yield {**as_line(item.row), **({"found": found} if found else {})}
        else:
            yield _left(item)


def clean(
    what: Given,
    output: str | Path,
    overrides: Sequence[str] = (),
    screen: Screen = SILENT,
    *,
    form: Form = "as-read",
    against: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the rows that stay after cleaning, deduplication and decontamination; the ledger.

    `against` names evaluation sets beside those of `data.decontaminate`. Rows that leave are in a second file,
    `OUTPUT.dropped`, each with its reason: not `.jsonl`, or a folder or pattern would read them again.

    Raises:
        TutelageError: as a run would; usage/output-exists; data/no-rows when none is left.
    """
    outputs = Outputs(output)
    options = named(what, overrides).all_to_train
    compared = options.decontaminate
    compared = compared.model_copy(update={"against": tuple(dict.fromkeys((*compared.against, *against)))})
    looked = survey(options.model_copy(update={"decontaminate": compared}), screen, as_chat=False)
    return outputs.told(_write(looked, outputs, {TRAIN: outputs.file}, form), looked.ledger)


def split(
    what: Given, output: str | Path, overrides: Sequence[str] = (), screen: Screen = SILENT, *, form: Form = "as-read"
) -> dict[str, Any]:
    """Write `train.jsonl` and `heldout.jsonl` into a folder, repeats on one side; the ledger.

    Raises:
        TutelageError: as a run would; usage/output-exists; data/no-rows when a side would be empty.
    """
    outputs = Outputs(output, "train.jsonl", "heldout.jsonl")
    looked = survey(named(what, overrides, heldout=0.05).data, screen, as_chat=False)
    train, heldout = outputs.files
    return outputs.told(_write(looked, outputs, {TRAIN: train, HELDOUT: heldout}, form), looked.ledger)


def mix(
    what: Given, output: str | Path, overrides: Sequence[str] = (), screen: Screen = SILENT, *, form: Form = "as-read"
) -> dict[str, Any]:
    """Write the training rows as often as the mixture's first epoch takes them, in the order of the sources.

    Raises:
        TutelageError: as a run would; usage/output-exists; recipe/conflict for shares of tokens without a model.
    """
    outputs = Outputs(output)
    given = named(what, overrides, sections=("data", "model"))
    options = given.all_to_train
    if options.mixture.by == "tokens" and not given.has_model:
        fix = "name the model, as in model.path=smollm2-135m-instruct, or a recipe; or data.mixture.by=examples"
        found = "data.mixture.by = tokens"
        raise RecipeError(Problem("recipe/conflict", "tokens are counted by a model's tokenizer", found=found, fix=fix))
    looked = survey(options, screen, as_chat=False)
    rows = looked.selection.rows(TRAIN)
    sizes = np.bincount(looked.rows["source"][rows], minlength=len(options.train)).tolist()
    tokens = _tokens(given, screen) if options.mixture.by == "tokens" else sizes
    mixture = Mixture(portions(options.train, sizes, tokens, options.mixture), seed=given.resolved.recipe.train.seed)
    order = mixture.order(0)
    times = np.zeros(len(looked.rows), dtype=np.int64)
    # Rows of one source follow each other, so the n-th training row is the n-th slot of the mixture.
    np.add.at(times, rows[[order[position] for position in range(len(order))]], 1)
    written = _write(looked, outputs, {TRAIN: outputs.file}, form, times)
    taken = [{"source": p.name, "rows": p.size, "taken": p.taken, "epochs": p.epochs} for p in mixture.portions]
    return {**outputs.told(written, looked.ledger), "rows": mixture.size, "mixture": taken}


def convert(what: Given, output: str | Path, overrides: Sequence[str] = (), *, to: str = "messages") -> dict[str, Any]:
    """Write every row in one form, `messages`, `alpaca`, or `pairs` of a preference set; what became of the rows.

    Of data files nothing is cleaned unless an override asks for it; a recipe's `data.clean` is done, but not to pairs.

    Raises:
        TutelageError: the first rows that cannot be written so; nothing is then left behind.
    """
    outputs = Outputs(output)
    options = named(what, overrides, clean=dict.fromkeys(type(DataOptions.model_fields["clean"].default).model_fields, "keep")).all_to_train
    problems: list[Problem] = []
    dropped: Counter[str] = Counter()
    rows = 0
    with Files(outputs.file, outputs.dropped) as files:
        for item in _pairs(options) if to == "pairs" else _converted(options, "alpaca" if to == "alpaca" else "messages"):
            rows += 1
            if isinstance(item, list):
                for line in item:
                    files.write(outputs.file, line)
                continue
            line = _left(item)
            dropped[line["dropped"]] += 1
            files.write(outputs.dropped, line)
            if isinstance(item, Problem):
                problems.append(item)
        refuse_bad_rows(problems, {"items": rows}, options)
        outputs.refuse_nothing(files.lines)
    return {"read": rows, "dropped_rows": dict(dropped), **outputs.told(files.lines), "rows": files.lines[outputs.file]}


def _converted(options: DataOptions, form: Form) -> Iterator[list[dict[str, Any]] | Dropped | Problem]:
    for item in Stream(options, as_chat=True).items():
        if not isinstance(item, Parsed):
            yield item
            continue
        try:
            yield [as_line(item.row, form)]
        except DataError as error:
            yield error.problems[0]


def _pairs(options: DataOptions) -> Iterator[list[dict[str, Any]] | Dropped | Problem]:
    for source in options.train:
        for item in pairs(source):
            yield [pair_as_line(pair) for pair in item] if isinstance(item, tuple) else item


def _write(
    looked: Survey, outputs: Outputs, files: Mapping[int, Path], form: Form, times: NDArray[np.int64] | None = None
) -> Mapping[Path, int]:
    """Read the rows again and write each to the file of its side, `times` often; the lines of each file."""
    form = _form(looked, form)
    with Files(*files.values(), outputs.dropped) as opened:
        for item, number, side in looked.items():
            if not isinstance(item, Parsed):
                opened.write(outputs.dropped, _left(item))
            elif side in files:
                line = as_line(item.row, form)
                for _ in range(1 if times is None else int(times[number])):
                    opened.write(files[side], line)
            else:
                earlier = looked.alike(number)
                repeats = {} if earlier is None else {"repeats": str(earlier)}
                opened.write(outputs.dropped, {**as_line(item.row), "dropped": REASONS[side - 2], **repeats})
        outputs.refuse_nothing(opened.lines, looked.ledger)
    return opened.lines


def _form(looked: Survey, form: Form) -> Form:
    """The form in which all rows can stand in one file.

    Raises:
        RecipeError: recipe/conflict, when there is none.
    """
    if Document in looked.kinds and (len(looked.kinds) > 1 or form != "as-read"):
        what = "plain text and conversations have no form in common, so that one file cannot hold both"
        found = "; ".join(f"{name_of(s)}: {looked.stream.formats.get(i)}" for i, s in enumerate(looked.options.train))
        fix = "write them one by one; a recipe can train on several files"
        raise RecipeError(Problem("recipe/conflict", what, found=found, fix=fix))
    return "messages" if form == "as-read" and looked.kinds == {Completion, Conversation} else form


def _left(item: Dropped | Problem) -> dict[str, Any]:
    """A row that leaves, and why."""
    if isinstance(item, Problem):
        return {"origin": item.where, "dropped": item.code.partition("/")[2], "what": item.what, "found": item.found}
    line: dict[str, Any] = {"origin": str(item.origin), "dropped": item.reason}
    if item.hit is not None:
        line |= {"question": str(item.hit.origin), "kind": item.hit.kind, "found": item.hit.excerpt}
    elif item.findings:
        line |= {"found": "; ".join(f.excerpt for f in item.findings if f.action == "dropped")}
    return line


def _tokens(given: Named, screen: Screen) -> list[int]:
    """Training tokens of each source, counted with the model's tokenizer."""
    prepared, _ = commands.preview(given.with_data(given.all_to_train), (), screen)
    lengths = prepared.dataset.store.lengths[prepared.training.at(0)]
    counted = np.bincount(prepared.training.source, weights=lengths, minlength=len(given.data.train))
    return [int(count) for count in counted]
