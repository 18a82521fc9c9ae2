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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

from tutelage.data.encode import clock
from tutelage.data.encode.render import STAND_IN, Renderer, Turn
from tutelage.data.encode.sequences import Sequences, example
from tutelage.data.encode.template import ChatTemplate
from tutelage.data.encode.tokenizer import Tokenizer
from tutelage.data.encode.trim import Trimmer, trim_completion
from tutelage.errors import DataError, ModelError, Problem, TutelageError
from tutelage.types import Completion, Conversation, Demonstration, Document, Example, Message, Origin

EARLY_NOTICE = "early turns left out of the context"
CUT_NOTICE = "the middle of a message of the prompt left out"
SPLIT_NOTICE = "turns split: the template does not keep earlier turns as they were"
_MOST_BEYOND_LIMITS = 3


@dataclass(frozen=True, slots=True)
class OverLong:
    """A row with an example longer than the limit: its origin and the length, in tokens."""

    origin: Origin
    length: int


class Encoder:
    """Renders and encodes; the same object serves training, evaluation and chat."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None, *, thinking_weight: float = 1.0) -> None:
        """Take what renders and encodes; `thinking_weight` multiplies the weight of what an answer thinks."""
        self.tokenizer = tokenizer
        self.template = template
        self.notices: Counter[str] = Counter()
        """What happened to rows that stayed, by kind, for the ledger."""
        self.stop_ids: Counter[int] = Counter()
        """The token that ended each trained answer."""
        self._sequences = Sequences(tokenizer, thinking_weight)
        self._beyond_limits = 0
        self._dated = None
        if template is not None and (template.uses_clock or template.uses_chance):
            what = f"the date; these hold {clock.now().date()}" if template.uses_clock else "what it draws at random"
            self._dated = f"the chat template writes {what}, as it does where the model is served"

    @cached_property
    def _renderer(self) -> Renderer:
        assert self.template is not None, "bug: a conversation reached the encoder of a model without a template"
        return Renderer(self.tokenizer, self.template)

    def take_up(self) -> None:
        """Know that rows were rendered before, by a process that can no longer be asked how."""
        if self.template is not None:
            self._renderer.unchecked = True

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

        With `trim`, early turns leave the context until an over-long conversation fits, then the middle of a
        message of the prompt; each answer is still trained once, whole.

        Raises:
            ModelError: template/missing, template/no-stop-token, template/limit, where the model's template serves
                for no row.
        """
        waiting: tuple[list[Demonstration], list[list[Turn] | Problem], Future[None]] | None = None
        with ThreadPoolExecutor(1) as encoding:
            for rows in self._batches(demonstrations, batch):
                turns = self._render_batch(rows)
                if len(rows) < batch and waiting is None:
                    self._encode_rows(turns)
                    yield from self._finish(rows, turns, max_length, trim)
                    return
                # The tokenizer lets other threads run, so the next rows are rendered while these are encoded.
                encoded = encoding.submit(self._encode_rows, turns)
                if waiting is not None:
                    waiting[2].result()
                    yield from self._finish(waiting[0], waiting[1], max_length, trim)
                waiting = rows, turns, encoded
            if waiting is not None:
                waiting[2].result()
                yield from self._finish(waiting[0], waiting[1], max_length, trim)

    def _batches(self, demonstrations: Iterable[Demonstration], size: int) -> Iterator[list[Demonstration]]:
        batch: list[Demonstration] = []
        for demonstration in demonstrations:
            if isinstance(demonstration, Conversation):
                self._check_template(demonstration.origin)
            batch.append(demonstration)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _render_batch(self, batch: Sequence[Demonstration]) -> list[list[Turn] | Problem]:
        turns: list[list[Turn] | Problem] = []
        for demonstration in batch:
            try:
                turns.append(self._renderer.turns(demonstration) if isinstance(demonstration, Conversation) else [])
            except TutelageError as error:
                self._stop_if_hostile(error)
                turns.append(error.problems[0])
        return turns

    def _stop_if_hostile(self, error: TutelageError) -> None:
        """A template that goes past its limits again and again would do so for hours."""
        self._beyond_limits += error.code == "template/limit"
        if self._beyond_limits == _MOST_BEYOND_LIMITS:
            raise error

    def _finish(
        self, batch: Sequence[Demonstration], turns: Sequence[list[Turn] | Problem], max_length: int, trim: bool
    ) -> Iterator[list[Example] | OverLong | Problem]:
        for demonstration, row in zip(batch, turns, strict=True):
            try:
                result = row if isinstance(row, Problem) else self._assemble(demonstration, row, max_length, trim)
            except TutelageError as error:
                self._stop_if_hostile(error)
                result = error.problems[0]
            if isinstance(result, Problem) and not result.where:  # The tokenizer knows nothing of rows.
                result = replace(result, where=str(demonstration.origin))
            yield result

    def _assemble(
        self, demonstration: Demonstration, turns: list[Turn], max_length: int, trim: bool
    ) -> list[Example] | OverLong | Problem:
        notices = Counter[str]()
        if isinstance(demonstration, Conversation):
            examples = self._conversation(demonstration, turns, max_length, trim, notices)
        elif isinstance(demonstration, Completion):
            examples = [self._completion(demonstration)]
            if trim and len(examples[0]) > max_length:
                shorter = trim_completion(demonstration, lambda row: len(self._completion(row)), max_length)
                if shorter is not None:
                    examples = [self._completion(shorter)]
                    notices[CUT_NOTICE] += 1
        else:
            examples = [self._document(demonstration)]
        longest = max(map(len, examples))
        if longest > max_length:
            return OverLong(demonstration.origin, longest)
        trained = [example for example in examples if example.weights.any()]
        if not trained:
            return Problem(
                "data/nothing-trained",
                "a row has no token with a positive weight",
                where=str(demonstration.origin),
                found=f"{sum(map(len, examples))} tokens, all with weight 0",
                fix="remove the row or give an answer a positive weight",
            )
        self.notices.update(notices)
        if isinstance(demonstration, Conversation):
            self.stop_ids.update(turn.completion_ids[-1] for turn in turns if turn.weight > 0)
        else:
            self.stop_ids[int(trained[0].input_ids[-1])] += 1
        return trained

    def _conversation(
        self, row: Conversation, turns: list[Turn], max_length: int, trim: bool, notices: Counter[str]
    ) -> list[Example]:
        stop_id = self.template_stop_id
        examples = self._sequences.joined(turns, row.origin, stop_id)
        if trim and turns and max(map(len, examples)) > max_length:
            trimmed = Trimmer(self._encoded, max_length).trim(row, [turn.last for turn in turns])
            examples = trimmed.examples
            notices.update([EARLY_NOTICE] * trimmed.early + [CUT_NOTICE] * trimmed.cut)
        elif len(examples) > 1:
            notices[SPLIT_NOTICE] += len(examples) - 1
        for turn in turns:
            if turn.notice:
                notices[turn.notice] += 1
        for marker in self._renderer.markers_in(row):
            notices[f"a message holds {marker!r}, with which the template marks a turn as plain text"] += 1
        if self._dated is not None:
            notices[self._dated] += 1
        return examples

    def _encoded(self, conversation: Conversation) -> list[Example]:
        turns = self._renderer.turns(conversation)
        self._encode_turns(turns)
        return self._sequences.joined(turns, conversation.origin, self.template_stop_id)

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

    def _encode_rows(self, rows: list[list[Turn] | Problem]) -> None:
        """Encode the turns of all at once; where the tokenizer gives up on a row, the problem takes its place."""
        try:
            self._encode_turns([turn for row in rows if isinstance(row, list) for turn in row])
        except DataError:
            for index, row in enumerate(rows):
                try:
                    self._encode_turns(row if isinstance(row, list) else [])
                except DataError as error:
                    rows[index] = error.problems[0]

    def _encode_turns(self, turns: Sequence[Turn]) -> None:
        if not turns:
            return
        prompts = [turn.prompt for turn in turns]
        completions = [turn.completion for turn in turns]
        if self.tokenizer.adds_leading_space:
            prompt_ids = self.tokenizer.encode_rendered(prompts)
            completion_ids = self.tokenizer.encode_after(prompts, prompt_ids, completions)
        else:  # One call keeps all cores at work.
            every = self.tokenizer.encode_rendered(prompts + completions)
            prompt_ids, completion_ids = every[: len(turns)], every[len(turns) :]
        for turn, prompt, completion in zip(turns, prompt_ids, completion_ids, strict=True):
            turn.prompt_ids, turn.completion_ids = prompt, completion

    def _completion(self, row: Completion) -> Example:
        prompt, completion = (self.tokenizer.disguise(t, all_control=False) for t in (row.prompt, row.completion))
        plain = self.tokenizer.encode_rendered([prompt])
        ids = self.tokenizer.encode_after([prompt], plain, [completion])[0] + [self._eos()]
        before = self.tokenizer.opening + plain[0]
        return example(row.origin, before + ids, [(len(before), len(before) + len(ids), row.weight)])

    def _document(self, row: Document) -> Example:
        ids = [*self.tokenizer.encode_text(row.text), self._eos()]
        return example(row.origin, ids, [(1, len(ids), row.weight)])

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
