"""F2: the process ends before each file operation of a save and of what is removed after it, or in the middle of one.

Two saves are broken so, the second of which removes an older checkpoint; then every other operation of a process that
goes on, from its start to its report.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from harness import HERE, LONG, Job, job, together
from outcomes import outcome

AFTER = 52
"""The broken run starts after this step, from the checkpoint of step 50; it saves at 55 and 60."""
MIDDLES = ("write", "save")
"""What can be half done."""


def operations(r60: Job, folder: Path, **what: object) -> list[tuple[int, str, str]]:
    """What an unbroken continuation does, numbered."""
    r60.broken_off(folder, AFTER)
    out = folder / "operations"
    r60.done(folder, [*HERE, ("operations:record", {"root": str(folder / "run"), "out": str(out), **what})])
    r60.same(folder)
    return [tuple(json.loads(line)) for line in out.read_text("utf-8").splitlines()]


def breaking(r60: Job, folder: Path, at: int, *, half: bool, **what: object) -> None:
    """End a process at an operation; nothing false verifies, and the same command brings the same end."""
    r60.broken_off(folder, AFTER)
    arguments = {"root": str(folder / "run"), "at": at, "half": half, **what}
    end = r60.begin(folder, [*HERE, ("operations:die", arguments)]).wait()
    assert end.code in (0, 9), end.said[-2000:]
    good = r60.true(folder)
    assert max(good) >= 50, good
    end = r60.done(folder)
    assert end.resumed_after == max(good) or "holds the whole run" in end.said, end.said[-1000:]
    r60.same(folder)
    shutil.rmtree(folder)


def points(known: list[tuple[int, str, str]], every: int) -> list[tuple[int, bool, str]]:
    """Where to break: before each operation, and in the middle of those that have one."""
    both = [(n, half, name) for n, kind, name in known for half in (False, True) if not half or kind in MIDDLES]
    return both if LONG else both[every // 2 :: every]


@pytest.mark.parametrize("variant", ["lora", "full"] if LONG else ["lora"])
@pytest.mark.parametrize("stretch", ["saves", "whole"])
def test_ended_at_each_operation(tmp_path, variant, stretch):
    r60 = job(variant)
    what = {"since": ".step-00000055", "thread": True} if stretch == "saves" else {}
    known = operations(r60, tmp_path / "counted", **what)
    kinds = {kind for _, kind, _ in known}
    assert {"mkdir", "save", "write", "fsync", "fsync folder", "rename", "unlink", "rmdir"} <= kinds
    fault = {"saves": "ended at each file operation of two saves", "whole": "ended at any operation of a process"}
    every = {"saves": 20, "whole": 60}[stretch]
    with outcome("F2", fault[stretch], variant) as found:
        chosen = points(known, every)
        together(
            [
                partial(found.check, partial(breaking, r60, tmp_path / f"{n}-{half}", n, half=half, **what))
                for n, half, _ in chosen
            ]
        )
        found.note = f"{len(known)} operations; {sum(half for _, half, _ in chosen)} in the middle of a write"
