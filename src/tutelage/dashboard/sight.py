"""Which runs there are, by ids that are no paths, and whether anything of them changed since.

A version is made of the names, sizes and times of a run's files, and of whether a process works on it: cheap enough
to be asked for every second.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.history.record import Record, is_run, runs_below

TOGETHER = 8
"""Runs that one page draws."""
_UNSHOWN = (".lock", "report.html")


@dataclass(frozen=True, slots=True)
class Seen:
    """A run, or a place where one is waited for."""

    id: str
    folder: Path
    name: str
    state: str
    """there, awaited, or gone."""
    version: str


class Sight:
    """What lies in the folders that were named."""

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = [Path(os.path.abspath(place)) for place in places]
        self._known: dict[str, tuple[Path, str]] = {}
        """By id, the folder and the name of every run that was seen at some time."""
        self._there: set[str] = set()
        self._lock = threading.Lock()

    @property
    def several(self) -> bool:
        """Whether there is a list to go back to."""
        return len(self._known) > 1

    def look(self) -> list[Seen]:
        """Every run, those that vanished as well."""
        found = [run for place in self.places for run in self._at(place)]
        with self._lock:
            for folder, name in found:
                self._known.setdefault(_id(folder), (folder, name))
            known = [(id, folder) for id, (folder, _) in self._known.items()]
        # A folder that was empty at first may hold runs by now: it is no run that is waited for.
        above = {place for place in self.places if self._holds_known(place)}
        return [self.at(id) for id, folder in known if folder not in above]

    def at(self, id: str) -> Seen:
        """One of them, as it is now.

        Raises:
            KeyError: there never was one.
        """
        with self._lock:
            folder, name = self._known[id]
        there = is_run(folder) and (folder / "recipe.yaml").is_file()
        with self._lock:
            if there:
                self._there.add(id)
            state = "there" if there else "gone" if id in self._there else "awaited"
        return Seen(id, folder, name, state, version(folder) if there else state)

    def _at(self, place: Path) -> list[tuple[Path, str]]:
        if not is_run(place):
            below = [(run, run.relative_to(place).as_posix()) for run in runs_below(place)]
            several = len(self.places) > 1
            if below:
                return [(run, f"{place.name}/{name}" if several else name) for run, name in below]
            if self._holds_known(place):
                return []
        return [(place, place.name)]

    def _holds_known(self, place: Path) -> bool:
        """Whether runs lay below it before: then it is no run that is waited for."""
        with self._lock:
            return any(folder != place and folder.is_relative_to(place) for folder, _ in self._known.values())

    def first(self) -> list[Seen] | None:
        """The runs that were named themselves, where they are all that there is to show; None calls for the list."""
        seen = self.look()
        named = all(one.folder in self.places for one in seen)
        return seen if named and len(seen) <= TOGETHER else None


def version(folder: Path) -> str:
    """Of what the files of a run hold."""
    parts = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file() and entry.name not in _UNSHOWN and not entry.name.endswith(".part"):
                    about = entry.stat()
                    parts.append(f"{entry.name} {about.st_size} {about.st_mtime_ns}")
    except OSError as error:
        parts.append(f"unreadable: {error.errno}")
    parts.append(str(Record(folder).is_held()))
    return digest(sorted(parts))


def digest(parts: Iterable[str]) -> str:
    """Of texts, short enough for a header."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", errors="surrogateescape")).hexdigest()[:24]


def _id(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
