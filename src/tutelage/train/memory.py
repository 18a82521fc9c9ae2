"""Memory of this process: the most it used, what is left for it, and what to do when it ran out.

The C library gives large blocks back to the system and takes them again at every step, with a fault for each page;
kept blocks cost nothing that the next step would not take anyway.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tutelage.errors import MachineError, Problem

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4

CGROUPS = Path("/sys/fs/cgroup")


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed blocks; False where the C library is another one."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 4097), (_TOP_PAD, 64 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)


def give_back_memory() -> None:
    """Return what is free in this process to the system or the device: another process, or another plan, needs it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


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


def memory_in_use(device: torch.device) -> int:
    """What is in use now, counted as `peak_memory_bytes` counts."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    pages = _first_words(Path("/proc/self/statm"))
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if pages else peak_memory_bytes(device)


def forget_peak(device: torch.device) -> None:
    """Begin to measure the peak anew, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def memory_limit(device: torch.device) -> int:
    """How high the peak of this process may rise: what it uses now and what is left for it.

    On a CPU the smaller of the machine's available memory and what the control groups around the process leave.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    return memory_in_use(device) + min(_machine_leaves(), *_groups_leave()) // _processes_here()


def _processes_here() -> int:
    """How many processes of the run share this machine's memory."""
    said = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(said)) if said.isdigit() else 1


def _machine_leaves() -> int:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        # Where the system does not say what is available, half of the whole is a safe guess.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _groups_leave() -> list[int]:
    """What each limited control group around this process leaves; a cache of files counts as free."""
    left = [sys.maxsize]
    groups = [line.split(":", 2) for line in _lines(Path("/proc/self/cgroup"))]
    for _, controllers, path in (group for group in groups if len(group) == 3):
        if controllers == "":
            root, names = CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, names = (
                CGROUPS / "memory",
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            )
        else:
            continue
        inside = root / path.lstrip("/")
        for folder in (inside, *inside.parents):
            if folder.is_relative_to(root):
                left += _group_leaves(folder, *names)
    return left


def _group_leaves(folder: Path, limit: str, used: str, cached: str) -> list[int]:
    most, now = _first_words(folder / limit), _first_words(folder / used)
    if not most or not now or most[0] == "max":
        return []
    stat = dict(line.split()[:2] for line in _lines(folder / "memory.stat") if len(line.split()) >= 2)
    return [max(0, int(most[0]) - int(now[0]) + int(stat.get(cached, 0)))]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except OSError:
        return []


def _first_words(path: Path) -> list[str]:
    lines = _lines(path)
    return lines[0].split() if lines else []


@contextmanager
def explained(token_budget: Callable[[], int]) -> Iterator[None]:
    """Inside, running out of memory becomes an error that says what to change.

    Raises:
        MachineError: machine/out-of-memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MachineError(
            Problem(
                "machine/out-of-memory",
                "memory ran out",
                found=(str(error).strip() or type(error).__name__).splitlines()[0],
                fix=f"train.token_budget={max(1, token_budget() // 2)} computes half as much at once; a smaller "
                "data.max_length bounds the longest example",
            )
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the host or on the device."""
    # On the CPU and on mps, torch says it in words alone.
    said = ("can't allocate memory", "MPS backend out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in said)
