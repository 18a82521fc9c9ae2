"""Passwords, keys and tokens in a recipe: refused by the option's name, and never shown.

A recipe is copied into the run folder, the report and the tracker, and is what people share. Nothing in it needs a
secret: programs that need one read it from the environment. What is looked for are the forms that secrets are given
by those who issue them, and long random texts under a name that says what they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tutelage.config.names import join
from tutelage.errors import Problem

_ISSUED = re.compile(
    r"""
    (?<![A-Za-z0-9])(?:
        hf_[A-Za-z0-9]{20,}                                         # Hugging Face
      | (?:api_org_|wandb_v1_)[A-Za-z0-9_-]{20,}
      | sk-(?:or-v1-)?[0-9a-f]{32,}(?![A-Za-z0-9])                  # OpenAI, Anthropic and others
      | sk-(?=[a-zA-Z0-9_-]*[A-Z])(?=[a-zA-Z_-]*[0-9])[A-Za-z0-9_-]{20,}
      | (?:AKIA|ASIA|AGPA|AROA)[A-Z0-9]{16}(?![A-Z0-9])             # Amazon
      | (?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{30,} | github_pat_[A-Za-z0-9_]{30,} | glpat-[A-Za-z0-9_-]{18,}
      | xox[abprs]-[A-Za-z0-9-]{10,}                                # Slack
      | AIza[A-Za-z0-9_-]{35}                                       # Google
      | npm_[A-Za-z0-9]{36} | pypi-[A-Za-z0-9_-]{40,}
      | eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}   # a JSON web token
    )
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----
    """,
    re.VERBOSE,
)
_LOGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/@:]*:[^\s/@]+@")
"""An address with a password in it; a name alone before the @ is none."""
_IN_QUERY = re.compile(
    r"[?&](?:(?:access|auth|api)[_-]?(?:token|key)|token|key|sig|signature|password|secret|x-amz-signature"
    r"|x-amz-credential|x-amz-security-token|awsaccesskeyid)=[^&\s]{8,}",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(?:bearer|basic)\s+(?=\S*[0-9=])[A-Za-z0-9+/_=.-]{16,}", re.IGNORECASE)
_TELLING = {"token", "secret", "password", "passwd", "passphrase", "credential", "credentials", "apikey"}
_TELLING_PAIRS = {("api", "key"), ("access", "key"), ("secret", "key"), ("private", "key"), ("wandb", "key")}
_TELLING_PAIRS |= {("login", "key"), ("auth", "key"), ("account", "key"), ("session", "key"), ("ssh", "key")}
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+")
_RANDOM = re.compile(r"[A-Za-z0-9+/_=.~!@#$%^&*-]{16,}")
HIDDEN = "(not shown)"


def find_secrets(values: Any, within: str = "") -> Iterator[str]:
    """The dotted names of the options whose key or value looks like a secret."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            if holds_secret(str(key)):
                yield join(within, HIDDEN)
            else:
                yield from find_secrets(value, join(within, str(key)))
    elif isinstance(values, list | tuple):
        for number, value in enumerate(values):
            yield from find_secrets(value, join(within, str(number)))
    elif isinstance(values, str) and (holds_secret(values) or (is_telling(within) and _is_random(values))):
        yield within


def holds_secret(text: str) -> bool:
    """Whether something in the text has the form of a secret."""
    return any(form.search(text) for form in (_ISSUED, _LOGIN, _IN_QUERY, _BEARER))


def is_telling(name: str) -> bool:
    """Whether the last part of a dotted name says that its value is a secret, as in `wandb_api_key`."""
    parts = [part for part in name.split(".") if not part.isdecimal()]
    words = [word.lower() for word in _WORD.findall(parts[-1])] if parts else []
    if not words:
        return False
    return words[-1] in _TELLING or words == ["key"] or tuple(words[-2:]) in _TELLING_PAIRS


def override_secret(override: str) -> str | None:
    """The name of the option that an override gives a secret to; None when it gives none."""
    name, _, text = override.partition("=")
    text = text.strip().strip("'\"")
    if not (holds_secret(override) or (is_telling(name) and _is_random(text))):
        return None
    return HIDDEN if holds_secret(name) else name


def secret_problem(name: str, where: str) -> Problem:
    """The refusal, without the value."""
    return Problem(
        "security/secret",
        f"`{name}` holds what looks like a password, a key or a token",
        where=where,
        found=HIDDEN,
        why="a recipe is copied into the run folder and its report, and is shared",
        fix="remove it, and set it in the environment (HF_TOKEN, WANDB_API_KEY, AWS_...); if it was shared, revoke it",
    )


def without_secrets(text: str) -> str:
    """The text with what looks like a secret left out."""
    for form in (_ISSUED, _LOGIN, _IN_QUERY, _BEARER):
        text = form.sub(HIDDEN, text)
    return text


def line_without_secrets(line: str) -> str:
    """A line of a recipe that could not be read, with what looks like a secret left out."""
    key, colon, value = line.partition(":")
    if colon and value.strip() and is_telling(re.split(r"[\s{,]", key.strip())[-1].strip("'\"")):
        return f"{key}: {HIDDEN}"
    return without_secrets(line)


def _is_random(text: str) -> bool:
    """Whether it is one long word, as people do not write."""
    return _RANDOM.fullmatch(text) is not None and not _is_words(text)


def _is_words(text: str) -> bool:
    """Whether it is letters alone, or a path or a name of several."""
    return re.fullmatch(r"[A-Za-z]+(?:[_./<>|-]+[A-Za-z]+)*", text) is not None
