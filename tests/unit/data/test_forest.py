"""What examples have in common is computed once: every token on one path, within the budget, only where it pays."""

from __future__ import annotations

import time
from itertools import combinations, pairwise
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data import prefixes
from tutelage.data.batch import lay_out, pack
from tutelage.data.cut import cut, whole
from tutelage.data.forest import Forest, Segment, segments, trees_of_one
from tutelage.data.plan import micro_batches
from tutelage.types import Example, Origin

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=14)
COSTS = st.sampled_from([0.0, 0.03, 0.3, 2.0])


def example(ids) -> Example:
    ids = np.array(ids, dtype=np.int32)
    return Example(ids, np.ones(len(ids), dtype=np.float32) * (np.arange(len(ids)) > 0), Origin("made", 1), 1)


def examples_of(rows) -> list[Example]:
    return [example(row) for row in rows]


def costing(cost: float):
    return patch.object(prefixes, "BRANCH_COST", cost)


def visible(batch) -> np.ndarray:
    """The rule, as a table: whether token i sees token j."""
    exits = np.concatenate([np.full(end - start, out) for start, end, out in batch.segments])
    i, j = np.arange(len(exits))[:, None], np.arange(len(exits))[None]
    return (j <= i) & (i < exits[j])


def computed(examples, forest: Forest) -> int:
    return sum(len(examples[i]) - n for i, n in zip(forest.order, forest.shared, strict=True))


def trie_size(rows) -> int:
    """Tokens when all that can be shared is."""
    return len({tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)})


@given(ROWS, COSTS)
def test_every_token_is_on_one_path(rows, cost):
    examples = examples_of(rows)
    with costing(cost):
        forest = whole(examples, share=True)
        batch = lay_out(examples, forest)
    sees = visible(batch)
    paths = [tuple(np.flatnonzero(line)) for line in sees]
    # Depth is how many are seen before, and what is seen is, in order, the beginning of an example.
    assert batch.position_ids.tolist() == [len(path) - 1 for path in paths]
    for line, path in zip(sees, paths, strict=True):
        assert all(paths[at] == path[: depth + 1] for depth, at in enumerate(path)), line
    spelled = {path: batch.input_ids[list(path)].tolist() for path in paths}
    assert all(row in spelled.values() for row in rows)
    # No token is there for nothing: each is on the path of an example.
    ends = [path for path, ids in spelled.items() if ids in rows]
    assert set().union(*ends) == set(range(batch.computed_tokens))
    if cost == 0.0:
        assert batch.computed_tokens == trie_size(rows)
        assert sorted(spelled.values()) == sorted(list(ids) for ids in {tuple(ids) for ids in spelled.values()})
    assert batch.computed_tokens == computed(examples, forest) <= batch.tokens == sum(map(len, rows))


@given(ROWS, COSTS)
def test_segments_cover_the_row_and_are_as_long_as_they_can_be(rows, cost):
    with costing(cost):
        batch = pack(examples_of(rows), share=True)
    found = batch.segments
    assert [start for start, _, _ in found] == [0, *(end for _, end, _ in found[:-1])]
    assert found[-1].end == batch.computed_tokens
    assert all(start < end <= out for start, end, out in found)
    for start, _, out in found:  # nested, never crossing
        assert all(other.exit <= out for other in found if start <= other.start < out)
    for start, end, out in found:
        children = [
            other
            for other in found
            if end <= other.start < out and depth(batch, other) == depth_after(batch, start, end)
        ]
        assert len(children) != 1, "a run was cut where nothing parts"
        assert sum(child.exit - child.start for child in children) == out - end


def depth(batch, segment: Segment) -> int:
    return int(batch.position_ids[segment.start])


def depth_after(batch, start: int, end: int) -> int:
    return int(batch.position_ids[start]) + end - start


@given(ROWS, COSTS, st.integers(1, 40))
def test_a_cut_keeps_the_budget_and_loses_nothing(rows, cost, budget):
    examples = examples_of(rows)
    with costing(cost):
        forests = cut(examples, budget, share=True)
    assert sorted(index for forest in forests for index in forest.order) == list(range(len(rows)))
    for forest in forests:
        assert forest.shared[0] == 0
        assert computed(examples, forest) <= budget or len(forest.order) == 1
        for (before, after), shared in zip(pairwise(forest.order), forest.shared[1:], strict=True):
            assert rows[before][:shared] == rows[after][:shared]
            assert shared <= min(len(rows[before]), len(rows[after]))
        batch = lay_out(examples, forest)
        assert batch.computed_tokens == computed(examples, forest) <= sum(len(rows[i]) for i in forest.order)
    assert sum(computed(examples, forest) for forest in forests) <= sum(map(len, rows))


@given(ROWS, st.integers(1, 40))
def test_no_two_forests_could_have_been_one(rows, budget):
    with costing(0.0):
        forests = cut(examples_of(rows), budget, share=True)
    fitting = [f.order for f in forests if trie_size([rows[i] for i in f.order]) <= budget]
    assert all(trie_size([rows[i] for i in one + other]) > budget for one, other in combinations(fitting, 2))


@given(ROWS, st.integers(1, 40))
def test_without_sharing_the_lengths_decide(rows, budget):
    forests = cut(examples_of(rows), budget, share=False)
    assert [forest.order for forest in forests] == micro_batches([len(row) for row in rows], budget)
    assert all(forest.shared == [0] * len(forest.order) for forest in forests)


@given(st.lists(st.integers(1, 9), max_size=6))
def test_trees_of_one_are_the_forest_that_shares_nothing(lengths):
    assert segments(lengths, [0] * len(lengths)) == trees_of_one(lengths)


def test_the_drawing_is_what_is_laid_out():
    batch = pack(examples_of([[0, 1, 2, 3], [0, 1, 2, 4, 5], [0, 1, 6]]), share=True)
    assert sorted(batch.input_ids.tolist()) == [0, 1, 2, 3, 4, 5, 6]
    forest = segments([4, 5, 3], [0, 3, 2])
    assert forest == (Segment(0, 2, 7), Segment(2, 3, 6), Segment(3, 4, 4), Segment(4, 6, 6), Segment(6, 7, 7))


@pytest.mark.parametrize(
    ("lengths", "shared", "expected"),
    [
        ([3, 5], [0, 3], [(0, 5, 5)]),  # continued at its end: one run
        ([5, 3], [0, 3], [(0, 5, 5)]),  # ends where another passes
        ([4, 4, 4], [0, 4, 4], [(0, 4, 4)]),  # the same three times
        ([5, 3, 5], [0, 3, 3], [(0, 3, 7), (3, 5, 5), (5, 7, 7)]),
        ([1, 1], [0, 0], [(0, 1, 1), (1, 2, 2)]),
    ],
)
def test_no_segment_is_empty(lengths, shared, expected):
    assert segments(lengths, shared) == tuple(Segment(*one) for one in expected)


def worded(prefix: int, count: int, length: int, seed: int = 0) -> list[Example]:
    """Rows with a common beginning, of that many tokens each in all."""
    rng = np.random.default_rng(seed)
    head = rng.integers(0, 10**6, prefix)
    return [example([*head, *rng.integers(0, 10**6, length - prefix)]) for _ in range(count)]


def test_a_system_prompt_is_shared_and_three_tokens_are_not():
    for count in (2, 16):
        assert pack(worded(24, count, 180), share=True).computed_tokens == 24 + count * 156
    few = pack(worded(3, 16, 180), share=True)
    assert few.computed_tokens == few.tokens
    assert all(segment.end == segment.exit for segment in few.segments)


@pytest.mark.parametrize(("prefix", "kept"), [(5, False), (6, True)])
def test_two_rows_share_what_is_longer_than_three_percent_of_the_rest(prefix, kept):
    """5 tokens once less, and 190 below them: 5 < 5.7. With 6 it is 6 > 5.64."""
    batch = pack(worded(prefix, 2, 100), share=True)
    assert batch.computed_tokens == (200 - prefix if kept else 200)


def test_a_branch_is_not_kept_for_what_another_one_saves():
    """24 tokens over eight documents save 7 x 24, however many questions there are on each document."""
    groups = [worded(400, 20, 450, seed) for seed in range(8)]
    rows = [example([*range(24), *row.input_ids]) for group in groups for row in group]
    batch = pack(rows, share=True)
    assert batch.computed_tokens == 8 * (424 + 20 * 50)
    assert sum(segment.exit > segment.end for segment in batch.segments) == 8


def test_short_steps_are_kept_once_they_are_long_together():
    """Each of these branches adds one token to the one before: none pays alone, together they do."""
    rng = np.random.default_rng(0)
    rows = [example([*range(step), *rng.integers(1000, 10**6, 200)]) for step in range(1, 65)]
    batch = pack(rows, share=True)
    assert batch.computed_tokens < 0.9 * batch.tokens
    assert 2 <= sum(segment.exit > segment.end for segment in batch.segments) <= 12


@given(ROWS, st.sampled_from([0.03, 0.3, 2.0]))
def test_sharing_never_costs_more_than_it_saves(rows, cost):
    with costing(cost):
        batch = pack(examples_of(rows), share=True)
    attention = sum(out - end for _, end, out in batch.segments)
    assert batch.computed_tokens + cost * attention <= batch.tokens


def test_a_large_tree_is_cut_into_few_parts_that_each_carry_the_prefix():
    questions = worded(1500, 40, 1600)
    forests = cut(questions, 4096, share=True)
    assert [computed(questions, forest) for forest in forests] == [1500 + 25 * 100, 1500 + 15 * 100]
    documents = [one for seed in range(6) for one in worded(1500, 8, 1600, seed)]
    forests = cut(documents, 2300, share=True)
    assert [set(i // 8 for i in forest.order) for forest in forests] == [{n} for n in range(6)] or len(forests) == 6
    assert all(len({i // 8 for i in forest.order}) == 1 for forest in forests)


def test_an_example_over_the_budget_stays_alone():
    rows = examples_of([[1] * 30, [1] * 30, [1] * 31, [1, 2]])
    assert sorted(forest.order for forest in cut(rows, 10, share=True)) == [[0], [1], [2], [3]]
    assert cut([], 10, share=True) == cut([], 10, share=False) == []


def test_a_chain_longer_than_the_stack_is_cut():
    rows = examples_of([[7] * n for n in range(1, 1500)])
    with costing(0.0):
        assert pack(rows, share=True).segments == ((0, 1499, 1499),)
        assert len(cut(rows, 1499, share=True)) == 1


def test_ten_thousand_are_cut_and_laid_out_within_a_second_or_so():
    rng = np.random.default_rng(0)
    head = rng.integers(0, 49152, 24)
    rows = [example([*head, *rng.integers(0, 49152, rng.integers(20, 330))]) for _ in range(10_000)]
    start = time.perf_counter()
    forests = cut(rows, 4096, share=True)
    planned = time.perf_counter() - start
    assert sum(computed(rows, forest) for forest in forests) < 0.9 * sum(map(len, rows))
    assert planned < 3  # measured: 0.15 s
    assert 0.98 * len(forests) * 4096 < sum(computed(rows, forest) for forest in forests)
