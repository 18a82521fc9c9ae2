"""Demonstrations to examples: token ids, and the weight with which each is predicted. Spans, never searches.

For each trained assistant message the *prompt* is what the server would build (everything before it, rendered with
the generation prompt) and is encoded as the server encodes it. The *completion* is what the template writes after
that prompt, up to and including its stop token; it is encoded by itself and appended, so no token straddles the
boundary. Turns of one conversation share a sequence if, and only if, each longer prompt begins with the shorter
prompt and its completion, id for id; otherwise they become examples of their own.

                 prompt 1              completion 1     prompt 2 (begins with both)        completion 2
    <|user|> Hi <|assistant|>   Hello!<|end|>   \\n<|user|> Bye <|assistant|>   See you.<|end|>
    0 0 0 0 0 0 0 0 0 0 0 0 0   1 1 1 1         0 0 0 0 0 0 0 0 0 0 0 0 0 0     1 1 1 1
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from tutelage.data.template import ChatTemplate, as_mapping, shown
from tutelage.data.tokenizer import Tokenizer
from tutelage.errors import ModelError, Problem, TutelageError
from tutelage.types import Completion, Conversation, Demonstration, Document, Example, Message, Origin

_STAND_IN = "\U0010fff0"
"""Stands for an answer while the template is asked what it writes after one."""


@dataclass(frozen=True, slots=True)
class OverLong:
    """A row with an example longer than the limit: its origin and the length, in tokens."""

    origin: Origin
    length: int


@dataclass(slots=True)
class _Turn:
    """One trained answer, as text and then as ids."""

    prompt: str
    completion: str
    weight: float
    last: int
    """Index of the answer among the messages."""
    prompt_ids: list[int] = field(default_factory=list)
    completion_ids: list[int] = field(default_factory=list)


class Encoder:
    """Renders and encodes; the same object serves training, evaluation and chat."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.notices: Counter[str] = Counter()
        """What happened to rows that stayed, by kind, for the ledger."""
        self.stop_ids: Counter[int] = Counter()
        """The token that ended each trained answer."""

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[dict[str, object]] = ()) -> list[int]:
        """The ids that a server sends to the model so that it answers these messages."""
        text = self._render(Conversation(Origin("", 0), tuple(messages), tools=tuple(tools)), len(messages))
        return self.tokenizer.encode_rendered([text])[0]

    def encode(
        self,
        demonstrations: Iterable[Demonstration],
        *,
        max_length: int,
        trim: bool = False,
        batch: int = 512,
    ) -> Iterator[list[Example] | OverLong | Problem]:
        """For each demonstration its examples; or that it is over-long; or what is wrong with it.

        With `trim`, early turns leave the context until an over-long conversation fits; each answer is still
        trained once, whole.
        """
        pending: list[Demonstration] = []
        for demonstration in demonstrations:
            pending.append(demonstration)
            if len(pending) == batch:
                yield from self._encode_batch(pending, max_length, trim)
                pending = []
        yield from self._encode_batch(pending, max_length, trim)

    def _encode_batch(
        self, batch: Sequence[Demonstration], max_length: int, trim: bool
    ) -> Iterator[list[Example] | OverLong | Problem]:
        turns: list[list[_Turn] | Problem] = []
        for demonstration in batch:
            try:
                turns.append(self._turns(demonstration) if isinstance(demonstration, Conversation) else [])
            except TutelageError as error:
                turns.append(error.problems[0])
        self._encode_turns([turn for row in turns if isinstance(row, list) for turn in row])
        for demonstration, row in zip(batch, turns, strict=True):
            if isinstance(row, Problem):
                yield row
                continue
            try:
                yield self._assemble(demonstration, row, max_length, trim)
            except TutelageError as error:
                yield error.problems[0]

    def _assemble(
        self, demonstration: Demonstration, turns: list[_Turn], max_length: int, trim: bool
    ) -> list[Example] | OverLong | Problem:
        if isinstance(demonstration, Conversation):
            examples = self._sequences(demonstration, turns)
            if trim and len(turns) > 1 and max(map(len, examples)) > max_length:
                examples = self._windows(demonstration, [turn.last for turn in turns], max_length)
        elif isinstance(demonstration, Completion):
            examples = [self._completion(demonstration)]
        else:
            examples = [self._document(demonstration)]
        longest = max(map(len, examples))
        if longest > max_length:
            return OverLong(demonstration.origin, longest)
        if not any(example.supervised for example in examples):
            return Problem(
                "data/nothing-trained",
                "a row has no token with a positive weight",
                where=str(demonstration.origin),
                found=f"{sum(map(len, examples))} tokens, all with weight 0",
                fix="remove the row or give an answer a positive weight",
            )
        for example in examples:
            self._count_stops(example)
        return [example for example in examples if example.supervised]

    def _turns(self, conversation: Conversation) -> list[_Turn]:
        turns = []
        for index, message in enumerate(conversation.messages):
            if message.role == "assistant" and message.trained > 0:
                prompt = self._render(conversation, index)
                whole = self._render(conversation, index + 1)
                completion = self._after(prompt, whole, message, conversation.origin)
                weight = message.trained * conversation.weight
                turns.append(_Turn(prompt, completion, weight, index))
        return turns

    def _render(self, conversation: Conversation, end: int) -> str:
        """The first `end` messages; ready for an answer, unless an answer is the last of them."""
        assert self.template is not None, "bug: a conversation reached the encoder of a model without a template"
        messages = conversation.messages[:end]
        mappings = []
        for message in messages:
            written_by_others = message.role != "assistant"
            show = partial(self.tokenizer.disguise, all_control=written_by_others)
            mappings.append(as_mapping(message, show))
        tools = shown(conversation.tools, partial(self.tokenizer.disguise, all_control=True))
        answered = bool(messages) and messages[-1].role == "assistant"
        return self.template.render(
            mappings, tools=tools, generation_prompt=not answered, where=str(conversation.origin)
        )

    def _after(self, prompt: str, whole: str, answer: Message, origin: Origin) -> str:
        """What the template writes after the prompt: the answer, its stop token, and whatever follows."""
        if whole.startswith(prompt):
            return whole[len(prompt) :]
        # The generation prompt opens something (a thinking block, say) that the finished turn does not hold.
        # The server will have sent it, so the answer follows it as it stands in the data.
        self.notices["the generation prompt is not part of the finished turn"] += 1
        content = answer.content
        if answer.thinking is not None:
            content = f"{answer.thinking}</think>{content}"
        content = content.removeprefix("<think>").lstrip("\n") if prompt.rstrip().endswith("<think>") else content
        return self.tokenizer.disguise(content, all_control=False) + self._tail

    @cached_property
    def _tail(self) -> str:
        """What the template writes after an answer that is the last message."""
        assert self.template is not None
        probe = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _STAND_IN}]
        return self.template.render(probe, generation_prompt=False).rpartition(_STAND_IN)[2]

    @cached_property
    def template_stop_id(self) -> int:
        """Id of the token that the template writes after an answer.

        Raises:
            ModelError: template/no-stop-token, when it writes none before the next turn begins.
        """
        assert self.template is not None
        for id in self.tokenizer.encode_rendered([self._tail])[0]:
            if id in self.tokenizer.control_ids:
                return id
        probe = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": _STAND_IN},
            {"role": "user", "content": "?"},
        ]
        following = self.template.render(probe, generation_prompt=True).rpartition(_STAND_IN)[2]
        raise ModelError(
            Problem(
                "template/no-stop-token",
                "the chat template writes no stop token after an answer",
                where=self.template.name,
                found=f"after an answer comes {self._tail!r}; before the next turn, {following[:40]!r}",
                why="a model trained on it would never learn to stop",
                fix=f"expected {self.tokenizer.special_tokens.get('eos_token')!r}: name another template, "
                "as in model.template=chatml",
            )
        )

    def _encode_turns(self, turns: Sequence[_Turn]) -> None:
        prompts = self.tokenizer.encode_rendered([turn.prompt for turn in turns])
        completions = self.tokenizer.encode_rendered([turn.completion for turn in turns])
        joint = (
            self.tokenizer.encode_rendered([turn.prompt + turn.completion for turn in turns])
            if self.tokenizer.adds_leading_space
            else completions
        )
        for turn, prompt, completion, both in zip(turns, prompts, completions, joint, strict=True):
            if self.tokenizer.adds_leading_space and both[: len(prompt)] == prompt:
                completion = both[len(prompt) :]
            turn.prompt_ids = prompt
            turn.completion_ids = completion[: self._stop(completion) + 1]

    def _stop(self, completion: Sequence[int]) -> int:
        """Index of the stop token: the template's own where it occurs last, else the last control token."""
        expected = self.template_stop_id
        control = [i for i, id in enumerate(completion) if id in self.tokenizer.control_ids]
        usual = [i for i in control if completion[i] == expected]
        if not control:
            raise ModelError(
                Problem(
                    "template/no-stop-token",
                    "the chat template leaves out the stop token after some answers",
                    where="" if self.template is None else self.template.name,
                    found=f"an answer that ends in {self.tokenizer.decode(completion[-8:])!r}",
                    fix="name another template, as in model.template=chatml",
                )
            )
        return (usual or control)[-1]

    def _sequences(self, conversation: Conversation, turns: Sequence[_Turn]) -> list[Example]:
        """Turns joined as long as each prompt begins with all that came before it."""
        examples: list[Example] = []
        ids: list[int] = []
        weights: list[float] = []
        for turn in turns:
            if ids and turn.prompt_ids[: len(ids)] != ids:
                examples.append(_example(conversation.origin, ids, weights))
                ids, weights = [], []
                self.notices["turns split: the template does not keep earlier turns as they were"] += 1
            weights = weights + [0.0] * (len(turn.prompt_ids) - len(ids)) + [turn.weight] * len(turn.completion_ids)
            ids = turn.prompt_ids + turn.completion_ids
        if ids:
            examples.append(_example(conversation.origin, ids, weights))
        return examples or [_example(conversation.origin, [], [])]

    def _windows(self, conversation: Conversation, answers: Sequence[int], max_length: int) -> list[Example]:
        """Each answer once, whole, with as many of the turns before it as fit."""
        first = next((i for i, m in enumerate(conversation.messages) if m.role != "system"), 0)
        examples: list[Example] = []
        start, done = first, 0
        while done < len(answers):
            fitting: list[Example] = []
            count = 0
            for upto in range(len(answers), done, -1):
                fitting = self._window(conversation, start, answers[done:upto])
                count = upto - done
                if max(map(len, fitting)) <= max_length:
                    break
            if max(map(len, fitting)) > max_length:
                later = [i for i in range(start + 1, answers[done]) if conversation.messages[i].role == "user"]
                if not later:
                    return fitting
                start = later[0]
                continue
            if start > first:
                self.notices["early turns left out of the context"] += 1
            examples.extend(fitting)
            done += count
        return examples

    def _window(self, conversation: Conversation, start: int, answers: Sequence[int]) -> list[Example]:
        head = [m for m in conversation.messages[:start] if m.role == "system"]
        body = [
            m if i in answers or m.role != "assistant" else _silenced(m)
            for i, m in enumerate(conversation.messages[: answers[-1] + 1])
        ][start:]
        part = Conversation(conversation.origin, (*head, *body), conversation.weight, conversation.tools)
        turns = self._turns(part)
        self._encode_turns(turns)
        return self._sequences(part, turns)

    def _completion(self, row: Completion) -> Example:
        prompt = self.tokenizer.encode_text(row.prompt)
        completion = self._plain(row.prompt, prompt, row.completion)
        weights = [0.0] * len(prompt) + [row.weight] * len(completion)
        return _example(row.origin, prompt + completion, weights)

    def _plain(self, prompt: str, prompt_ids: Sequence[int], completion: str) -> list[int]:
        disguised = self.tokenizer.disguise(completion, all_control=False)
        ids = self.tokenizer.encode_rendered([disguised])[0]
        if self.tokenizer.adds_leading_space:
            joint = self.tokenizer.encode_text(prompt + completion)
            if joint[: len(prompt_ids)] == list(prompt_ids):
                ids = joint[len(prompt_ids) :]
        return [*ids, self._eos()]

    def _document(self, row: Document) -> Example:
        ids = [*self.tokenizer.encode_text(row.text), self._eos()]
        return _example(row.origin, ids, [0.0] + [row.weight] * (len(ids) - 1))

    def _eos(self) -> int:
        if self.tokenizer.eos_id is None:
            raise ModelError(
                Problem(
                    "template/no-stop-token",
                    "the tokenizer has no end-of-sequence token, so plain text could never end",
                    fix="name a chat template with `model.template`",
                )
            )
        return self.tokenizer.eos_id

    def _count_stops(self, example: Example) -> None:
        """Each trained span's last token is a stop token."""
        trained = example.weights > 0
        ends = trained & ~np.append(trained[1:], False)
        self.stop_ids.update(int(id) for id in example.input_ids[ends])


def _silenced(message: Message) -> Message:
    return Message(message.role, message.content, 0.0, message.thinking, message.tool_calls, message.name)


def _example(origin: Origin, ids: Sequence[int], weights: Sequence[float]) -> Example:
    array = np.asarray(weights, dtype=np.float32)
    if len(array):
        array[0] = 0.0
    trained = np.flatnonzero(array)
    return Example(np.asarray(ids, dtype=np.int32), array, origin, int(trained[0]) if len(trained) else len(array))
