"""The rules that look at one text, at the turns, or at an answer: each a line in one of three tables.

Adding a rule is adding a line here and an option of the same name to `CleanOptions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from tutelage.data.clean import answers, characters, order, personal, phrases
from tutelage.data.clean.traces import Traces
from tutelage.types import Conversation, Message

Span = tuple[int, int]
Messages = tuple[Message, ...]


class TextRule(NamedTuple):
    """What to look for in each text of a row."""

    name: str
    maybe: Callable[[Traces], bool]
    """Quick: whether a closer look is worth it."""
    spans: Callable[[str], Iterator[Span]]
    repaired: Callable[[str], str] | None = None
    ascii: bool = True
    """Whether there is something to find in text that is all ASCII."""


class TurnRule(NamedTuple):
    """What to look for among the turns of a conversation."""

    name: str
    part: str
    """The part of the message that is wrong."""
    places: Callable[[Messages], Iterable[int]]
    repaired: Callable[[Conversation], Conversation] | None = None
    mendable: Callable[[Messages, int], bool] = lambda messages, place: False
    """Whether `repaired` mends this place."""


class AnswerRule(NamedTuple):
    """What to look for in an answer beside its prompt."""

    name: str
    span: Callable[[str, str, str], Span | None]
    """From the prompt, the input where the row gives it apart, and the answer."""


def _ends(traces: Traces) -> bool:
    return traces.hidden or b"\r" in traces.rare


def _controls(traces: Traces) -> bool:
    return traces.hidden or traces.controls


def _hidden(traces: Traces) -> bool:
    return traces.hidden


def _variables(traces: Traces) -> bool:
    return b"<" in traces.rare or (b"{" in traces.rare and "{{" in traces.text)


def _personal(traces: Traces) -> bool:
    return traces.digits >= personal.DIGITS or b"@" in traces.rare


def _mojibake(traces: Traces) -> bool:
    return characters.MOJIBAKE_SIGNS.search(traces.text) is not None


TEXT_RULES = (
    # The repair of the first is a package, and put in where it is asked for.
    TextRule("mojibake", _mojibake, characters.mojibake, ascii=False),
    TextRule("line_endings", _ends, characters.line_ends, characters.with_line_feeds),
    TextRule("control_characters", _controls, characters.controls, characters.without_controls),
    TextRule("zero_width", _hidden, characters.zero_widths, characters.without_zero_widths, ascii=False),
    TextRule("bidi_controls", _hidden, characters.bidi_controls, characters.without_bidi_controls, ascii=False),
    TextRule("tag_characters", _hidden, characters.tags, characters.without_tags, ascii=False),
    TextRule("unicode_nfc", lambda traces: True, characters.decomposed, characters.composed_form, ascii=False),
    TextRule("replacement_character", _hidden, characters.replacements, ascii=False),
    TextRule("template_variables", _variables, phrases.variables),
    TextRule("secrets", personal.maybe_secrets, personal.secrets, personal.without_secrets),
    TextRule("personal_data", _personal, personal.personal, personal.without_personal),
)

TURN_RULES = (
    TurnRule(
        "empty_turns",
        "content",
        order.empty,
        order.without_empty_systems,
        lambda messages, place: messages[place].role == "system",
    ),
    TurnRule("same_role_turns", "role", order.repeated, order.joined_turns, order.joinable),
    TurnRule("role_order", "role", order.disordered),
)

ANSWER_RULES = (
    AnswerRule("refusals", answers.declined),
    AnswerRule("prompt_copied", answers.copied),
    AnswerRule("truncated_answers", answers.truncated),
    AnswerRule("repetition_loops", answers.looping),
    AnswerRule("other_script", answers.other_script),
)
