"""What a disk may hold after the power went: the operations of saves, replayed with unsynced ones lost.

The model is stricter than any file system we know. Content of a file is sure once the file was synced after the write;
a name in a folder (made, renamed, removed) is sure once that folder was synced afterwards. Of what is not sure, any
part may be there and any may not, whatever the order: content may be lost, zeros, half or whole.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from operations import Operation

CONTENTS = ("lost", "zeros", "half", "whole")
"""What may be left of content that was not synced."""


@dataclass
class Node:
    """A file or a folder, whatever its names."""

    folder: bool
    content: bytes = b""
    sure: bytes | None = None
    """Content as it was synced last; None before."""
    names: dict[str, int] = field(default_factory=dict)
    """Of a folder, as it was synced last."""
    pending: list[tuple[str, str, int]] = field(default_factory=list)
    """What was done to its names since: (removed or "", given or "", node)."""


class Disk:
    """The folders and files below a root, as a running system and as the disk have them."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.nodes: list[Node] = [Node(folder=True)]
        self.seen: dict[str, int] = {root: 0}
        """By path, as the running system has it."""

    def do(self, operation: Operation) -> None:
        """Follow an operation that was made."""
        kind, path = operation.kind, operation.path
        if kind == "mkdir" and path not in self.seen:
            self._name("", path, self._new(folder=True))
        elif kind in ("open", "save"):
            if path not in self.seen:
                self._name("", path, self._new(folder=False))
            elif operation.data:
                self.nodes[self.seen[path]].content = b""
            if kind == "save":
                self.nodes[self.seen[path]].content = operation.data
        elif kind == "write":
            self.nodes[self.seen[path]].content += operation.data
        elif kind == "fsync":
            node = self.nodes[self.seen[path]]
            node.sure = node.content
        elif kind == "fsync folder":
            node = self.nodes[self.seen[path]]
            node.names = _applied(node, range(len(node.pending)))
            node.pending = []
        elif kind == "rename":
            self._rename(path, operation.other)
        elif kind in ("unlink", "rmdir") and path in self.seen:
            parent = self.nodes[self.seen[os.path.dirname(path)]]
            parent.pending.append((os.path.basename(path), "", self.seen.pop(path)))

    def unsure(self) -> list[tuple[str, int, int]]:
        """What may or may not be on the disk: (content, node, 0) and (name, folder, number of the change)."""
        reached = list(enumerate(self.nodes))
        contents = [("content", n, 0) for n, node in reached if not node.folder and node.sure != node.content]
        names = [("name", n, k) for n, node in reached if node.folder for k in range(len(node.pending))]
        return contents + names

    def write(self, target: Path, chosen: dict[tuple[str, int, int], str]) -> None:
        """Make the folder as the disk may have it; `chosen` says of each unsure thing what came of it."""

        def put(number: int, path: Path) -> None:
            node = self.nodes[number]
            if node.folder:
                path.mkdir()
                kept = [k for k in range(len(node.pending)) if chosen[("name", number, k)] == "kept"]
                for name, child in _applied(node, kept).items():
                    put(child, path / name)
                return
            fate = chosen.get(("content", number, 0), "whole")
            sure = node.sure or b""
            if not node.content.startswith(sure):
                sure, before = b"", sure  # Written anew: nothing of it is sure.
            else:
                before = sure
            rest = node.content[len(sure) :]
            left = {"lost": before, "zeros": sure + bytes(len(rest)), "half": sure + rest[: len(rest) // 2]}
            path.write_bytes(left.get(fate, node.content))

        put(0, target)

    def _new(self, *, folder: bool) -> int:
        self.nodes.append(Node(folder))
        return len(self.nodes) - 1

    def _name(self, removed: str, given: str, node: int) -> None:
        parent = self.nodes[self.seen[os.path.dirname(given)]]
        parent.pending.append((os.path.basename(removed), os.path.basename(given), node))
        self.seen[given] = node

    def _rename(self, before: str, after: str) -> None:
        assert os.path.dirname(before) == os.path.dirname(after), "renamed into another folder"
        moved = {path: node for path, node in self.seen.items() if path == before or path.startswith(before + os.sep)}
        for path in [*moved, *(path for path in self.seen if path == after or path.startswith(after + os.sep))]:
            self.seen.pop(path, None)
        self._name(before, after, moved[before])
        self.seen |= {after + path[len(before) :]: node for path, node in moved.items()}


def _applied(node: Node, chosen: object) -> dict[str, int]:
    names = dict(node.names)
    for k in chosen:  # type: ignore[attr-defined]
        removed, given, child = node.pending[k]
        names.pop(removed, None)
        if given:
            names[given] = child
    return names


def fates(disk: Disk, chance: random.Random, most: int) -> Iterator[dict[tuple[str, int, int], str]]:
    """What may come of everything unsure: all combinations where those are few, and otherwise the extremes, each thing
    alone, and some by chance."""
    unsure = disk.unsure()
    options = [CONTENTS if kind == "content" else ("lost", "kept") for kind, _, _ in unsure]
    total = 1
    for each in options:
        total *= len(each)
    if total <= most:
        yield from (dict(zip(unsure, choice, strict=True)) for choice in itertools.product(*options))
        return
    good = {one: "whole" if one[0] == "content" else "kept" for one in unsure}
    bad = dict.fromkeys(unsure, "lost")
    yield from (good, bad)
    yield {one: "zeros" if one[0] == "content" else "kept" for one in unsure}
    for one in unsure:
        yield {**good, one: "lost"}
        yield {**bad, one: good[one]}
    for _ in range(most):
        yield {one: chance.choice(each) for one, each in zip(unsure, options, strict=True)}
