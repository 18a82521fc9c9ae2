"""What the trainer does when a follower has ended."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext

import pytest
from filelock import FileLock

from tutelage import files
from tutelage.runs import Run
from tutelage.track.followers import Followers


@pytest.mark.parametrize("look", [Followers.check, Followers.finish])
@pytest.mark.parametrize("another", [False, True])
def test_a_killed_follower_leaves_nothing_half_written(tmp_path, look, another):
    """It held a note half written; another follower that has begun meanwhile keeps its own."""
    half, said = files.part_of(tmp_path / "track" / "wandb.json"), []
    half.parent.mkdir()
    half.write_text('{"sent": {"met')
    killed = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    killed.kill()
    killed.wait()
    lock = FileLock(tmp_path / "track" / "wandb.lock")
    with lock if another else nullcontext():
        look(Followers(Run(tmp_path), said.append, {"wandb": killed}))
    assert half.exists() == another
    assert len(said) == 1


def test_a_follower_that_ends_in_a_folder_that_is_gone(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    Followers(Run(tmp_path / "gone"), print, {"wandb": ended}).check()
    assert not (tmp_path / "gone").exists()
