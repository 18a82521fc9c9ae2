"""Where token stores lie: one folder for each content, found again by it, built by one process, within a byte limit.

A store's name is a hash of everything that decides its tokens. Change one character of the template and another
store is built; change the learning rate and this one is used. A building that was killed is continued.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tutelage import files
from tutelage.cache import cache_folder
from tutelage.data.store import Store, size_of
from tutelage.errors import TutelageError
from tutelage.locks import left_behind

_NAME = re.compile(r"[0-9a-f]{32}")
"""Names of stores; whatever else lies in the folder is not ours."""


def name_of(identity: dict[str, Any]) -> str:
    """The name of the store with this content."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _whole(path: Path) -> Store | None:
    """The store, or None where there is none that is complete; what is left of a broken one is removed."""
    if not (path / "store.json").is_file():
        return None
    try:
        return Store(path)
    except (OSError, ValueError, KeyError):
        _remove(path)
        return None


def _remove(path: Path) -> None:
    """Remove a store; first what says that it is complete, in case this is cut short."""
    (path / "store.json").unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


class Shelf:
    """A folder of token stores."""

    def __init__(self, folder: str | None, limit: int) -> None:
        self.folder = Path(folder).expanduser() if folder is not None else cache_folder() / "tokens"
        self.limit = limit

    def opened(self, identity: dict[str, Any], build: Callable[[Path], None], wait: Callable[[str], None]) -> Store:
        """The store with this content, built first where it is not complete.

        `wait` is called once when another process is building it, with what else it may be.

        Raises:
            MachineError: machine/read-only, machine/disk-full.
            TutelageError: what `build` raises; what it wrote is then removed.
        """
        path = self.folder / name_of(identity)
        with self._explained(), self._locked(path, wait):
            store = _whole(path)
            if store is None:
                path.mkdir(exist_ok=True)
                try:
                    build(path)
                except TutelageError:
                    _remove(path)
                    raise
                store = Store(path)
            os.utime(path)
        with self._explained():
            self._evict(keep=path)
        return store

    @contextmanager
    def _locked(self, path: Path, wait: Callable[[str], None] | None) -> Iterator[None]:
        """Hold the store's lock; without `wait`, raise `Timeout` where another process holds it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if wait is None:
                raise
            wait(left_behind(lock))
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _evict(self, keep: Path) -> None:
        """Remove what was used longest ago until the limit holds; what is in use or in building stays.

        A run that has mapped a store reads on from it after it was removed.
        """
        stores = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        used: dict[Path, float] = {}
        for path in stores:
            with contextlib.suppress(FileNotFoundError):  # another process may be removing it
                used[path] = path.stat().st_mtime
        sizes = {path: size_of(path) for path in used}
        total = sum(sizes.values())
        for path in sorted(used, key=lambda path: used[path]):
            if total <= self.limit:
                return
            if path != keep:
                with contextlib.suppress(Timeout), self._locked(path, None):
                    _remove(path)
                    total -= sizes[path]

    def _explained(self) -> AbstractContextManager[None]:
        fix = "name another folder, as in data.store=A/FOLDER/YOU/OWN"
        return files.explained(self.folder, fix, only_inside=True)
