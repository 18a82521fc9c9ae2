"""What a lock that cannot be had may mean.

Where the file system has locks, they end with their process, however that ends. Where it has none, as Lustre mounted
without `flock`, the library leaves a marker that names the process and its host. It recognises the marker of a process
that died on this host; the marker of one that was killed on another host stays until somebody removes it.
"""

from __future__ import annotations

import warnings

from filelock import BaseFileLock, SoftFileLock

warnings.filterwarnings("ignore", message="flock not supported")  # It is said where it matters.


def left_behind(lock: BaseFileLock) -> str:
    """That nobody may hold it, in words that continue a sentence; "" where the system keeps the lock."""
    if not isinstance(lock, SoftFileLock):
        return ""
    return f"; this file system has no locks: if no such process lives, one left {lock.lock_file} behind, so remove it"
