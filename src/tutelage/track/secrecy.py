"""Nothing secret is sent or noted. A recipe that holds a secret is refused before it runs; this is the second net."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from tutelage.config.names import join
from tutelage.config.secrets import HIDDEN, find_secrets, holds_secret, without_secrets

_USER = re.compile(r"(?<=://)[^/\s@]+(?=@)")
"""A name alone is told here as well as a password: some services take a token for a name."""

_TELLING_VARIABLE = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)


def shareable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with what looks like a secret replaced."""
    hidden = set(find_secrets(recipe))
    return {
        str(key): _shareable(value, str(key), hidden) for key, value in recipe.items() if not holds_secret(str(key))
    }


def text_without_secrets(text: str) -> str:
    """The text without what looks like a secret, and without the values of variables whose names say that they are."""
    for name, value in os.environ.items():
        if _TELLING_VARIABLE.search(name) and len(value) >= 6:
            text = text.replace(value, HIDDEN)
    return without_secrets(_USER.sub(HIDDEN, text))


def _shareable(value: Any, name: str, hidden: set[str]) -> Any:
    if name in hidden:
        return HIDDEN
    if isinstance(value, Mapping):
        parts = {str(key): part for key, part in value.items() if not holds_secret(str(key))}
        return {key: _shareable(part, join(name, key), hidden) for key, part in parts.items()}
    if isinstance(value, list | tuple):
        return [_shareable(part, join(name, str(n)), hidden) for n, part in enumerate(value)]
    return _USER.sub(HIDDEN, value) if isinstance(value, str) else value
