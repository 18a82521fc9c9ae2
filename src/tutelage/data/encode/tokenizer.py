"""Text to token ids, exactly as a server does it, and with user text kept out of the control tokens.

A rendered prompt is encoded whole with special tokens recognised, as a server encodes it. That has a hole: content
that *spells* a control token (a user who types `<|im_end|>`) would become the control id. Such rows are encoded with
a second alphabet: the same vocabulary with each control token renamed to a string that no text can hold. The
template's own control tokens are written in the second alphabet, the spelled ones are left as they are, so one pass
encodes structure as ids and content as text, with the same merges as ever.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import tokenizers

from tutelage.errors import DataError, Problem


def _mark() -> str:
    """Four private-use characters that change with every process, so that no text can be written to hold them."""
    return "".join(chr(0x100000 + secrets.randbelow(0xF000)) for _ in range(4))


# A mark and one more character name a control token: the mark says whether the template or a message wrote it.
_STRUCTURE, _SPELLED = _mark(), _mark()
_FIRST = 0xF0000


class Tokenizer:
    """A `tokenizers` backend, its special tokens by role, and which of its tokens are control tokens."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special_tokens: Mapping[str, str],
        *,
        structure: str = "",
    ) -> None:
        """Take the backend as it is.

        `special_tokens` maps roles such as "eos_token" to text; `structure` is the chat template's source: an added
        token that it writes is a control token even where the tokenizer does not mark it special.
        """
        self.backend = backend
        self.special_tokens = dict(special_tokens)
        added = backend.get_added_tokens_decoder()
        self._special = {token.content: id for id, token in added.items() if token.special}
        for text in special_tokens.values():
            id = backend.token_to_id(text)
            if id is not None:
                self._special[text] = id
        written = {t.content: id for id, t in added.items() if t.content.strip() and t.content in structure}
        self.control: dict[str, int] = {**written, **self._special}
        """Control token text -> id."""
        self.control_ids = frozenset(self.control.values())
        self._spelled = _alternation(self.control)
        self._spelled_special = _alternation(self._special)

    @property
    def eos_id(self) -> int | None:
        """Id of the tokenizer's end-of-sequence token."""
        text = self.special_tokens.get("eos_token")
        return None if text is None else self.backend.token_to_id(text)

    @cached_property
    def unknown_id(self) -> int | None:
        """Id of the token that stands for text that the vocabulary cannot write; None where there is none."""
        model = json.loads(self.backend.to_str())["model"]
        if "unk_id" in model:
            return None if model["unk_id"] is None else int(model["unk_id"])
        text = model.get("unk_token")
        return None if text is None else self.backend.token_to_id(text)

    @cached_property
    def adds_leading_space(self) -> bool:
        """Whether a piece encoded alone gets a space in front that it would not get inside a text."""
        tokens = self.backend.encode("a", add_special_tokens=False).tokens
        return bool(tokens) and tokens[0].startswith(("▁", "Ġ"))

    def encode_rendered(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of rendered text: control tokens recognised, none added. Disguised texts are encoded as such."""
        plain = [i for i, text in enumerate(texts) if not _is_disguised(text)]
        ids: list[list[int]] = [[] for _ in texts]
        for i, encoding in zip(plain, self._batch(self.backend, [texts[i] for i in plain]), strict=True):
            ids[i] = encoding
        if len(plain) < len(texts):
            rest = [i for i, text in enumerate(texts) if _is_disguised(text)]
            revealed = [self._reveal(texts[i]) for i in rest]
            for i, encoding in zip(rest, self._batch(self._second_alphabet, revealed), strict=True):
                ids[i] = encoding
        return ids

    def encode_after(
        self, prompts: Sequence[str], prompt_ids: Sequence[list[int]], completions: Sequence[str]
    ) -> list[list[int]]:
        """Ids of rendered text that follows a prompt: encoded by itself, but as inside a text, not at its start."""
        if not self.adds_leading_space:
            return self.encode_rendered(completions)
        inside = self.encode_rendered([prompt + text for prompt, text in zip(prompts, completions, strict=True)])
        return [
            whole[len(ids) :] if whole[: len(ids)] == ids else self._encode_inside(text)
            for ids, whole, text in zip(prompt_ids, inside, completions, strict=True)
        ]

    def _encode_inside(self, text: str) -> list[int]:
        """Ids of rendered text as if some other text stood before it."""
        before = "a" if text[:1].isspace() else "\n"
        head, whole, alone = self.encode_rendered([before, before + text, text])
        return whole[len(head) :] if whole[: len(head)] == head else alone

    def sides(self, text: str) -> tuple[str, str]:
        """The plain text with which a text begins, and that with which it ends, as far as one line and no control
        token goes."""
        plain = [text] if self._spelled is None else self._spelled.split(text)
        first, last = plain[0].strip(), plain[-1].strip()
        return first.partition("\n")[0].strip(), last.rpartition("\n")[2].strip()

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text: what the tokenizer puts in front (BOS), then the text, control tokens kept as text."""
        return [*self.opening, *self.encode_rendered([self.disguise(text, all_control=False)])[0]]

    @cached_property
    def opening(self) -> list[int]:
        """Ids that the tokenizer puts in front of plain text, such as BOS."""
        plain: list[int] = self.backend.encode("a", add_special_tokens=False).ids
        whole: list[int] = self.backend.encode("a", add_special_tokens=True).ids
        return whole[: next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, control tokens shown."""
        return str(self.backend.decode([int(i) for i in ids], skip_special_tokens=False))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text that each token adds to the text before it; the pieces joined are the decoded whole.

        A character that several tokens make up is credited to the last of them.
        """
        pieces: list[str] = []
        starts, shown = [0], 0
        for end in range(1, len(ids) + 1):
            # A window keeps the cost linear. It starts where a character does, and some tokens early, since
            # decoding may drop a leading space.
            start = starts[max(0, len(starts) - 5)]
            before = self.decode(ids[start:shown])
            text = self.decode(ids[start:end])
            if text.endswith("�") and self._stops_within_a_character(ids, start, end):
                pieces.append("")
                continue
            pieces.append(text[len(before) :])
            shown = end
            if not text.endswith("�"):
                starts.append(end)
        return pieces

    def _stops_within_a_character(self, ids: Sequence[int], start: int, end: int) -> bool:
        """Whether one of the next tokens (a character has at most four) changes how the last ones read."""
        text = self.decode(ids[start:end])
        longer = range(end + 1, min(end + 3, len(ids)) + 1)
        return any(not self.decode(ids[start:further]).startswith(text) for further in longer)

    def disguise(self, text: str, *, all_control: bool) -> str:
        """The text with each control token that it spells replaced by a private stand-in.

        `all_control` is for text that no model writes (users, tools); an assistant's own `<think>` stays.
        """
        pattern = self._spelled if all_control else self._spelled_special
        if pattern is None or not pattern.search(text):
            return text
        order = self._order
        return pattern.sub(lambda match: _SPELLED + chr(_FIRST + order[match.group()]), text)

    @cached_property
    def _order(self) -> dict[str, int]:
        return {text: index for index, text in enumerate(self.control)}

    @cached_property
    def _second_alphabet(self) -> tokenizers.Tokenizer:
        """The backend with every control token renamed, ids unchanged."""
        renamed = {text: _STRUCTURE + chr(_FIRST + index) for text, index in self._order.items()}
        spec = json.loads(self.backend.to_str())
        for token in spec["added_tokens"]:
            if token["content"] in renamed:
                token["content"] = renamed[token["content"]]
                token["normalized"] = False
        model = spec["model"]
        vocab = model["vocab"]
        if isinstance(vocab, dict):
            model["vocab"] = {renamed.get(piece, piece): id for piece, id in vocab.items()}
        else:
            model["vocab"] = [[renamed.get(piece, piece), score] for piece, score in vocab]
        if "merges" in model:  # A merge that spells a control token would undo the disguise.
            model["merges"] = [pair for pair in model["merges"] if renamed.keys().isdisjoint((*pair, "".join(pair)))]
        if model.get("unk_token") in renamed:
            model["unk_token"] = renamed[model["unk_token"]]
        spec["post_processor"] = None
        return tokenizers.Tokenizer.from_str(json.dumps(spec))

    def _reveal(self, text: str) -> str:
        """The template's control tokens in the second alphabet, the spelled ones in plain letters."""
        order = self._order
        if self._spelled is not None:
            text = self._spelled.sub(lambda match: _STRUCTURE + chr(_FIRST + order[match.group()]), text)
        for spelled, index in order.items():
            text = text.replace(_SPELLED + chr(_FIRST + index), spelled)
        return text

    @staticmethod
    def _batch(backend: tokenizers.Tokenizer, texts: list[str]) -> list[list[int]]:
        """Ids of each text.

        Raises:
            DataError: data/not-encoded, where the tokenizer gives up on one of them.
        """
        try:
            return [e.ids for e in backend.encode_batch_fast(texts, add_special_tokens=False)]
        except BaseException as error:
            # The library raises plain exceptions; where it panics, one that is not even that, and has no public name.
            if type(error) is not Exception and type(error).__name__ != "PanicException":
                raise
            said = " ".join(str(error).split())[:300]
        what = "the tokenizer gives up on a text"
        raise DataError(Problem("data/not-encoded", what, found=said, fix="shorten the row, or leave it out"))


def _alternation(tokens: Iterable[str]) -> re.Pattern[str] | None:
    """Matches any of the tokens, the longest first, as the tokenizer itself matches them."""
    ordered = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def _is_disguised(text: str) -> bool:
    return _SPELLED in text
