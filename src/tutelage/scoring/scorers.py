"""The scorers that a task can name, by their kind."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from tutelage.scoring.choice import Letter, Likelihood
from tutelage.scoring.code import Code
from tutelage.scoring.instructions import Instructions
from tutelage.scoring.mark import Scored
from tutelage.scoring.number import Number
from tutelage.scoring.overlap import Bleu, Chrf, Rouge
from tutelage.scoring.pattern import Pattern
from tutelage.scoring.structured import Json
from tutelage.scoring.text import Exact

KINDS: dict[str, type[Scored]] = {
    "exact": Exact,
    "json": Json,
    "number": Number,
    "letter": Letter,
    "likelihood": Likelihood,
    "pattern": Pattern,
    "rouge": Rouge,
    "chrf": Chrf,
    "bleu": Bleu,
    "ifeval": Instructions,
    "code": Code,
}


def _kind(value: Any) -> str | None:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return f"({kind})" if kind in KINDS else None


Scorer = Annotated[
    Annotated[Exact, Tag("(exact)")]
    | Annotated[Json, Tag("(json)")]
    | Annotated[Number, Tag("(number)")]
    | Annotated[Letter, Tag("(letter)")]
    | Annotated[Likelihood, Tag("(likelihood)")]
    | Annotated[Pattern, Tag("(pattern)")]
    | Annotated[Rouge, Tag("(rouge)")]
    | Annotated[Chrf, Tag("(chrf)")]
    | Annotated[Bleu, Tag("(bleu)")]
    | Annotated[Instructions, Tag("(ifeval)")]
    | Annotated[Code, Tag("(code)")],
    Discriminator(_kind),
]
"""One of them, with its options."""
