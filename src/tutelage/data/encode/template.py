"""Messages to text: the one place where a chat template is rendered, for training, sampling and serving alike.

The template is the tokenizer's own, unedited, or one that the recipe names and that is then saved with the model.
It runs in Jinja's immutable sandbox with the few names that chat templates rely on, as `transformers` does, so that
what is rendered here is what a server renders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes

from tutelage.data.encode.limits import LimitError
from tutelage.data.encode.sandbox import MAX_SOURCE, Environment
from tutelage.errors import ModelError, Problem
from tutelage.types import Message

NAMED = ("alpaca", "chatml")


class ChatTemplate:
    """A chat template ready to render."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], *, name: str) -> None:
        """Compile the template; `name` is what the user is told it is.

        Raises:
            ModelError: template/broken, when it is not a valid template; template/limit, when it is no honest one.
        """
        self.source = source
        self.name = name
        self._special_tokens = dict(special_tokens)
        self._environment = Environment()
        try:
            self._template = self._environment.compiled(source)
        except jinja2.TemplateError as error:
            raise _invalid(name, error) from error

    @classmethod
    def named(cls, name: str, special_tokens: Mapping[str, str]) -> ChatTemplate:
        """One of the templates that ship with Tutelage, or a .jinja file.

        Raises:
            ModelError: template/missing, when there is no such template.
        """
        if name in NAMED:
            text = resources.files("tutelage.data.encode").joinpath("templates", f"{name}.jinja").read_text("utf-8")
            return cls(text, special_tokens, name=name)
        path = Path(name)
        if not path.is_file():
            raise ModelError(
                Problem(
                    "template/missing",
                    f"there is no chat template `{name}`",
                    found=f"model.template = {name}",
                    fix=f"one of {', '.join(NAMED)}, none, or the path of a .jinja file",
                )
            )
        return cls(_read(path), special_tokens, name=path.name)

    @property
    def sha256(self) -> str:
        """Identity of the template's text."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @cached_property
    def uses_clock(self) -> bool:
        """Whether it can write the date or the time, so that the same rows give other tokens on another day."""
        return "strftime_now" in self._names

    @cached_property
    def uses_chance(self) -> bool:
        """Whether it draws at random, so that no rendering need equal the next."""
        return not self._names.isdisjoint(("random", "lipsum"))

    @cached_property
    def _names(self) -> frozenset[str]:
        """The variables, functions and filters that it names."""
        variables = (node.name for node in self.tree.find_all(nodes.Name))
        return frozenset(variables) | {node.name for node in self.tree.find_all(nodes.Filter)}

    @cached_property
    def tree(self) -> nodes.Template:
        """The template as Jinja reads it."""
        return self._environment.parse(self.source)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        generation_prompt: bool,
        where: str = "",
    ) -> str:
        """The text of a conversation, with the opening of the next answer when `generation_prompt` is set.

        Raises:
            ModelError: template/broken, when the template refuses the messages or fails; template/limit, when it
                asks for more time or memory than any honest one.
        """
        given = {
            "messages": list(messages),
            "tools": list(tools) or None,
            "documents": None,
            "add_generation_prompt": generation_prompt,
            **self._special_tokens,
        }
        try:
            return self._environment.rendered(self._template, given)
        except LimitError as error:
            raise ModelError(
                Problem(
                    "template/limit",
                    f"the chat template ({self.name}) was stopped: {error}",
                    where=where,
                    found=_roles(messages),
                    fix="read the template before you use it; name another with `model.template`",
                )
            ) from error
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise ModelError(
                Problem(
                    "template/broken",
                    f"the chat template ({self.name}) refused a conversation: {error}",
                    where=where,
                    found=_roles(messages),
                    fix="mend the row, or choose another template with `model.template`",
                )
            ) from error


def _invalid(name: str, error: Exception) -> ModelError:
    code = "template/limit" if isinstance(error, LimitError) else "template/broken"
    line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
    return ModelError(Problem(code, "the chat template is not valid", where=name + line, found=str(error)))


def _roles(messages: Sequence[Mapping[str, Any]]) -> str:
    roles = " ".join(str(m["role"]) for m in messages)
    return f"roles: {roles or 'none, since the conversation begins with an answer'}"


def _read(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(4 * MAX_SOURCE + 1)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(data) > 4 * MAX_SOURCE:
            return "x" * len(data)  # Cut inside a character, and too long in any case.
        raise _invalid(path.name, error) from error


def as_mapping(message: Message, show: Callable[[str], str] = str) -> dict[str, Any]:
    """A message as templates read it; `show` is applied to every text in it."""
    mapping: dict[str, Any] = {"role": message.role, "content": show(message.content)}
    if message.thinking is not None:
        # Both spellings are in use among published templates.
        mapping["reasoning_content"] = mapping["thinking"] = show(message.thinking)
    if message.tool_calls:
        mapping["tool_calls"] = [_shown(call, show) for call in message.tool_calls]
    if message.name is not None:
        mapping["name"] = show(message.name)
    if message.tool_call_id is not None:
        mapping["tool_call_id"] = show(message.tool_call_id)
    return mapping


def shown(value: Any, show: Callable[[str], str]) -> Any:
    """The value with `show` applied to every string in it, keys too: templates write them out as they do values."""
    return _shown(value, show)


def _shown(value: Any, show: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return show(value)
    if isinstance(value, Mapping):
        return {_shown(key, show): _shown(item, show) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(item, show) for item in value]
    return value
