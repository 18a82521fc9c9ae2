"""What the run says in a few lines: the verdict, each measured change, the key figures.

All of it comes from `result.json`; a run that has none yet is summed up from its steps so far.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from tutelage.report import text
from tutelage.report.chart import interval
from tutelage.report.collect import mapping, number
from tutelage.report.contents import Report, Table

VERDICTS = {"better": ("better", "▲"), "worse": ("worse", "▼"), "no difference": ("same", "≈")}
_FIRST = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_WORDS = {**VERDICTS, "mixed": ("same", "≠"), "memorising": ("care", "⚠"), "not measured": ("open", "–")}


@dataclass(frozen=True, slots=True)
class Headline:
    """The first thing on the page; `kind` is its colour; `word` is the verdict or the status."""

    kind: str
    sign: str
    word: str
    sentence: str
    more: str = ""
    """What is said after the first sentence."""
    done: float = 0
    planned: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One thing measured before and after training, in words; `fields` are (field, before, after)."""

    name: str
    unit: str
    before: str
    after: str
    amount: str
    difference: str
    interval: str
    drawing: Markup
    fields: tuple[tuple[str, str, str], ...] = ()
    parts: str = "field"
    """What `fields` are."""
    verdict: tuple[str, str, str] | None = None
    """(kind, sign, word) where there is one."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One key figure."""

    label: str
    value: str
    note: str = ""


def training(report: Report) -> bool:
    """Whether the run may still be going: it has no result, or has made more steps than its last result tells of."""
    if report.result is None:
        return True
    told = number(report.result.get("steps"))
    more = bool(report.steps) and told is not None and report.steps[-1].step > told
    return more and report.result.get("status") != "done"


def headline(report: Report, *, live: bool = False) -> Headline:
    """The verdict in words, or why there is none; of a `live` run how far it is."""
    done = report.steps[-1].step if report.steps else 0
    planned = number(report.plan.get("steps"))
    if report.result is None or (live and training(report)):
        of = f" of {text.count(planned)}" if planned else ""
        if live:
            return Headline("live", "●", "training", f"Training: step {text.count(done)}{of}.", "", done, planned)
        return Headline("open", "…", "unfinished", f"This run has not finished: step {text.count(done)}{of}.")
    status = str(report.result.get("status", "unknown"))
    for told in (mapping(report.result.get("verdict")), mapping(report.result.get("heldout"))):
        word = told.get("word", told.get("verdict"))
        if isinstance(word, str) and word in _WORDS:
            kind, sign = _WORDS[word]
            first, *more = _FIRST.split(str(told.get("sentence", "")), maxsplit=1)
            return Headline(kind, sign, word, first, "".join(more))
    return Headline("open", "–", status, f"This run has no verdict. Its status is: {status}.")


def changes(report: Report) -> list[Change]:
    """The held-out loss, then each task, then what became of general text."""
    result = report.result or {}
    heldout, drift = mapping(result.get("heldout")), mapping(result.get("drift"))
    level = number(mapping(report.options.get("evaluate")).get("confidence"))
    name = "interval" if level is None else f"{text.brief(100 * level)} % interval"
    found = []
    if heldout:
        examples, tokens = (text.count(number(heldout.get(key))) for key in ("examples", "tokens"))
        by_rendering = {key: _loss(mapping(one)) for key, one in mapping(heldout.get("renderings")).items()}
        loss = {**heldout, **_loss(heldout), "fields": by_rendering}
        unit, amount = "nats per token, lower is better", f"{examples} examples, {tokens} tokens"
        per_byte = [number(mapping(heldout.get("per_byte")).get(model)) for model in ("base", "tuned")]
        if None not in per_byte:
            unit_of = str(mapping(heldout["per_byte"]).get("unit") or "nats per byte")
            amount += f"; {text.decimal(per_byte[0])} → {text.decimal(per_byte[1])} {unit_of}"
        found.append(replace(_change("Held-out loss", unit, loss, name, amount), parts="prompt format"))
    tasks = {str(name): mapping(table) for name, table in mapping(result.get("tasks")).items()}
    for task, table in tasks.items():
        amount = f"n = {text.count(number(table.get('n')))}"
        found.append(_change(task, str(table.get("metric", "")), table, name, amount))
    if drift:
        unit, amount = "nats per token, lower is better", f"{text.count(number(drift.get('tokens')))} tokens"
        found.append(_change("General text", unit, {**drift, **_loss(drift)}, name, amount))
    return found


def figures(report: Report) -> list[Figure]:
    """Steps, trained rows, held-out tokens, speed, time and peak memory."""
    result, steps, plan, ledger = report.result or {}, report.steps, report.plan, report.ledger
    seconds = total(step.seconds for step in steps)
    tokens = total(step.tokens for step in steps)
    supervised = total(step.supervised_tokens for step in steps)
    memory = [step.peak_memory_bytes for step in steps if step.peak_memory_bytes is not None]

    def measured(key: str, otherwise: float | None) -> float | None:
        known = number(result.get(key))
        return otherwise if known is None else known

    done = measured("steps", steps[-1].step if steps else 0)
    speed = measured("tokens_per_second", rate(tokens, seconds))
    trained = measured("supervised_tokens_per_second", rate(supervised, seconds))
    planned, epochs = number(plan.get("steps")), number(plan.get("epochs"))
    heldout = mapping(result.get("heldout"))
    examples = number(heldout.get("examples", ledger.examples.get("heldout") if ledger else None))
    device = report.environment.get("device")
    return [
        Figure("Steps", text.count(done), f"of {text.count(planned)} planned" if planned else ""),
        Figure(
            "Rows trained",
            text.count(ledger.trained if ledger else None),
            "" if epochs is None else f"{text.brief(epochs)} epoch{'' if epochs == 1 else 's'}",
        ),
        Figure(
            "Held-out tokens",
            text.count(number(heldout.get("tokens"))),
            "" if examples is None else f"in {text.count(examples)} examples",
        ),
        Figure("Tokens a second", text.count(speed), "" if trained is None else f"{text.count(trained)} trained"),
        Figure("Time", text.duration(measured("seconds", seconds)), str(result.get("status", "so far"))),
        Figure(
            "Peak memory",
            text.size(measured("peak_memory_bytes", max(memory, default=None))),
            f"of the {'process' if device == 'cpu' else 'device'}" if device else "",
        ),
    ]


def _change(name: str, unit: str, table: Table, interval_name: str, amount: str) -> Change:
    difference = number(table.get("difference"))
    low, high = bounds(table)
    span, drawing = "", Markup("")
    if difference is not None and low is not None and high is not None:
        span = f"{interval_name} {text.signed(low)} to {text.signed(high)}"
        drawing = interval(difference, low, high)
    word = str(table.get("verdict"))
    return Change(
        name=name,
        unit=unit,
        before=text.decimal(number(table.get("base"))),
        after=text.decimal(number(table.get("tuned"))),
        amount=amount,
        difference=text.signed(difference),
        interval=span,
        drawing=drawing,
        fields=tuple(_field(field, mapping(pair)) for field, pair in mapping(table.get("fields")).items()),
        verdict=(*VERDICTS[word], word) if word in VERDICTS else None,
    )


def bounds(table: Table) -> tuple[float | None, float | None]:
    """The two ends of its interval."""
    given = table.get("interval")
    low, high = given if isinstance(given, list) and len(given) == 2 else (None, None)
    return number(low), number(high)


def _loss(table: Table) -> dict[str, Any]:
    return {"base": table.get("base_nll"), "tuned": table.get("tuned_nll")}


def _field(name: str, pair: Table) -> tuple[str, str, str]:
    return str(name), text.decimal(number(pair.get("base"))), text.decimal(number(pair.get("tuned")))


def total(values: Iterable[float | None]) -> float | None:
    """The sum of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def rate(amount: float | None, seconds: float | None) -> float | None:
    """So much a second."""
    return amount / seconds if amount is not None and seconds else None
