"""Whether the model knows the tokens of the data: ids that it has no row for, and text that its vocabulary lacks."""

from __future__ import annotations

from collections.abc import Callable

from tutelage.data.encode.tokenizer import Tokenizer
from tutelage.data.store import Store
from tutelage.errors import ModelError, Problem

UNKNOWN = 0.001
"""Part of the tokens that may stand for text outside the vocabulary before it is said."""
_SHOWN = 3


def check_coverage(
    store: Store, tokenizer: Tokenizer, *, embedded: int | None, where: str, say: Callable[[str], None]
) -> None:
    """Say how much text the vocabulary cannot write, where that is more than one token in a thousand.

    `embedded` is how many tokens the model has an embedding for, where its folder says so.

    Raises:
        ModelError: model/tokens-outside, when rows hold ids that the model has no embedding for.
    """
    ids = 1 + max(tokenizer.backend.get_vocab().values())
    if embedded is not None and ids > embedded:
        count, rows = store.holding(range(embedded, ids))
        if count:
            raise ModelError(
                Problem(
                    "model/tokens-outside",
                    "the tokenizer writes tokens that the model has no embedding for",
                    where=where,
                    found=f"ids up to {ids - 1:,} and {embedded:,} embeddings; {count:,} tokens of {len(rows):,} rows, "
                    f"the first {store.origin(rows[0])}",
                    why="the tokenizer is another model's, or tokens were added to it and not to the model",
                    fix="use the tokenizer that the model was trained with",
                )
            )
    unknown = tokenizer.unknown_id
    if unknown is not None:
        count, rows = store.holding(range(unknown, unknown + 1))
        share = count / max(1, int(store.lengths.sum()))
        if share > UNKNOWN:
            examples = ", ".join(str(store.origin(row)) for row in rows[:_SHOWN])
            say(
                f"note    {share:.1%} of the tokens stand for text that the vocabulary cannot write "
                f"({tokenizer.backend.id_to_token(unknown)}, in {len(rows):,} rows: {examples}); the model is not "
                "taught that text, and cannot write it"
            )
