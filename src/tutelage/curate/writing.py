"""Rows that are written: cleaned, split, mixed or converted, so that `train` reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage import commands
from tutelage.curate.given import Chosen, What, given
from tutelage.curate.outputs import Outputs
from tutelage.curate.views import left, survey
from tutelage.data.ledger import Ledger
from tutelage.data.mixture import Mixture, name_of, portions
from tutelage.data.pairs import pairs
from tutelage.data.refusals import refuse_bad_rows
from tutelage.data.selection import HELDOUT, REASONS, TRAIN
from tutelage.data.stream import Dropped, Parsed, Stream
from tutelage.data.survey import Survey
from tutelage.data.written import Files, Form, as_line, pair_as_line
from tutelage.errors import DataError, Problem, RecipeError
from tutelage.recipe import CleanOptions, DataOptions
from tutelage.screen import SILENT, Screen
from tutelage.types import Completion, Conversation, Document

CONVERTED = ("messages", "alpaca", "pairs")
"""What rows can be converted to."""


def clean(
    what: What,
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
    options = given(what, overrides).all_to_train
    compared = options.decontaminate
    compared = compared.model_copy(update={"against": tuple(dict.fromkeys((*compared.against, *against)))})
    looked = survey(options.model_copy(update={"decontaminate": compared}), screen, as_chat=False)
    return outputs.told(_write(looked, outputs, {TRAIN: outputs.file}, form), looked.ledger)


def split(
    what: What, output: str | Path, overrides: Sequence[str] = (), screen: Screen = SILENT, *, form: Form = "as-read"
) -> dict[str, Any]:
    """Write `train.jsonl` and `heldout.jsonl` into a folder, repeats on one side; the ledger.

    Raises:
        TutelageError: as a run would; usage/output-exists; data/no-rows when a side would be empty.
    """
    outputs = Outputs(output, "train.jsonl", "heldout.jsonl")
    looked = survey(given(what, overrides, heldout=0.05).data, screen, as_chat=False)
    train, heldout = outputs.files
    return outputs.told(_write(looked, outputs, {TRAIN: train, HELDOUT: heldout}, form), looked.ledger)


def mix(
    what: What, output: str | Path, overrides: Sequence[str] = (), screen: Screen = SILENT, *, form: Form = "as-read"
) -> dict[str, Any]:
    """Write the training rows as often as the mixture's first epoch takes them, in the order of the sources.

    Raises:
        TutelageError: as a run would; usage/output-exists; recipe/conflict for shares of tokens without a model.
    """
    outputs = Outputs(output)
    chosen = given(what, overrides, sections=("data", "model"))
    options = chosen.all_to_train
    if options.mixture.by == "tokens" and not chosen.has_model:
        fix = "name the model, as in model.path=smollm2-135m-instruct, or a recipe; or data.mixture.by=examples"
        found = "data.mixture.by = tokens"
        raise RecipeError(Problem("recipe/conflict", "tokens are counted by a model's tokenizer", found=found, fix=fix))
    looked = survey(options, screen, as_chat=False)
    rows = looked.selection.rows(TRAIN)
    sizes = np.bincount(looked.rows["source"][rows], minlength=len(options.train)).tolist()
    tokens = _tokens(chosen, screen) if options.mixture.by == "tokens" else sizes
    mixture = Mixture(portions(options.train, sizes, tokens, options.mixture), seed=chosen.resolved.recipe.train.seed)
    order = mixture.order(0)
    times = np.zeros(len(looked.rows), dtype=np.int64)
    # Rows of one source follow each other, so the n-th training row is the n-th slot of the mixture.
    np.add.at(times, rows[[order[position][0] for position in range(len(order))]], 1)
    written = _write(looked, outputs, {TRAIN: outputs.file}, form, times)
    taken = [{"source": p.name, "rows": p.size, "taken": p.taken, "epochs": p.epochs} for p in mixture.portions]
    return {**outputs.told(written, looked.ledger), "written": mixture.size, "mixture": taken}


def convert(
    what: What, output: str | Path, overrides: Sequence[str] = (), screen: Screen = SILENT, *, to: str = "messages"
) -> dict[str, Any]:
    """Write every row in one form, `messages`, `alpaca`, or `pairs` of a preference set; the ledger.

    Of data files nothing is cleaned unless an override asks for it; a recipe's `data.clean` is done, but not to pairs.

    Raises:
        TutelageError: rows cannot be written so, as `data.on_bad_row` says; usage/output-exists.
    """
    if to not in CONVERTED:
        found, fix = f"--to {to}", f"--to {' or --to '.join(CONVERTED)}"
        raise RecipeError(Problem("recipe/bad-value", f"rows cannot become {to}", "command line", found, fix=fix))
    outputs = Outputs(output)
    options = given(what, overrides, clean=dict.fromkeys(CleanOptions.model_fields, "keep")).all_to_train
    rows = _pairs(options) if to == "pairs" else _converted(options, "alpaca" if to == "alpaca" else "messages")
    problems: list[Problem] = []
    ledger = Ledger()
    with screen.stage("reading the data", None) as advance, Files(outputs.file, outputs.dropped) as files:
        for item in rows:
            advance()
            if isinstance(item, list):
                ledger.keep("train", 1, len(item))
                for line in item:
                    files.write(outputs.file, line)
                continue
            files.write(outputs.dropped, left(item))
            if isinstance(item, Problem):
                ledger.refuse(item)
                problems.append(item)
            else:
                ledger.drop(item.reason, item.origin)
        refuse_bad_rows(problems, {"items": ledger.rows}, options)
        outputs.refuse_nothing(files.lines, ledger)
    written = files.lines[outputs.file]
    return {**outputs.told(files.lines, ledger), **({"written": written} if to == "pairs" else {})}


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
                opened.write(outputs.dropped, left(item))
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


def _tokens(chosen: Chosen, screen: Screen) -> list[int]:
    """Training tokens of each source, counted with the model's tokenizer."""
    prepared, _ = commands.preview(chosen.with_data(chosen.all_to_train), (), screen)
    lengths = prepared.dataset.store.lengths[prepared.training.at(0)]
    counted = np.bincount(prepared.training.source, weights=lengths, minlength=len(chosen.data.train))
    return [int(count) for count in counted]
