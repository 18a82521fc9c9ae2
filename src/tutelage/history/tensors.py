"""The numbers in a safetensors file, looked through without a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

EXPONENTS = {"F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80), "F32": ("<u4", 0x7F80_0000), "F64": ("<u8", 0x7FF0 << 48)}
"""Of each format of numbers: how wide it is, and the bits that are all set where a number is infinite or none."""
PIECE = 1 << 24
"""Bytes looked at at once; a multiple of every width."""


def find_not_finite(path: Path) -> str | None:
    """The name of a tensor with a number that is not finite; None where all are. The header was checked before."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        for name, said in header.items():
            if name == "__metadata__" or said["dtype"] not in EXPONENTS:
                continue
            width, bits = EXPONENTS[said["dtype"]]
            begin, end = said["data_offsets"]
            file.seek(8 + length + begin)
            for start in range(begin, end, PIECE):
                numbers = np.frombuffer(file.read(min(PIECE, end - start)), dtype=width)
                mask = numbers.dtype.type(bits)
                if ((numbers & mask) == mask).any():
                    return str(name)
    return None
