"""Cleaning: named rules look for what is wrong with a row, and keep it, repair it or drop the row, as the recipe says.

    CleanOptions ──> Cleaner ── row ──> Cleaned(row | None, findings)

A row goes through until it stays as it is, so that cleaning it again changes nothing. Nothing is changed without a
finding, and rules that are set to `keep` still count. What a row may hold is told from a few quick tests over all of
its text (`traces`); only then a rule looks closer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from tutelage.data.clean.characters import mojibake_repair
from tutelage.data.clean.excerpt import excerpt
from tutelage.data.clean.order import ordinary
from tutelage.data.clean.passages import changed, texts
from tutelage.data.clean.placeholders import find_placeholders, maybe_placeholders, without_placeholders
from tutelage.data.clean.rules import ANSWER_RULES, TEXT_RULES, TURN_RULES, TextRule, TurnRule
from tutelage.data.clean.traces import Traces
from tutelage.recipe import CleanOptions
from tutelage.types import Completion, Conversation, Demonstration, Document

Action = Literal["kept", "repaired", "dropped"]


class Rule(NamedTuple):
    """One rule, as documents and statistics list it."""

    name: str
    meaning: str
    """What it finds, in one sentence."""
    default: str
    actions: tuple[str, ...]
    """What it can be set to."""


RULES = tuple(
    Rule(
        name,
        " ".join((option.description or "").split()).partition(". ")[0].rstrip("."),
        str(option.default),
        get_args(option.annotation),
    )
    for name, option in CleanOptions.model_fields.items()
)
"""Every rule, in the order in which they are applied."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found in one field, and what was done about it."""

    rule: str
    action: Action
    field: str
    excerpt: str
    """Short; what cannot be seen is spelled out, secrets and personal data are masked."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A row after cleaning, None where it was dropped; the same object where nothing was repaired."""

    row: Demonstration | None
    findings: tuple[Finding, ...] = ()


_ASCII_RULES = tuple([rule for rule in TEXT_RULES if rule.ascii])
_DOCUMENT_RULES = tuple([rule for rule in ANSWER_RULES if rule.name == "repetition_loops"])
"""Plain text answers nothing, so that only one of these says something about it."""
_PASSES = 12
"""A bound only: a repair that uncovers another fault takes a pass more, and few take three."""


class Cleaner:
    """Applies the rules to one row after another, as the options say.

    Raises:
        MachineError: machine/missing-package, when a repair needs a package that is not installed.
    """

    def __init__(self, options: CleanOptions) -> None:
        self._actions: dict[str, str] = {name: getattr(options, name) for name in CleanOptions.model_fields}
        self._repairs = {rule.name: rule.repaired for rule in TEXT_RULES if rule.repaired is not None}
        if options.mojibake == "repair":
            self._repairs["mojibake"] = mojibake_repair()

    def __call__(self, row: Demonstration) -> Cleaned:
        """Return the row as the rules leave it, with all that they found."""
        earlier: tuple[Finding, ...] = ()
        for _ in range(_PASSES):
            findings: list[Finding] = []
            after = self._pass(row, findings)
            if after is row or after is None:
                return Cleaned(after, (*earlier, *findings) if earlier or findings else ())
            # What was only kept is found again by the next pass, and listed then.
            earlier += tuple([finding for finding in findings if finding.action == "repaired"])
            row = after
        return Cleaned(row, earlier)

    def _pass(self, row: Demonstration, findings: list[Finding]) -> Demonstration | None:
        """Return the row with one round of repairs, None where it is dropped; add what was found."""
        traces = Traces(_whole(row))
        after: Demonstration | None
        for rule in _ASCII_RULES if traces.ascii else TEXT_RULES:
            if rule.maybe(traces):
                if (after := self._text(rule, row, findings)) is None:
                    return None
                row = after
        if maybe_placeholders(traces.lower):
            if (after := self._placeholders(row, findings)) is None:
                return None
            row = after
        if isinstance(row, Conversation) and not ordinary(row.messages):
            for turn_rule in TURN_RULES:
                if places := tuple(turn_rule.places(row.messages)):
                    if (mended := self._turns(turn_rule, row, places, findings)) is None:
                        return None
                    row = mended
        return row if self._answers(row, findings) else None

    def _text(self, rule: TextRule, row: Demonstration, findings: list[Finding]) -> Demonstration | None:
        hits = [(field, text, span) for field, text in texts(row) for span in _first(rule.spans(text))]
        if not hits:
            return row
        action = self._actions[rule.name]
        repair = self._repairs[rule.name] if action == "repair" else None
        after = changed(row, repair) if repair else row
        whole = action != "drop" and (after is row or _has_answer(after))
        for field, text, span in hits:
            done: Action = "repaired" if repair and repair(text) != text else "kept"
            findings.append(_finding(rule.name, done if whole else "dropped", field, text, span))
        return after if whole else None

    def _placeholders(self, row: Demonstration, findings: list[Finding]) -> Demonstration | None:
        found = find_placeholders(row)
        if not found:
            return row
        action = self._actions["placeholders"]
        kinds = {hit.kind for hit in found}
        dropped = action == "drop" or (action == "repair" and "answer" in kinds)
        mended = action == "repair" and "input" in kinds
        for hit in found:
            done: Action = "dropped" if dropped else "repaired" if mended and hit.kind == "input" else "kept"
            findings.append(_finding("placeholders", done, hit.field, hit.text, hit.span))
        return None if dropped else without_placeholders(row) if mended else row

    def _turns(
        self, rule: TurnRule, row: Conversation, places: tuple[int, ...], findings: list[Finding]
    ) -> Conversation | None:
        action = self._actions[rule.name]
        for place in places:
            message = row.messages[place]
            done: Action = "dropped" if action == "drop" else "kept"
            if action == "repair" and rule.mendable(row.messages, place):
                done = "repaired"
            text = f"{message.role}: {message.content}"
            findings.append(_finding(rule.name, done, f"messages[{place}].{rule.part}", text, (0, len(message.role))))
        if action == "drop":
            return None
        return rule.repaired(row) if action == "repair" and rule.repaired else row

    def _answers(self, row: Demonstration, findings: list[Finding]) -> bool:
        """Add what is found in the answers; tell whether the row stays."""
        stays = True
        rules = _DOCUMENT_RULES if isinstance(row, Document) else ANSWER_RULES
        for field, prompt, input, answer in _exchanges(row):
            for rule in rules:
                span = rule.span(prompt, input, answer)
                if span is not None:
                    dropped = self._actions[rule.name] == "drop"
                    stays = stays and not dropped
                    done: Action = "dropped" if dropped else "kept"
                    findings.append(_finding(rule.name, done, field, answer, span))
        return stays


def _finding(rule: str, action: Action, field: str, text: str, span: tuple[int, int]) -> Finding:
    return Finding(rule, action, field, excerpt(text, *span))


def _first(spans: Iterator[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the first place alone, or nothing: one finding for each rule and field."""
    span = next(spans, None)
    return () if span is None else (span,)


def _whole(row: Demonstration) -> str:
    """Return all of a row's text."""
    if isinstance(row, Conversation) and not row.references:
        messages = row.messages
        if not any([message.thinking or message.tool_calls for message in messages]):
            return "\n".join([message.content for message in messages])
    return "\n".join([text for _, text in texts(row)])


def _has_answer(row: Demonstration) -> bool:
    """Tell whether there still is a question, where there is one at all, and every answer that is trained."""
    if isinstance(row, Completion):
        return bool(row.prompt.strip() and row.completion.strip())
    if isinstance(row, Document):
        return bool(row.text.strip())
    asks = False
    for message in row.messages:
        answers = message.role == "assistant" and message.trained > 0
        if answers and not message.content.strip() and not message.tool_calls:
            return False
        asks = asks or (not answers and bool(message.content.strip() or message.tool_calls))
    return asks or row.messages[0].role == "assistant"


def _exchanges(row: Demonstration) -> Iterator[tuple[str, str, str, str]]:
    """Yield each trained answer as (field, prompt, input where the row gives it apart, answer)."""
    if isinstance(row, Completion):
        yield "completion", row.prompt, "", row.completion
    elif isinstance(row, Document):
        yield "text", "", "", row.text
    else:
        prompt, input = "", row.instruction.input if row.instruction else ""
        for place, message in enumerate(row.messages):
            if message.role == "user":
                prompt = message.content
            elif message.role == "assistant" and message.content and message.trained > 0:
                yield f"messages[{place}].content", prompt, input, message.content
