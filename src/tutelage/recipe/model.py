"""Which model is adapted, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveInt, Tag

from tutelage.recipe.base import Section


class Lora(Section):
    """Train low-rank updates beside frozen weights."""

    kind: Literal["lora"] = "lora"
    rank: PositiveInt = 16
    """Rank of each update; the number of trained parameters grows linearly with it."""
    alpha: float | None = Field(default=None, gt=0)
    """Each update is scaled by alpha / rank; twice the rank when not given."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the update's inputs set to zero while training."""

    @property
    def scale_numerator(self) -> float:
        """`alpha` with the default filled in."""
        return 2.0 * self.rank if self.alpha is None else self.alpha


class Full(Section):
    """Train every weight."""

    kind: Literal["full"] = "full"


def _adapter_kind(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return "(full)" if kind == "full" else "(lora)"


class ModelOptions(Section):
    """The model that is adapted."""

    path: str = Field(min_length=1)
    """A hub id, a folder, a .gguf file, or `smollm2-135m-instruct`."""
    revision: str | None = None
    """Branch, tag or commit, for a hub id."""
    trust_remote_code: bool = False
    """Run the Python code that lies in the model's folder; it may do whatever you may, and is recorded."""
    template: str | None = None
    """`chatml`, `alpaca`, a .jinja file, or `none` for plain text; the tokenizer's own when not given, or of several
    the one of that name."""
    adapter: Annotated[
        Annotated[Lora, Tag("(lora)")] | Annotated[Full, Tag("(full)")], Discriminator(_adapter_kind)
    ] = Lora()
    """`{kind: lora, rank: 16}` or `{kind: full}`; lora when no kind is given."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the model runs; auto takes cuda, then mps, then cpu, and says which."""
