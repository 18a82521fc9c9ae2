"""The forest of one micro-batch with all that its attention needs, made once and used by every layer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tutelage.data.forest import Segment
from tutelage.models.attention.backend import Backend, UnsupportedAttention

Made = TypeVar("Made")


class Layout:
    """A forest, laid out depth-first, and the backends that may compute its attention, best first."""

    def __init__(self, segments: Sequence[Segment], backends: Sequence[Backend]) -> None:
        self.segments = tuple(segments)
        self.backends = tuple(backends)
        self.depths = _depths(self.segments)
        """Of each segment, how many tokens come before it in its branch."""
        self._made: dict[Hashable, Any] = {}

    @property
    def tokens(self) -> int:
        """Length of the row."""
        return self.segments[-1].end if self.segments else 0

    @property
    def shared(self) -> bool:
        """Whether any segment is continued by another."""
        return any(segment.exit > segment.end for segment in self.segments)

    def token_exits(self, length: int) -> NDArray[np.int64]:
        """For each token, one past the last that continues it; a token of padding is continued by none."""
        exits = np.arange(1, length + 1)
        for start, end, leave in self.segments:
            exits[start:end] = leave
        return exits

    def token_depths(self, length: int) -> NDArray[np.int64]:
        """For each token, how many come before it in its branch; 0 for padding."""
        depths = np.zeros(length, dtype=np.int64)
        for (start, end, _), depth in zip(self.segments, self.depths, strict=True):
            depths[start:end] = np.arange(depth, depth + end - start)
        return depths

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gave when first asked for this key."""
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    def backend(self, q: Any, v: Any, *, softcap: float | None) -> Backend:
        """The first backend that takes this.

        Raises:
            UnsupportedAttention: when none does.
        """
        for backend in self.backends:
            if not backend.missing(q.device, q.dtype) and backend.takes(q, v, self, softcap=softcap):
                return backend
        if softcap is not None:
            raise UnsupportedAttention("the model caps its attention scores")
        raise UnsupportedAttention(f"no attention backend for {q.dtype} on {q.device.type}")


def _depths(segments: tuple[Segment, ...]) -> tuple[int, ...]:
    depths: list[int] = []
    above: list[tuple[int, int]] = []  # (exit, depth of what continues), from the root down
    for start, end, leave in segments:
        while above and above[-1][0] <= start:
            above.pop()
        depth = above[-1][1] if above else 0
        depths.append(depth)
        above.append((leave, depth + end - start))
    return tuple(depths)
