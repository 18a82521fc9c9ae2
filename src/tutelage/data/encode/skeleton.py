"""Conversations that differ in their contents alone, rendered by filling in what the template writes around them.

Rendering costs more than encoding. A template that only puts contents between pieces of its own writes the same
pieces for all conversations with the same roles. That it does so is not guessed: it is rendered once with contents
that notice whatever the template does to them. A text that is only joined to others leaves a *skeleton*; a text that
is stripped, or looked through for a word, leaves a skeleton for contents that have no white space around them, or do
not hold the word; anything else leaves none, and such conversations are rendered one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from jinja2 import nodes

_STAND_IN = '\U0010fff1qz7{}"\U0010fff2'
_PLACE = re.compile('\U0010fff1qz7(\\d+)"\U0010fff2')
_TRACES = ("\U0010fff1", "\U0010fff2", "qz7")
# After the first conversations of a kind one in so many is rendered as well, and compared.
_FIRST, _EVERY = 3, 128


class Unsteady(Exception):
    """A template was found to do more than put contents in place, after rows had been rendered as if it did not."""


@dataclass(slots=True)
class Conditions:
    """What contents must be like for a skeleton to be right."""

    trimmed: bool = False
    """No white space at either end, and not empty."""
    filled: bool = False
    absent: set[str] = field(default_factory=set)
    """Texts that a content does not hold."""
    unknown: bool = False
    """The template did something else; there is no skeleton."""

    def met(self, contents: Sequence[str]) -> bool:
        """Whether all contents are like this."""
        if self.trimmed and not all(text and not (text[0].isspace() or text[-1].isspace()) for text in contents):
            return False
        if self.filled and not all(contents):
            return False
        return not any(word in text for word in self.absent for text in contents)


class _Watched(str):
    """A content that notes what is done with it."""

    __slots__ = ("alone", "seen")
    seen: Conditions
    alone: bool
    """Whether it is a content as it is, not joined to other text."""

    @classmethod
    def made(cls, text: str, seen: Conditions, alone: bool) -> _Watched:
        watched = cls(text)
        watched.seen, watched.alone = seen, alone
        return watched

    def _like(self, text: str) -> _Watched:
        return _Watched.made(text, self.seen, alone=False)

    def __str__(self) -> str:
        return str.__str__(self)

    def __add__(self, other: str) -> str:
        return self._like(str.__add__(self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> str:
        return self._like(str.__add__(other, self)) if isinstance(other, str) else NotImplemented

    def __bool__(self) -> bool:
        self.seen.filled = True
        return True

    def _stripped(self, how: Callable[..., str], chars: str | None) -> str:
        if chars is not None and not chars.isspace():
            self.seen.unknown = True
        self.seen.trimmed = True
        return self if self.alone else self._like(how(self, chars))

    def strip(self, chars: str | None = None, /) -> str:
        return self._stripped(str.strip, chars)

    def lstrip(self, chars: str | None = None, /) -> str:
        return self._stripped(str.lstrip, chars)

    def rstrip(self, chars: str | None = None, /) -> str:
        return self._stripped(str.rstrip, chars)

    def _lacks(self, *words: object) -> bool:
        for word in words:
            if self.alone and type(word) is str and word:
                self.seen.absent.add(word)
            else:
                self.seen.unknown = True
        return False

    def __contains__(self, word: object, /) -> bool:
        return self._lacks(word)

    def startswith(self, word: Any, /, *more: Any) -> bool:
        return self._lacks(*(word if isinstance(word, tuple) else (word,)), *more)

    def endswith(self, word: Any, /, *more: Any) -> bool:
        return self._lacks(*(word if isinstance(word, tuple) else (word,)), *more)

    def split(self, word: str | None = None, most: int = -1) -> list[str]:  # type: ignore[override]
        self._lacks(word)
        return [self]

    rsplit = split  # type: ignore[assignment]


def _unknown(method: Callable[..., Any]) -> Callable[..., Any]:
    def noted(self: _Watched, *args: Any, **kwargs: Any) -> Any:
        self.seen.unknown = True
        return method(self, *args, **kwargs)

    return noted


_TELLING = {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__format__"}
_HARMLESS = {*vars(_Watched), *dir(object)} - _TELLING
for _name in dir(str):
    if _name not in _HARMLESS and callable(getattr(str, _name)):
        setattr(_Watched, _name, _unknown(getattr(str, _name)))
_Watched.__eq__, _Watched.__ne__ = _unknown(str.__eq__), _unknown(str.__ne__)  # type: ignore[method-assign]
_Watched.__hash__ = _unknown(str.__hash__)  # type: ignore[method-assign]


class Text:
    """Pieces of a template with places for contents between them."""

    __slots__ = ("_pieces", "_places")

    def __init__(self, rendered: str) -> None:
        self._pieces: list[str] = _PLACE.split(rendered)
        self._places = [(at, int(self._pieces[at])) for at in range(1, len(self._pieces), 2)]

    @property
    def sound(self) -> bool:
        """Whether each stand-in was written as it is."""
        return not any(trace in piece for piece in self._pieces[::2] for trace in _TRACES)

    def holds(self, index: int) -> bool:
        """Whether there is a place for this content."""
        return any(place == index for _, place in self._places)

    def filled(self, contents: Sequence[str]) -> str:
        """The text with the contents in their places."""
        pieces = self._pieces.copy()
        for at, index in self._places:
            pieces[at] = contents[index]
        return "".join(pieces)


class Skeleton:
    """What a template writes around the contents of conversations of one shape."""

    __slots__ = ("_uses", "conditions", "turns")

    def __init__(self, conditions: Conditions, turns: Sequence[tuple[int, Text, Text]]) -> None:
        self.conditions = conditions
        self.turns = turns
        """For each trained answer its index, the prompt, and what follows the prompt."""
        self._uses = 0

    @property
    def due(self) -> bool:
        """Whether the next conversation is one to compare; each call counts one."""
        self._uses += 1
        return self._uses <= _FIRST or self._uses % _EVERY == 0


def traceable(tree: nodes.Template) -> bool:
    """Whether contents can be watched through a template: text that Jinja joins by itself is only ever written."""
    if any(tree.find_all((nodes.AssignBlock, nodes.FilterBlock, nodes.CallBlock))):
        return False
    macros = {macro.name for macro in tree.find_all(nodes.Macro)}
    written: set[int] = set()
    waiting: list[nodes.Node] = [child for output in tree.find_all(nodes.Output) for child in output.nodes]
    while waiting:
        node = waiting.pop()
        written.add(id(node))
        if isinstance(node, nodes.Add | nodes.Concat | nodes.CondExpr):
            waiting += node.iter_child_nodes()
    joining = chain(*map(tree.find_all, (nodes.Concat, nodes.Call, nodes.Filter, nodes.Mod)))
    return all(id(node) in written or not _joins(node, macros) for node in joining)


def _joins(node: nodes.Node, macros: set[str]) -> bool:
    if isinstance(node, nodes.Call):
        return isinstance(node.node, nodes.Name) and node.node.name in macros
    if isinstance(node, nodes.Filter):
        return node.name in ("join", "format", "safe", "escape", "e", "forceescape")
    if isinstance(node, nodes.Mod):
        return isinstance(node.left, nodes.Const) and isinstance(node.left.value, str)
    return True


def stand_ins(count: int) -> tuple[list[str], Conditions]:
    """As many contents that note what is done with them, and where they note it."""
    seen = Conditions()
    return [_Watched.made(_STAND_IN.format(index), seen, alone=True) for index in range(count)], seen


def skeleton(trained: Sequence[int], seen: Conditions, render: Callable[[int, bool], str]) -> Skeleton | None:
    """The skeleton of the answers with these indices; none where the template does more than put contents in place.

    `render(end, generation_prompt)` renders the stand-ins.
    """
    turns = []
    for index in trained:
        prompt, whole = render(index, True), render(index + 1, False)
        if seen.unknown or not whole.startswith(prompt):
            return None
        turns.append((index, Text(prompt), Text(whole[len(prompt) :])))
    if not all(completion.holds(index) for index, _, completion in turns):
        return None
    if seen.unknown or not all(prompt.sound and completion.sound for _, prompt, completion in turns):
        return None
    return Skeleton(seen, turns)
