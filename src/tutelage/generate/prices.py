"""What the owner of an endpoint asks for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a million tokens, in any currency."""

    prompt: float = 0.0
    completion: float = 0.0

    @classmethod
    def given(cls, prompt: float | None, completion: float | None) -> Prices | None:
        """Those that were given; None for none."""
        return None if prompt is None and completion is None else cls(prompt or 0.0, completion or 0.0)

    def cost(self, prompt: int | None, completion: int | None) -> float:
        """Of so many tokens; what is not known of them counts as none."""
        return ((prompt or 0) * self.prompt + (completion or 0) * self.completion) / 1e6
