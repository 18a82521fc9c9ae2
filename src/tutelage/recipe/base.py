"""The base of every recipe section: frozen, strict, documented by the text under each field.

Strict: `"3"` is not 3, `true` is not 1, 1.5 is not a whole number, and infinity is not a setting. A list is taken
where a tuple is declared, because YAML has no tuples. Unions carry a `Discriminator`, so that a mistake is
reported once and not once per variant; their tags are written in parentheses, which no option's name has.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of options. Unknown keys are refused; each option's docstring is its documentation."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )
