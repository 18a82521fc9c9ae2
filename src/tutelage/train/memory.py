"""Memory of this process: the most it used, what to do when it ran out, and an allocator that keeps what was freed.

The C library gives large blocks back to the system and takes them again at every step, with a fault for each page;
kept blocks cost nothing that the next step would not take anyway.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tutelage.errors import MachineError, Problem

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed blocks; False where the C library is another one."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 4097), (_TOP_PAD, 64 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)


def forget_startup_objects() -> None:
    """Take what exists now out of the garbage collector's rounds.

    The libraries' own objects are hundreds of thousands, live as long as the process, and would be walked again and
    again while small objects come and go: a quarter of the time of token-by-token generation.
    """
    gc.collect()
    gc.freeze()


def peak_memory_bytes(device: torch.device) -> int:
    """The most that was in use: of the device on a GPU, of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def explained(token_budget: int) -> Iterator[None]:
    """Inside, running out of memory becomes an error that says what to change.

    Raises:
        MachineError: machine/out-of-memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise MachineError(
            Problem(
                "machine/out-of-memory",
                "memory ran out",
                found=(str(error).strip() or type(error).__name__).splitlines()[0],
                fix=f"train.token_budget={max(1, token_budget // 2)} computes half as much at once; a smaller "
                "data.max_length bounds the longest example",
            )
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    # On the CPU, torch says it in words alone.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
