"""Messages to text: the one place where a chat template is rendered, for training, sampling and serving alike.

The template is the tokenizer's own, unedited, or one that the recipe names and that is then saved with the model.
It runs in Jinja's immutable sandbox with the few names that chat templates rely on, as `transformers` does, so that
what is rendered here is what a server renders.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tutelage.errors import ModelError, Problem
from tutelage.types import Message

NAMED = ("alpaca", "chatml")


class _Generation(Extension):
    """`{% generation %}` blocks print what they hold; the spans they mark are not needed."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A chat template ready to render."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], *, name: str) -> None:
        """Compile the template; `name` is what the user is told it is.

        Raises:
            ModelError: template/broken, when it is not a valid template.
        """
        self.source = source
        self.name = name
        self._special_tokens = dict(special_tokens)
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(
                Problem("template/broken", "the chat template is not valid", where=name, found=str(error))
            ) from error

    @classmethod
    def named(cls, name: str, special_tokens: Mapping[str, str]) -> ChatTemplate:
        """One of the templates that ship with Tutelage, or a .jinja file.

        Raises:
            ModelError: template/missing, when there is no such template.
        """
        if name in NAMED:
            text = resources.files("tutelage.data").joinpath("templates", f"{name}.jinja").read_text("utf-8")
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
        return cls(path.read_text("utf-8"), special_tokens, name=path.name)

    @property
    def sha256(self) -> str:
        """Identity of the template's text."""
        return hashlib.sha256(self.source.encode()).hexdigest()

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
            ModelError: template/broken, when the template refuses the messages or fails.
        """
        try:
            return self._template.render(
                messages=list(messages),
                tools=list(tools) or None,
                documents=None,
                add_generation_prompt=generation_prompt,
                **self._special_tokens,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            roles = " ".join(str(m["role"]) for m in messages)
            raise ModelError(
                Problem(
                    "template/broken",
                    f"the chat template ({self.name}) refused a conversation: {error}",
                    where=where,
                    found=f"roles: {roles or 'none, since the conversation begins with an answer'}",
                    fix="mend the row, or choose another template with `model.template`",
                )
            ) from error


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
    return mapping


def shown(value: Any, show: Callable[[str], str]) -> Any:
    """The value with `show` applied to every string in it, keys left alone."""
    return _shown(value, show)


def _shown(value: Any, show: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return show(value)
    if isinstance(value, Mapping):
        return {key: _shown(item, show) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(item, show) for item in value]
    return value


def _environment() -> ImmutableSandboxedEnvironment:
    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # Jinja's own filter escapes HTML, which no chat template wants.
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment
