"""What the run says in a few lines: the verdict, each measured change, the key figures.

All of it comes from `result.json`; a run that has none yet is summed up from its steps so far.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from tutelage.report import text
from tutelage.report.chart import interval
from tutelage.report.collect import number
from tutelage.report.contents import Report, Table

VERDICTS = {"better": ("better", "▲"), "worse": ("worse", "▼"), "no difference": ("same", "≈")}


@dataclass(frozen=True, slots=True)
class Headline:
    """The first thing on the page; `kind` is better, worse, same or open; `word` is the verdict or the status."""

    kind: str
    sign: str
    word: str
    sentence: str


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


@dataclass(frozen=True, slots=True)
class Figure:
    """One key figure."""

    label: str
    value: str
    note: str = ""


def headline(report: Report) -> Headline:
    """The verdict in words, or why there is none."""
    if report.result is None:
        done = report.steps[-1].step if report.steps else 0
        planned = number(report.plan.get("steps"))
        of = f" of {text.count(planned)}" if planned else ""
        return Headline("open", "…", "unfinished", f"This run has not finished: step {text.count(done)}{of}.")
    heldout = report.result.get("heldout") or {}
    status = str(report.result.get("status", "unknown"))
    if heldout.get("verdict") not in VERDICTS:
        return Headline("open", "–", status, f"This run has no verdict. Its status is: {status}.")
    kind, sign = VERDICTS[heldout["verdict"]]
    return Headline(kind, sign, heldout["verdict"], str(heldout.get("sentence", "")))


def changes(report: Report) -> list[Change]:
    """The held-out loss, then each task."""
    result = report.result or {}
    level = number((report.options.get("evaluate") or {}).get("confidence"))
    name = "interval" if level is None else f"{text.brief(100 * level)} % interval"
    found = []
    if heldout := result.get("heldout"):
        examples, tokens = (text.count(number(heldout.get(key))) for key in ("examples", "tokens"))
        by_rendering = {key: _loss(one) for key, one in (heldout.get("renderings") or {}).items()}
        loss = {**heldout, **_loss(heldout), "fields": by_rendering}
        unit, amount = "nats per token, lower is better", f"{examples} examples, {tokens} tokens"
        found.append(replace(_change("Held-out loss", unit, loss, name, amount), parts="prompt format"))
    for task, table in (result.get("tasks") or {}).items():
        amount = f"n = {text.count(number(table.get('n')))}"
        found.append(_change(str(task), str(table.get("metric", "")), table, name, amount))
    return found


def figures(report: Report) -> list[Figure]:
    """Steps, trained rows, held-out tokens, speed, time and peak memory."""
    result, steps, plan, ledger = report.result or {}, report.steps, report.plan, report.ledger
    seconds = _sum(step.seconds for step in steps)
    tokens = _sum(step.tokens for step in steps)
    supervised = _sum(step.supervised_tokens for step in steps)
    memory = [step.peak_memory_bytes for step in steps if step.peak_memory_bytes is not None]

    def measured(key: str, otherwise: float | None) -> float | None:
        known = number(result.get(key))
        return otherwise if known is None else known

    done = measured("steps", steps[-1].step if steps else 0)
    speed = measured("tokens_per_second", _rate(tokens, seconds))
    trained = measured("supervised_tokens_per_second", _rate(supervised, seconds))
    planned, epochs = number(plan.get("steps")), number(plan.get("epochs"))
    heldout = result.get("heldout") or {}
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
    low, high = (number(bound) for bound in (table.get("interval") or (None, None)))
    span, drawing = "", Markup("")
    if difference is not None and low is not None and high is not None:
        span = f"{interval_name} {text.signed(low)} to {text.signed(high)}"
        drawing = interval(difference, low, high)
    return Change(
        name=name,
        unit=unit,
        before=text.decimal(number(table.get("base"))),
        after=text.decimal(number(table.get("tuned"))),
        amount=amount,
        difference=f"difference {text.signed(difference)}",
        interval=span,
        drawing=drawing,
        fields=tuple(_field(field, pair) for field, pair in (table.get("fields") or {}).items()),
    )


def _loss(table: Table) -> dict[str, Any]:
    return {"base": table.get("base_nll"), "tuned": table.get("tuned_nll")}


def _field(name: str, pair: Table) -> tuple[str, str, str]:
    return str(name), text.decimal(number(pair.get("base"))), text.decimal(number(pair.get("tuned")))


def _sum(values: Iterable[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _rate(amount: float | None, seconds: float | None) -> float | None:
    return amount / seconds if amount is not None and seconds else None
