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

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tutelage.data.render import STAND_IN, Renderer, Turn
from tutelage.data.template import ChatTemplate
from tutelage.data.tokenizer import Tokenizer
from tutelage.errors import ModelError, Problem, TutelageError
from tutelage.types import Completion, Conversation, Demonstration, Document, Example, Message, Origin


@dataclass(frozen=True, slots=True)
class OverLong:
    """A row with an example longer than the limit: its origin and the length, in tokens."""

    origin: Origin
    length: int


class Encoder:
    """Renders and encodes; the same object serves training, evaluation and chat."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.notices: Counter[str] = Counter()
        """What happened to rows that stayed, by kind, for the ledger."""
        self.stop_ids: Counter[int] = Counter()
        """The token that ended each trained answer."""

    @cached_property
    def _renderer(self) -> Renderer:
        assert self.template is not None, "bug: a conversation reached the encoder of a model without a template"
        return Renderer(self.tokenizer, self.template)

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[dict[str, object]] = ()) -> list[int]:
        """The ids that a server sends to the model so that it answers these messages."""
        conversation = Conversation(Origin("", 0), tuple(messages), tools=tuple(tools))
        text = self._renderer.render(conversation, len(messages), generation_prompt=True)
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

        Raises:
            ModelError: template/missing, template/no-stop-token, where the model's template serves for no row.
        """
        pending: list[Demonstration] = []
        for demonstration in demonstrations:
            if isinstance(demonstration, Conversation):
                self._check_template(demonstration.origin)
            pending.append(demonstration)
            if len(pending) == batch:
                yield from self._encode_batch(pending, max_length, trim)
                pending = []
        yield from self._encode_batch(pending, max_length, trim)

    def _encode_batch(
        self, batch: Sequence[Demonstration], max_length: int, trim: bool
    ) -> Iterator[list[Example] | OverLong | Problem]:
        turns: list[list[Turn] | Problem] = []
        for demonstration in batch:
            try:
                turns.append(self._renderer.turns(demonstration) if isinstance(demonstration, Conversation) else [])
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
        self, demonstration: Demonstration, turns: list[Turn], max_length: int, trim: bool
    ) -> list[Example] | OverLong | Problem:
        if isinstance(demonstration, Conversation):
            examples = self._sequences(demonstration, turns)
            notices = ["turns split: the template does not keep earlier turns as they were"] * (len(examples) - 1)
            if trim and turns and max(map(len, examples)) > max_length:
                examples = self._windows(demonstration, [turn.last for turn in turns], max_length)
                notices = ["early turns left out of the context"]
        elif isinstance(demonstration, Completion):
            examples, notices = [self._completion(demonstration)], []
        else:
            examples, notices = [self._document(demonstration)], []
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
        self.notices.update([*notices, *(turn.notice for turn in turns if turn.notice)])
        for example in examples:
            self._count_stops(example)
        return [example for example in examples if example.supervised]

    @cached_property
    def template_stop_id(self) -> int:
        """Id of the token that the template writes after an answer.

        Raises:
            ModelError: template/no-stop-token, when it writes none before the next turn begins.
        """
        assert self.template is not None
        for id in self.tokenizer.encode_rendered([self._renderer.tail])[0]:
            if id in self.tokenizer.control_ids:
                return id
        probe = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": STAND_IN},
            {"role": "user", "content": "?"},
        ]
        following = self.template.render(probe, generation_prompt=True).rpartition(STAND_IN)[2]
        raise ModelError(
            Problem(
                "template/no-stop-token",
                "the chat template writes no stop token after an answer",
                where=self.template.name,
                found=f"after an answer comes {self._renderer.tail!r}; before the next turn, {following[:40]!r}",
                why="a model trained on it would never learn to stop",
                fix=f"expected {self.tokenizer.special_tokens.get('eos_token')!r}: name another template, "
                "as in model.template=chatml",
            )
        )

    def _check_template(self, origin: Origin) -> None:
        if self.template is None:
            raise ModelError(
                Problem(
                    "template/missing",
                    "the model has no chat template, and the rows are conversations",
                    where=str(origin),
                    fix="model.template=alpaca, or model.template=chatml where the vocabulary holds its tokens",
                )
            )
        _ = self.template_stop_id

    def _encode_turns(self, turns: Sequence[Turn]) -> None:
        if not turns:
            return
        prompts = [turn.prompt for turn in turns]
        completions = [turn.completion for turn in turns]
        prompt_ids = self.tokenizer.encode_rendered(prompts)
        completion_ids = self.tokenizer.encode_after(prompts, prompt_ids, completions)
        for turn, prompt, completion in zip(turns, prompt_ids, completion_ids, strict=True):
            turn.prompt_ids, turn.completion_ids = prompt, completion

    def _to_stop(self, completion: list[int], origin: Origin) -> list[int]:
        """The completion up to its stop token: the template's own where there is one, else the last control token."""
        control = [i for i, id in enumerate(completion) if id in self.tokenizer.control_ids]
        usual = [i for i in control if completion[i] == self.template_stop_id]
        end = (usual or control or [-1])[-1]
        if end < 0 or (not usual and self.tokenizer.decode(completion[end + 1 :]).strip()):
            raise ModelError(
                Problem(
                    "template/no-stop-token",
                    "the chat template writes no stop token after this answer",
                    where=str(origin),
                    found=f"an answer that ends in {self.tokenizer.decode(completion[-8:])!r}",
                    fix="name another template, as in model.template=chatml",
                )
            )
        return completion[: end + 1]

    def _sequences(self, conversation: Conversation, turns: Sequence[Turn]) -> list[Example]:
        """Turns joined as long as each prompt begins with all that came before it."""
        examples: list[Example] = []
        ids: list[int] = []
        weights: list[float] = []
        for turn in turns:
            if ids and turn.prompt_ids[: len(ids)] != ids:
                examples.append(_example(conversation.origin, ids, weights))
                ids, weights = [], []
            completion = self._to_stop(turn.completion_ids, conversation.origin)
            weights = weights + [0.0] * (len(turn.prompt_ids) - len(ids)) + [turn.weight] * len(completion)
            ids = turn.prompt_ids + completion
        if ids:
            examples.append(_example(conversation.origin, ids, weights))
        return examples or [_example(conversation.origin, [], [])]

    def _windows(self, conversation: Conversation, answers: Sequence[int], max_length: int) -> list[Example]:
        """Each answer once, whole, with as many of the turns before it as fit; a window begins with a user's turn."""
        roles = [message.role for message in conversation.messages]
        first = next((i for i, role in enumerate(roles) if role != "system"), 0)
        starts = [first, *(i for i, role in enumerate(roles) if role == "user" and i > first)]
        examples: list[Example] = []
        start, done = first, 0

        def fits(start: int, upto: int) -> bool:
            window = self._window(conversation, start, answers[done:upto])
            return max(map(len, window)) <= max_length

        while done < len(answers):
            # A window is shorter the later it starts, and longer the more answers it holds.
            before = [place for place in starts if start <= place <= answers[done]]
            chosen = bisect_left(before, True, key=lambda start: fits(start, done + 1))
            if chosen == len(before):
                return self._window(conversation, before[-1], answers[done : done + 1])
            start = before[chosen]
            upto = done + 1
            while upto < len(answers) and fits(start, upto + 1):
                upto += 1
            examples.extend(self._window(conversation, start, answers[done:upto]))
            done = upto
        return examples

    def _window(self, conversation: Conversation, start: int, answers: Sequence[int]) -> list[Example]:
        """The named answers, with the system messages and the turns from `start` before them."""
        messages = conversation.messages
        head = [message for message in messages[:start] if message.role == "system"]
        body = [
            message if index in answers else replace(message, weight=0.0)
            for index, message in enumerate(messages[start : answers[-1] + 1], start)
        ]
        part = replace(conversation, messages=(*head, *body))
        turns = self._renderer.turns(part)
        self._encode_turns(turns)
        return self._sequences(part, turns)

    def _completion(self, row: Completion) -> Example:
        prompt, completion = (self.tokenizer.disguise(t, all_control=False) for t in (row.prompt, row.completion))
        plain = self.tokenizer.encode_rendered([prompt])
        ids = self.tokenizer.encode_after([prompt], plain, [completion])[0] + [self._eos()]
        before = self.tokenizer.opening + plain[0]
        return _example(row.origin, before + ids, [0.0] * len(before) + [row.weight] * len(ids))

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


def _example(origin: Origin, ids: Sequence[int], weights: Sequence[float]) -> Example:
    array = np.asarray(weights, dtype=np.float32)
    if len(array):
        array[0] = 0.0
    trained = np.flatnonzero(array)
    return Example(np.asarray(ids, dtype=np.int32), array, origin, int(trained[0]) if len(trained) else len(array))
