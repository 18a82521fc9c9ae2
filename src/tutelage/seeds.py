"""Where a random draw begins: at a number derived from the run's seed and the draw's name, not from earlier draws.

So a draw does not depend on how many others were made, in which order, or in which process.
"""

from __future__ import annotations

import hashlib


def derive(seed: int, purpose: str, *indices: int) -> int:
    """The seed of one named draw, from 0 to 2^63 - 1: equal arguments give it again, others give an unrelated one."""
    text = "/".join([str(seed), purpose, *map(str, indices)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
