"""Each trained answer of a conversation as text: the prompt that a server builds, and what follows it.

What follows is what the template writes after that prompt. Where the template writes a finished turn otherwise than
its generation prompt begins one (it takes the thinking out of it, say), the prompt stands as it is, since the server
will have sent it, and the answer follows as it stands in the data.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from tutelage.data.encode.skeleton import Skeleton, Unsteady, skeleton, stand_ins, traceable
from tutelage.data.encode.template import ChatTemplate, as_mapping, shown
from tutelage.data.encode.tokenizer import Tokenizer
from tutelage.errors import ModelError, Problem
from tutelage.types import Conversation, Message

STAND_IN = "\U0010fff0"
"""Stands for an answer while the template is asked what it writes after one."""
_OPEN, _CLOSE = "<think>", "</think>"


_MARK = re.compile(r"[^\W_]\s*[^\w\s]|[^\w\s]\s*[^\W_]")
"""A letter beside punctuation: `USER:`, `### Response:`, `[INST]`; not `user`."""
_SHORTEST = 4
_LONGEST, _MOST_SHAPES = 16, 256
"""Messages of a conversation that is rendered by a skeleton, and how many skeletons are kept."""


@dataclass(slots=True)
class Turn:
    """One trained answer, as text and then as ids."""

    prompt: str
    completion: str
    weight: float
    last: int
    """Index of the answer among the messages."""
    notice: str = ""
    """What was done to the answer that the user should hear of."""
    thinking: str | None = None
    """What the answer thinks, where it says so in a field of its own."""
    prompt_ids: list[int] = field(default_factory=list)
    completion_ids: list[int] = field(default_factory=list)


class Renderer:
    """The template, with content kept out of the control tokens."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self.template = template
        self._tokenizer = tokenizer
        self._disguise = tokenizer.disguise
        self._skeletons: dict[tuple[tuple[str, bool], ...], Skeleton | None] = {}
        self.unchecked = False
        """Whether a conversation was given as its skeleton has it, without a look at what the template writes."""
        # What differs from one rendering to the next of the same messages has no skeleton.
        self._steady = not (template.uses_clock or template.uses_chance) and traceable(template.tree)

    def turns(self, conversation: Conversation) -> list[Turn]:
        """Each answer that is trained.

        Raises:
            ModelError: template/broken, when the template refuses the conversation or leaves out part of an answer.
        """
        turns = self._filled(conversation) if self._steady else None
        return self._rendered(conversation) if turns is None else turns

    def _filled(self, conversation: Conversation) -> list[Turn] | None:
        """The turns by the skeleton of conversations of this shape; None where there is none."""
        messages = conversation.messages
        if conversation.tools or len(messages) > _LONGEST or not all(map(_is_plain, messages)):
            return None
        shape = tuple([(message.role, message.trained > 0) for message in messages])
        if shape not in self._skeletons:
            if len(self._skeletons) >= _MOST_SHAPES:
                return None
            self._skeletons[shape] = self._skeleton(conversation)
        made = self._skeletons[shape]
        if made is None:
            return None
        disguise = self._disguise
        contents = [disguise(m.content, all_control=m.role in ("user", "tool")) for m in messages]
        if not made.conditions.met(contents):
            return None
        turns = [
            Turn(prompt.filled(contents), rest.filled(contents), messages[index].trained * conversation.weight, index)
            for index, prompt, rest in made.turns
        ]
        if not made.due:
            self.unchecked = True
        elif turns != self._rendered(conversation):
            self._steady = False
            if self.unchecked:
                raise Unsteady(self.template.name)
            return None
        return turns

    def _skeleton(self, conversation: Conversation) -> Skeleton | None:
        contents, seen = stand_ins(len(conversation.messages))
        mappings = [
            {"role": message.role, "content": content}
            for message, content in zip(conversation.messages, contents, strict=True)
        ]

        def render(end: int, generation_prompt: bool) -> str:
            return self.template.render(mappings[:end], generation_prompt=generation_prompt)

        trained = [i for i, m in enumerate(conversation.messages) if m.role == "assistant" and m.trained > 0]
        try:
            made = skeleton(trained, seen, render)
        except ModelError:
            return None  # The rows themselves say what is wrong.
        if made is not None:
            made.conditions.absent.add(_CLOSE)
        return made

    def _rendered(self, conversation: Conversation) -> list[Turn]:
        turns = []
        for index, message in enumerate(conversation.messages):
            if message.role == "assistant" and message.trained > 0:
                prompt = self.render(conversation, index, generation_prompt=True)
                completion, notice = self._after(prompt, conversation, index)
                weight = message.trained * conversation.weight
                turns.append(Turn(prompt, completion, weight, index, notice, message.thinking))
        return turns

    def render(self, conversation: Conversation, end: int, *, generation_prompt: bool) -> str:
        """The first `end` messages as text."""
        mappings = [as_mapping(message, self._show(message)) for message in conversation.messages[:end]]
        tools = shown(conversation.tools, partial(self._disguise, all_control=True))
        return self.template.render(
            mappings, tools=tools, generation_prompt=generation_prompt, where=str(conversation.origin)
        )

    def _show(self, message: Message) -> Callable[[str], str]:
        return partial(self._disguise, all_control=message.role in ("user", "tool"))

    def _after(self, prompt: str, conversation: Conversation, index: int) -> tuple[str, str]:
        """What follows the prompt (the answer, its stop token, and whatever comes then), and what to say about it."""
        answer = conversation.messages[index]
        show = self._show(answer)
        whole = self.render(conversation, index + 1, generation_prompt=False)
        if whole.startswith(prompt):
            completion = whole[len(prompt) :]
            lost = show(_thought(answer)) not in completion
            notice = "the thinking of an answer is left out: the template has no place for it" if lost else ""
        if not whole.startswith(prompt) or (lost and self._thinks):
            # The template takes the thinking out of finished turns, or opens it in the generation prompt alone. The
            # server will have sent the prompt as it is, so the answer follows it as it stands in the data.
            standing = replace(answer, content=STAND_IN, thinking=None)
            finished = replace(conversation, messages=(*conversation.messages[:index], standing))
            _, found, rest = self.render(finished, index + 1, generation_prompt=False).rpartition(STAND_IN)
            if not found:
                raise self._left_out("the content", conversation)
            completion = show(_written(answer, prompt)) + rest
            notice = "an answer follows its prompt as it stands in the data: the template writes it otherwise"
        if any(show(call["function"]["name"]) not in completion for call in answer.tool_calls):
            raise self._left_out("a tool call", conversation)
        if show(answer.content.rpartition(_CLOSE)[2].strip()) not in completion:
            if not answer.tool_calls:
                raise self._left_out("the content, or writes it otherwise,", conversation)
            notice = "what an answer says beside its tool calls is left out: the template writes only the calls"
        return completion, notice

    def markers_in(self, conversation: Conversation) -> list[str]:
        """The template's role markers that are plain text, and that a message of the prompt holds as well."""
        if not self._markers:
            return []
        texts = [message.content for message in conversation.messages if message.role != "assistant"]
        return [marker for marker in self._markers if any(marker in text for text in texts)]

    @cached_property
    def _markers(self) -> tuple[str, ...]:
        """What stands next to contents, is not a control token, and is more than a word that anybody writes."""
        roles = ("user", "assistant", "user", "assistant", "user")
        probe = [{"role": role, "content": STAND_IN} for role in roles]
        try:
            pieces = self.template.render(probe, generation_prompt=True).split(STAND_IN)
        except ModelError:
            return ()
        beside = {side for piece in pieces for side in self._tokenizer.sides(piece)}
        return tuple(sorted(side for side in beside if len(side) >= _SHORTEST and _MARK.search(side)))

    @property
    def _thinks(self) -> bool:
        """Whether the template knows of thinking."""
        return _CLOSE in self.template.source

    def _left_out(self, what: str, conversation: Conversation) -> ModelError:
        return ModelError(
            Problem(
                "template/broken",
                f"the chat template leaves out {what} of an answer",
                where=str(conversation.origin),
                found=self.template.name,
                fix="remove the row, or choose another template with `model.template`",
            )
        )

    @cached_property
    def tail(self) -> str:
        """What the template writes after an answer that is the last message."""
        probe = [{"role": "user", "content": "?"}, {"role": "assistant", "content": STAND_IN}]
        return self.template.render(probe, generation_prompt=False).rpartition(STAND_IN)[2]


def _is_plain(message: Message) -> bool:
    """Whether a message is its role and its content, and nothing else that a template could write."""
    return message.thinking is None and not message.tool_calls and message.name is message.tool_call_id is None


def _thought(answer: Message) -> str:
    """What the answer thinks aloud, in its own field or between marks in its content; empty where it does not."""
    if answer.thinking is not None:
        return answer.thinking.strip()
    return answer.content.rpartition(_CLOSE)[0].rpartition(_OPEN)[2].strip()


def _written(answer: Message, prompt: str) -> str:
    """The answer with its thinking as a model writes them after this prompt, which may have opened the thinking."""
    opened = prompt.rstrip().endswith(_OPEN)
    text = answer.content
    if answer.thinking is not None or (opened and _CLOSE not in text):
        text = f"{_OPEN}\n{(answer.thinking or '').strip()}\n{_CLOSE}\n\n{text}"
    if opened and text.startswith(_OPEN):
        text = text.removeprefix(_OPEN)
        return text.removeprefix("\n") if prompt.endswith("\n") else text
    return text
