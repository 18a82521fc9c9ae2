"""Sides: groups stay together, sources are stratified, and rows that are added move nobody."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.data.ledger import Ledger
from tutelage.data.selection import HELDOUT, REASONS, TRAIN, select
from tutelage.data.split import position
from tutelage.data.store import ROW
from tutelage.recipe import DataOptions
from tutelage.types import Origin

MASK = 2**64 - 1


def key(number: int) -> int:
    """A well-mixed 64-bit key."""
    return (number * 0x9E3779B97F4A7C15 ^ (number * 0xBF58476D1CE4E5B9 >> 7)) & MASK


def stored(prompts, answers=None, sources=None, near=None):
    rows = np.zeros(len(prompts), ROW)
    rows["prompt"] = [key(prompt + 1) for prompt in prompts]
    rows["pair"] = [key(1000 * prompt + answer) for prompt, answer in zip(prompts, answers or prompts, strict=True)]
    rows["source"] = sources or 0
    rows["examples"] = rows["renderings"] = 1
    groups = None if near is None else np.array(near, dtype=np.int64)
    return SimpleNamespace(rows=rows, array=lambda name: groups, origin=lambda row: Origin("a", int(row) + 1))


def options(sources=1, **more) -> DataOptions:
    return DataOptions.model_validate({"train": [{"path": f"s{n}"} for n in range(sources)], **more})


PROMPTS = st.lists(st.integers(0, 30), min_size=1, max_size=60)


@settings(deadline=None)
@given(prompts=PROMPTS, share=st.floats(0.05, 0.9), links=st.lists(st.integers(0, 59), max_size=10), data=st.data())
def test_a_group_is_never_on_both_sides(prompts, share, links, data):
    near = list(range(len(prompts)))
    for link in links:  # each row of the list is like an earlier one
        if link < len(prompts):
            near[link] = near[data.draw(st.integers(0, link))]
    store = stored(prompts, near=near)
    sides = select(store, options(heldout=share, duplicates={"near": "keep"}), Ledger()).sides
    for labels in (prompts, near):
        for label in set(labels):
            assert len({sides[row] for row, other in enumerate(labels) if other == label}) == 1


@settings(deadline=None)
@given(prompts=PROMPTS, more=PROMPTS, share=st.floats(0.05, 0.9))
def test_rows_that_are_added_move_nobody(prompts, more, share):
    given = options(heldout=share)
    before = select(stored(prompts), given, Ledger()).sides
    after = select(stored([*prompts, *more]), given, Ledger()).sides
    hashed = [position(key(prompt + 1)) < share for prompt in prompts]
    if any(hashed):  # else one prompt is held out that would not be: the share is too small for so few rows
        assert after[: len(prompts)].tolist() == before.tolist() == [int(held) for held in hashed]


def test_every_source_has_held_out_rows():
    prompts = [*range(2000), *range(5000, 5020), *range(6000, 6003)]
    sources = [0] * 2000 + [1] * 20 + [2] * 3
    sides = select(stored(prompts, sources=sources), options(3, heldout=0.05), Ledger()).sides
    shares = [sides[np.array(sources) == source].mean() for source in range(3)]
    assert 0.03 < shares[0] < 0.07
    assert all(0 < share < 0.5 for share in shares)


def test_a_source_of_one_prompt_is_trained():
    sides = select(stored([1, 1, 1, 2, 3, 4], sources=[1, 1, 1, 0, 0, 0]), options(2, heldout=0.01), Ledger()).sides
    assert sides[:3].tolist() == [TRAIN] * 3
    assert (sides[3:] == HELDOUT).sum() == 1


@pytest.mark.parametrize(
    ("duplicates", "kept", "reason"),
    [
        ({}, [0, 1, 2, 3, 4, 5], None),
        ({"exact": "drop"}, [0, 2, 3, 4, 5], "duplicate row"),
        ({"prompt": "drop"}, [0, 3, 4, 5], "duplicate prompt"),
        ({"near": "drop"}, [0, 3, 5], "near-duplicate prompt"),
    ],
)
def test_repeats_are_dropped_as_told_and_counted(duplicates, kept, reason):
    store = stored([1, 1, 1, 2, 3, 4], answers=[1, 1, 2, 1, 1, 1], near=[0, 0, 0, 3, 3, 5])
    ledger = Ledger()
    sides = select(store, options(heldout=0, duplicates=duplicates), ledger).sides
    assert np.flatnonzero(sides == TRAIN).tolist() == kept
    assert ledger.trained + ledger.dropped.total() == ledger.rows == 6
    assert set(ledger.dropped) == ({reason} if reason else set())
    assert (ledger.duplicates, ledger.conflicts) == (2, 1)


def test_what_is_like_a_row_of_the_held_out_file_is_not_trained():
    store = stored([1, 2, 3, 4, 2], sources=[0, 0, 0, 0, 1], near=[0, 1, 1, 3, 1])
    ledger = Ledger()
    given = options(heldout={"path": "h"}, duplicates={"near": "keep"})
    sides = select(store, given, ledger).sides
    assert sides.tolist() == [TRAIN, 5, 6, TRAIN, HELDOUT]
    assert ledger.dropped == {REASONS[3]: 1, REASONS[4]: 1}
    assert (ledger.trained, ledger.heldout) == (2, 1)
    assert select(store, options(heldout={"path": "h"}), Ledger()).sides.tolist() == sides.tolist()


def test_groups_are_joined_through_chains():
    # 0 and 3 share a prompt, 3 is near 5, 5 shares a prompt with 7, and 1 is near 2: two groups and single rows.
    prompts, near = [1, 2, 3, 1, 4, 5, 6, 5], [0, 1, 1, 3, 4, 3, 6, 7]
    ledger = Ledger()
    sides = select(stored(prompts, near=near), options(heldout=0, duplicates={"near": "drop"}), ledger).sides
    assert np.flatnonzero(sides == TRAIN).tolist() == [0, 1, 4, 6]
