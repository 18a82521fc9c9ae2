"""A model in this process, as tasks are asked of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from tutelage.generate.generation import Prompt, Writer
from tutelage.generate.local import Local, prompt_ids
from tutelage.tasks.asked import Asked

if TYPE_CHECKING:
    from tutelage.data.encode import Encoder
    from tutelage.models.forward import Forward

IN_FLIGHT = 64
"""Answers written at once."""


class Resident:
    """A loaded model with what renders its prompts."""

    def __init__(
        self,
        forward: Forward,
        encoder: Encoder,
        *,
        stop_ids: Collection[int],
        plain: bool = False,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        """Take the model; with `plain` it is asked in plain text also where there is a chat template."""
        self.local = Local(forward, encoder, stop_ids=stop_ids, in_flight=in_flight)
        self.as_text = plain or encoder.template is None

    def writer(self) -> Writer:
        """The model with our own engine."""
        return self.local

    def prompt(self, asked: Asked, name: str) -> Prompt:
        """Messages where it has a chat template, text where it has none."""
        return Prompt(asked.text() if self.as_text else asked.messages, row=name)

    def continuations(self, asked: Asked) -> list[tuple[int, ...]]:
        """Each option by itself after a template's prompt, after a space in plain text."""
        tokenizer = self.local.encoder.tokenizer
        ids = prompt_ids(self.prompt(asked, ""), self.local.encoder)
        space = " " if self.as_text and not asked.text()[-1:].isspace() else ""
        before = tokenizer.decode(ids)
        texts = [tokenizer.disguise(space + option, all_control=False) for option in asked.options]
        several = tokenizer.encode_after([before] * len(texts), [ids] * len(texts), texts)
        return [tuple(one) for one in several]
