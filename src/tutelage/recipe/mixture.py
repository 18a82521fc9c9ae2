"""How much of each source one epoch holds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from tutelage.recipe.base import Section


class MixtureOptions(Section):
    """A mixture of the sources; without one, an epoch is every example once."""

    by: Literal["size", "examples", "tokens", "temperature"] = "size"
    """What the shares are shares of: `size` takes every example once; `examples` and `tokens` take each source's
    `share`; `temperature` takes sizes to the power 1 / `temperature`."""
    temperature: float = Field(default=1.0, gt=0)
    """For `temperature`: 1 is the sizes as they are, large values make the sources equal."""
    epoch_examples: PositiveInt | None = None
    """Examples in one epoch; as many as there are when not given."""
