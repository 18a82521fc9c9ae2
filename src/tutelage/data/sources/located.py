"""From the paths of a source to the files and hub data sets that they stand for, each exactly once.

A path that exists is that file or folder, whatever characters are in its name; then comes the reading as a hub id
(`organisation/name`), then the one as a pattern. A folder is its own data files by name, without its subfolders.
Names that begin with a dot are left out of folders and patterns, because they are copies that some program keeps.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from tutelage.data.sources.remote import glob_address, scheme
from tutelage.data.sources.stored import ENDINGS, ending, no_access, regular
from tutelage.errors import DataError, Problem, RecipeError

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_PATTERN = re.compile(r"[*?[]")
_UNREAD = re.compile(r"\.(bz2|xz|lz4|zip|7z|rar|tar|tgz|tsv|arrow|feather|orc|avro|xlsx?)$", re.IGNORECASE)
"""Endings of files that may well hold rows; to leave one out of a folder in silence would lose them."""


class Place(NamedTuple):
    """One file, address or hub data set, and the path of the recipe that named it."""

    path: str
    named: str
    on_hub: bool = False


def locate(paths: str | Sequence[str]) -> list[Place]:
    """List what the paths stand for, in their order; what one folder or pattern stands for is sorted by name.

    Raises `DataError` when a path stands for nothing, `RecipeError` when two stand for the same file, `MachineError`
    when a folder may not be read.
    """
    named = [paths] if isinstance(paths, str) else list(paths)
    places: list[Place] = []
    for path in named:
        try:
            places += [Place(path, path, True)] if is_hub_id(path) else [Place(file, path) for file in _files(path)]
        except PermissionError as error:
            raise no_access(str(error.filename or path), error) from error
    _refuse_twice(places)
    return places


def is_hub_id(path: str) -> bool:
    """Tell whether a path is `organisation/name` and no local file or folder."""
    return bool(_HUB_ID.fullmatch(path)) and not os.path.lexists(path) and not ending(path)[0]


def _refuse_twice(places: list[Place]) -> None:
    """Refuse a file that is named twice: read once it would lose rows, read twice it would double them."""
    seen: dict[object, Place] = {}
    for place in places:
        key: object = place.path
        if not place.on_hub and "://" not in place.path:
            known = regular(place.path)
            key = (known.st_dev, known.st_ino)
        first = seen.setdefault(key, place)
        if first is not place:
            what = f"one source reads `{place.path}` twice"
            found = f"as `{first.path}` of `{first.named}`, and again by `{place.named}`"
            fix = "remove one of the two; to repeat rows, use data.mixture"
            raise RecipeError(Problem("recipe/conflict", what, place.path, found, fix=fix))


def _files(path: str) -> list[str]:
    if "://" in path:
        return _address(path)
    place = Path(path)
    if place.is_dir():
        return _data_files(path, [entry.path for entry in _entries(place) if not entry.is_dir()])
    if os.path.lexists(path):
        return [_known(path)]
    if _PATTERN.search(path):
        return _matches(path)
    raise DataError(Problem("data/missing-file", f"`{path}` does not exist", **neighbours(place)))


def _known(path: str) -> str:
    if not ending(path)[0]:
        known = f"the known endings are {ENDINGS}"
        raise DataError(Problem("data/unknown-type", f"`{path}` has an unknown ending", path, fix=known))
    return path


def _address(path: str) -> list[str]:
    """An address, or what a pattern stands for; on a web server `?` and `*` are characters like others."""
    if scheme(path) in ("http", "https") or not _PATTERN.search(path):
        return [_known(path)]
    return _data_files(path, glob_address(path))


def _matches(pattern: str) -> list[str]:
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if _PATTERN.search(part))
    base, wanted = Path(*parts[:first]), [*parts[first:], *(["*"] if parts[-1] == "**" else [])]
    if not base.is_dir():
        raise DataError(Problem("data/missing-file", f"`{pattern}` matches no file", **neighbours(base)))
    found = sorted(set(_walk(base, wanted)))
    if not found:
        inside = ", ".join(f"`{entry.name}`" for entry in _entries(base)[:10]) or "nothing"
        what, where = f"`{pattern}` matches no file", str(base)
        raise DataError(Problem("data/missing-file", what, where, f"{inside} in `{base}`", fix="correct the pattern"))
    return _data_files(pattern, [str(path) for path in found])


def _walk(folder: Path, parts: list[str]) -> Iterator[Path]:
    """Yield the files below a folder that fit; unlike `glob`, raise when a folder may not be read.

    `**` does not follow links to folders, so a loop of links ends.
    """
    here, *rest = parts
    if here == "**":
        yield from _walk(folder, rest)
    for entry in _entries(folder, hidden=here.startswith(".")):
        if here == "**":
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(folder / entry.name, parts)
        elif fnmatchcase(entry.name, here):
            if not rest and not entry.is_dir():
                yield folder / entry.name
            elif rest and entry.is_dir():
                yield from _walk(folder / entry.name, rest)


def _entries(folder: Path, *, hidden: bool = False) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        inside = [entry for entry in entries if hidden or not entry.name.startswith(".")]
    return sorted(inside, key=lambda entry: entry.name)


def _data_files(named: str, files: list[str]) -> list[str]:
    """Keep the files with a known ending; refuse to leave out one that may hold rows."""
    unread = [file for file in files if not ending(file)[0] and _UNREAD.search(file)]
    if unread:
        what = f"`{named}` holds a file that may hold rows and cannot be read"
        fix = f"convert it, or name the others; the known endings are {ENDINGS}"
        raise DataError(Problem("data/unknown-type", what, unread[0], fix=fix))
    known = [file for file in files if ending(file)[0]]
    if known:
        return known
    names = [Path(file).name for file in files]
    if os.path.isdir(named):
        names = [entry.name for entry in _entries(Path(named))]
    found = ", ".join(f"`{name}`" for name in names[:10]) or "nothing"
    fix = f"name a file, a folder, or a folder and `/**` for what lies deeper; the known endings are {ENDINGS}"
    raise DataError(Problem("data/missing-file", f"`{named}` holds no data file", named, found, fix=fix))


def neighbours(place: Path) -> dict[str, str]:
    """Say what lies near a path that does not exist."""
    if not place.parent.is_dir():
        return {"found": f"there is no folder `{place.parent}`", "fix": "correct the path"}
    names = [entry.name for entry in _entries(place.parent, hidden=True)]
    close = difflib.get_close_matches(place.name, names, n=3, cutoff=0.5)
    fix = "did you mean " + " or ".join(f"`{place.parent / name}`" for name in close) if close else "correct the path"
    return {"found": f"{len(names)} other names in `{place.parent}`", "fix": fix}
