"""An excerpt: a few words around a place, fit for a screen and a report."""

from __future__ import annotations

from tutelage.data.clean.personal import personal, secrets

_AROUND = 24
_LONGEST = 96


def excerpt(text: str, start: int, end: int) -> str:
    """Return what is around a place, with what cannot be seen spelled out, and secrets and personal data masked."""
    first = max(0, start - _AROUND)
    last = min(len(text), max(min(end, start + _LONGEST - 2 * _AROUND), start) + _AROUND)
    # What is cut off at either side could hide the rest of a secret, so that more is looked at than shown.
    base = max(0, first - 256)
    around = text[base : last + 256]
    hidden = [(base + s, base + e) for spans in (secrets(around), personal(around)) for s, e in spans]
    pieces, reached = [], first
    for s, e in sorted(hidden):
        if e > reached and s < last:
            pieces += [text[reached : max(s, reached)], "[...]"]
            reached = e
    pieces.append(text[reached:last])
    shown = visible("".join(pieces))
    return ("…" if first else "") + shown + ("…" if last < len(text) else "")


def visible(text: str) -> str:
    """Return the text with an escape in the place of each character that does not print."""
    if text.isprintable():
        return text
    return "".join([char if char.isprintable() else char.encode("unicode_escape").decode() for char in text])
