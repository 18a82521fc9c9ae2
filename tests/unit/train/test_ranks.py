"""Processes of one run: what they add up, what they say to each other, and how a lone one is spared all of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import launching
from tutelage.data.share import divide, micro_batches_of_rank
from tutelage.errors import MachineError, Problem, RecipeError
from tutelage.train.meeting import start
from tutelage.train.ranks import ALONE
from tutelage.types import Example, Origin

DRIVER = Path(__file__).with_name("rank_driver.py")


def test_two_processes_meet(tmp_path: Path) -> None:
    with launching.Launched(2, [DRIVER, "meet"]) as launched:
        assert launched.wait() == [0, 0], launched.said(0) + launched.said(1)
        said = [json.loads(launched.said(rank).splitlines()[-1]) for rank in range(2)]
    for rank, found in enumerate(said):
        assert found["gradients"] == [[3.0] * 3, [1.0] * 3, [3.0] * 3, float(1 << 21), True]
        assert found["agree"] == {"stop": [1], "full": [], "both": [0, 1]}
        assert found["gather"] == [{"rank": 0, "text": "é"}, {"rank": 1, "text": "é" * 51}]
        assert found["broadcast"] == {"n": 7}
        assert (found["by_first"], found["only_first"]) == ("0", 5 if rank == 0 else None)
        assert (found["largest"], found["add"]) == (3, [4, 4, 6])
        assert found["in_turn"]
        assert found["loopback"]
    # The one that it happened to raises its own error; the other is told whose it is.
    assert said[1]["raised"] == "MachineError machine/disk-full /there"
    assert said[0]["raised"] == "MachineError machine/disk-full rank 1: /there"
    assert said[0]["stumbled"] == "ZeroDivisionError: a bug"
    assert said[1]["stumbled"] == "WorkerError: error[worker/lost]: another process of the run failed"


def test_a_process_by_itself_meets_nobody() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    ALONE.sum_gradients([parameter])
    assert parameter.grad is None
    assert ALONE.first
    assert ALONE.alone
    assert ALONE.agree({"stop": True, "full": False}) == {"stop": [0], "full": []}
    assert ALONE.gather(3) == [3]
    assert ALONE.broadcast(4) == 4
    assert ALONE.in_turn(lambda: 5) == 5
    losses = [torch.ones(()), torch.zeros(())]
    assert ALONE.each(losses) is losses
    assert ALONE.largest(3) == 3
    assert ALONE.add([(1, 2), (3, 4)]) == [4, 6]
    with pytest.raises(MachineError):
        ALONE.together(lambda: (_ for _ in ()).throw(MachineError(Problem("machine/disk-full", "full"))))
    assert not torch.distributed.is_initialized()


def test_an_environment_that_names_several_processes_and_no_meeting_place_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert start() is ALONE
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match=r"RANK=\(not set\)"):
        start()
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(RecipeError, match="torchrun"):
        start()


def _examples(*lengths: int) -> list[Example]:
    rng = np.random.default_rng(0)
    return [
        Example(rng.integers(5, 99, n).astype(np.int32), (np.arange(n) > 0).astype(np.float32), Origin("made", i), 1)
        for i, n in enumerate(lengths)
    ]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_example_is_computed_once_and_all_have_equally_many_micro_batches(world: int) -> None:
    examples = _examples(*range(10, 60, 3))
    parts = divide(examples, 100, share=False, world=world)
    computed = [index for own in parts for part in own if part.forest for index in part.forest.order]
    assert sorted(computed) == list(range(len(examples)))
    assert len({len(own) for own in parts}) == 1
    indices = [part.index for own in parts for part in own]
    assert sorted(indices) == list(range(len(indices)))
    assert divide(examples, 100, share=False, world=world) == parts


def test_the_work_is_balanced() -> None:
    examples = _examples(*(8 + 97 * i % 120 for i in range(64)))
    loads = [
        sum(batch.computed_tokens for batch in micro_batches_of_rank(examples, 512, share=False, rank=rank, world=4))
        for rank in range(4)
    ]
    assert sum(loads) == sum(map(len, examples))
    assert max(loads) <= 1.1 * min(loads)


def test_one_long_example_leaves_the_others_with_nothing_that_counts() -> None:
    examples = _examples(200)
    for rank in range(3):
        (batch,) = micro_batches_of_rank(examples, 512, share=True, rank=rank, world=3)
        assert (batch.tokens, len(batch.targets)) == ((200, 199) if rank == 0 else (2, 0))
