"""Secrets and personal data: where they are, and the text with masks in their place."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from tutelage.data.clean.traces import Traces

Span = tuple[int, int]

# All patterns are ASCII ones: where no spaces are written, a word character may stand right beside an address.

# --------------------------------------------------------------------------------------------------- secrets

_UNDERSCORED = ("hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "k_live_", "npm_")
_HYPHENED = ("sk-", "xox", "glpat-", "pypi-")
_PREFIXES = (*_UNDERSCORED, *_HYPHENED, "AKIA", "ASIA", "AIza", "ya29.", "SG.", "eyJ")
_NAMES = ("key", "secret", "token", "passw")
_KNOWN = re.compile(
    r"""\b(?:
        sk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9_-]{20,} | [sr]k_live_[A-Za-z0-9]{16,}
      | gh[pousr]_[A-Za-z0-9]{30,} | github_pat_[A-Za-z0-9_]{22,} | glpat-[A-Za-z0-9_-]{20,}
      | A[KS]IA[A-Z0-9]{16} | AIza[A-Za-z0-9_-]{35} | ya29\.[A-Za-z0-9_-]{20,}
      | xox[abeoprs]-[A-Za-z0-9-]{10,} | hf_[A-Za-z0-9]{30,} | npm_[A-Za-z0-9]{36} | pypi-[A-Za-z0-9_-]{50,}
      | SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,} | eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}
    )(?![A-Za-z0-9_-])""",
    re.VERBOSE | re.ASCII,
)
_PRIVATE = re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:(?!-----)[\s\S])*(?:-----END [A-Z ]{0,30}-----)?")
_LOGIN = re.compile(r"://[^\s:/@<>\[\]]{1,64}:([^\s:/@<>\[\]]{3,64})@")
_NAMED = re.compile(r"[:=]\s{0,4}[\"'`]?([A-Za-z0-9_+/=.-]{16,})")
_NAME = re.compile(
    r"(?:api[_ -]?key|access[_ -]?key|secret|token|passw(?:or)?d)\w{0,12}[\"'`]?\s{0,4}\Z", re.IGNORECASE
)
_ENTROPY = 3.0
"""Bits a character: 16 characters of a random key have about 3.6, a row of x has 0."""


def maybe_secrets(traces: Traces) -> bool:
    """Tell quickly whether a text may hold a secret."""
    text = traces.text
    rare = traces.rare
    if b"AKIA" in rare or b"ASIA" in rare or b"PRIVATEKEY" in rare or (b"@" in rare and "://" in text):
        return True
    if "_" in text and any([prefix in text for prefix in _UNDERSCORED]):
        return True
    if not traces.digits:
        return False
    if "-" in text and any([prefix in text for prefix in _HYPHENED]):
        return True
    if (b"J" in rare and "eyJ" in text) or (b"AI" in rare and "AIza" in text):
        return True
    if "ya29." in text or (b"SG" in rare and "SG." in text):
        return True
    # A value that is named needs a sign between the name and itself.
    return ("=" in text or ":" in text) and any([name in traces.lower for name in _NAMES])


def secrets(text: str) -> Iterator[Span]:
    """Yield where secrets are, in order and without overlap."""
    found: list[Span] = []
    if "PRIVATE KEY-----" in text:
        found += [match.span() for match in _PRIVATE.finditer(text)]
    if any([prefix in text for prefix in _PREFIXES]):
        found += [match.span() for match in _KNOWN.finditer(text) if _random(match[0])]
    if "://" in text and "@" in text:
        found += [match.span(1) for match in _LOGIN.finditer(text)]
    for match in _NAMED.finditer(text):
        named = _NAME.search(text, max(0, match.start() - 40), match.start())
        if named and _mixed(match[1]) and _random(match[1]):
            found.append(match.span(1))
    return _apart(found)


def _mixed(value: str) -> bool:
    return any(char.isdigit() for char in value) and any(char.isalpha() for char in value)


def _random(value: str) -> bool:
    counts = Counter(value).values()
    bits = -sum(count / len(value) * math.log2(count / len(value)) for count in counts)
    return bits >= _ENTROPY and "EXAMPLE" not in value.upper()


def without_secrets(text: str) -> str:
    """Return the text with a mask in the place of each secret."""
    return _masked(text, ((start, end, "[SECRET]") for start, end in secrets(text)))


# --------------------------------------------------------------------------------------------- personal data

_LOCAL = "A-Za-z0-9._%+-"
_EMAIL = re.compile(
    rf"(?<![{_LOCAL}])[A-Za-z0-9][{_LOCAL}]{{0,63}}@(?!example\.)(?:[A-Za-z0-9-]{{1,63}}\.){{1,6}}[A-Za-z]{{2,24}}(?![\w@])",
    re.ASCII,
)
# These begin with the first character, and only then look back, because so the search is several times as fast.
_PHONE = re.compile(
    r"""[+(\d](?<![\w.,+/=*-].)(?:
        (?<=\+)\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,5}                          # with a country's code
      | (?:(?<=1)[ .-]\(?\d{3}|(?<=\()\d{3}|(?<=\d)\d\d)(?:\)[ ]?|[ .-])\d{3}[ .-]\d{4}   # as in North America
      | (?<=1)[3-9]\d{9}                                                    # a mobile phone in China
    )(?![\w*/=^]|[.,-]\d)""",
    re.VERBOSE | re.ASCII,
)
_CARD = re.compile(r"[3-6](?<![\w.,-].)\d{3}(?:[ -]?\d){9,15}(?!\w|[.,-]\d)", re.ASCII)
_IBAN = re.compile(r"[A-Z](?<!\w.)[A-Z]\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", re.ASCII)
_RUN = re.compile(r"\d[\d ().-]{6}")
"""Part of every number that is found, for a quick test."""
DIGITS = 8
"""No number that is found has fewer digits."""


def personal(text: str) -> Iterator[Span]:
    """Yield where personal data are, in order and without overlap."""
    return ((start, end) for start, end, _ in _personal(text))


def without_personal(text: str) -> str:
    """Return the text with a mask in the place of each."""
    return _masked(text, _personal(text))


def _personal(text: str) -> Iterator[tuple[int, int, str]]:
    found: dict[Span, str] = {}
    if "@" in text:
        found.update((match.span(), "[EMAIL]") for match in _EMAIL.finditer(text))
    if _RUN.search(text) is None:
        yield from ((*match, "[EMAIL]") for match in found)
        return
    found.update((match.span(), "[PHONE]") for match in _PHONE.finditer(text) if _is_phone(match[0]))
    found.update((match.span(), "[IBAN]") for match in _IBAN.finditer(text) if _is_iban(match[0]))
    found.update((match.span(), "[CARD]") for match in _CARD.finditer(text) if _is_card(match[0]))
    for span in _apart(list(found)):
        yield *span, found[span]


def _is_phone(value: str) -> bool:
    return DIGITS <= sum(char.isdigit() for char in value) <= 15


def _is_card(value: str) -> bool:
    """Tell by the check digit: every second digit from the right counts twice, with its own digits summed."""
    digits = [int(char) for char in value if char.isdigit()]
    total = sum(digits[-1::-2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return 13 <= len(digits) <= 19 and total % 10 == 0 and len(set(digits)) > 1


def _is_iban(value: str) -> bool:
    """Tell by the check digits: the number with its first four at the end leaves 1 when divided by 97."""
    plain = value.replace(" ", "")
    return 15 <= len(plain) <= 34 and int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


def _apart(spans: list[Span]) -> Iterator[Span]:
    """Yield the spans in order, and of those that overlap the first and longest."""
    reached = 0
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= reached:
            yield start, end
            reached = end


def _masked(text: str, spans: Iterator[tuple[int, int, str]]) -> str:
    pieces, reached = [], 0
    for start, end, mask in spans:
        pieces += [text[reached:start], mask]
        reached = end
    return "".join([*pieces, text[reached:]])
