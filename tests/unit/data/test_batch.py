"""A micro-batch is its examples in one row, and the edges that are trained, with what each is in each example."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data import prefixes
from tutelage.data.batch import MicroBatch, lay_out, pack
from tutelage.data.cut import cut
from tutelage.data.forest import trees_of_one
from tutelage.types import Example, Origin

WEIGHTS = st.sampled_from([0.0, 0.0, 0.5, 1.0, 3.0])
ROWS = st.lists(st.lists(st.tuples(st.integers(0, 2), WEIGHTS), min_size=1, max_size=12), min_size=1, max_size=8)
COSTS = st.sampled_from([0.0, 0.03, 0.5, 3.0])
FIELDS = [name for name in MicroBatch.__slots__ if name not in ("segments", "tokens")]


def example(tokens) -> Example:
    weights = np.array([weight for _, weight in tokens], dtype=np.float32)
    weights[0] = 0.0
    return Example(np.array([id for id, _ in tokens], dtype=np.int32), weights, Origin("made", 1), 1)


def end_to_end(examples) -> MicroBatch:
    """The examples one after the other, each whole."""
    lengths = [len(one) for one in examples]
    ids = np.concatenate([one.input_ids for one in examples]).astype(np.int64)
    weights = np.concatenate([one.weights for one in examples])
    at = np.flatnonzero(weights)
    return MicroBatch(
        input_ids=ids,
        position_ids=np.concatenate([np.arange(n) for n in lengths]),
        segments=trees_of_one(lengths),
        positions=at - 1,
        targets=ids[at],
        weights=weights[at],
        owned=np.arange(len(at)),
        owners=np.repeat(np.arange(len(lengths)), lengths)[at],
        owner_weights=weights[at],
        tokens=len(ids),
    )


def paths(batch: MicroBatch) -> list[list[int]]:
    """The ids visible to each token, by the rule."""
    exits = np.concatenate([np.full(end - start, out) for start, end, out in batch.segments])
    return [[int(batch.input_ids[j]) for j in range(i + 1) if i < exits[j]] for i in range(len(exits))]


@given(ROWS)
def test_without_sharing_the_examples_stand_end_to_end(rows):
    examples = [example(row) for row in rows]
    found, expected = pack(examples), end_to_end(examples)
    for name in FIELDS:
        mine, other = getattr(found, name), getattr(expected, name)
        assert mine.dtype == other.dtype, name
        assert mine.tolist() == other.tolist(), name
    assert (found.segments, found.tokens) == (expected.segments, expected.tokens)
    assert found.computed_tokens == found.tokens


@given(ROWS, COSTS, st.integers(1, 60))
def test_each_example_has_the_edges_that_it_has_alone(rows, cost, budget):
    examples = [example(row) for row in rows]
    found: dict[int, list] = {index: [] for index in range(len(rows))}
    total = 0.0
    with patch.object(prefixes, "BRANCH_COST", cost):
        forests = cut(examples, budget, share=True)
    for forest in forests:
        batch = lay_out(examples, forest)
        seen = paths(batch)
        assert batch.owners.tolist() == sorted(batch.owners.tolist())
        assert set(batch.owners.tolist()) <= set(forest.order)
        for edge, owner, weight in zip(
            batch.owned.tolist(), batch.owners.tolist(), batch.owner_weights.tolist(), strict=True
        ):
            found[owner].append((seen[batch.positions[edge]], int(batch.targets[edge]), weight))
        edges = list(zip(batch.positions.tolist(), batch.targets.tolist(), strict=True))
        assert len(set(edges)) == len(edges), "an edge comes twice"
        assert set(batch.owned.tolist()) == set(range(len(edges))), "an edge is nobody's"
        assert (batch.weights > 0).all()
        sums = np.bincount(batch.owned, weights=batch.owner_weights, minlength=len(edges))
        assert batch.weights.tolist() == sums.tolist()  # these weights have exact sums
        assert batch.supervised_tokens == sum(examples[index].supervised for index in forest.order)
        total += float(batch.weights.sum())
    for one, edges in zip(examples, found.values(), strict=True):
        ids = one.input_ids.tolist()
        assert edges == [(ids[:i], ids[i], float(one.weights[i])) for i in range(1, len(ids)) if one.weights[i] > 0]
    assert total == sum(float(one.weights.sum()) for one in examples)


def test_the_first_token_after_a_branch_is_predicted_from_the_last_one_before_it():
    """Once for each different token, with the weights of all that continue with it."""
    rows = [[(1, 0), (2, 0), (3, 1.0)], [(1, 0), (2, 0), (4, 0.5), (5, 1.0)], [(1, 0), (2, 0), (4, 3.0)]]
    batch = pack([example(row) for row in rows], share=True)
    edges = set(zip(batch.positions.tolist(), batch.targets.tolist(), batch.weights.tolist(), strict=True))
    fork = batch.input_ids.tolist().index(2)
    assert {edge for edge in edges if edge[0] == fork} == {(fork, 3, 1.0), (fork, 4, 3.5)}
    assert batch.owners.tolist() == [0, 1, 1, 2]
    assert batch.owner_weights.tolist() == [1.0, 0.5, 1.0, 3.0]
    assert batch.owned.tolist()[1] == batch.owned.tolist()[3]


def test_an_edge_is_shared_where_the_token_after_it_is_not():
    """Kept apart from here on, two examples still take their next token from the same place: one edge, not two."""
    head = [(n, 0) for n in range(40)]
    rows = [[*head, (7, 1.0), *[(100 * k + n, 1.0) for n in range(60)]] for k in range(1, 4)]
    with patch.object(prefixes, "BRANCH_COST", 0.0):
        assert pack([example(row) for row in rows], share=True).computed_tokens == 41 + 3 * 60
    # The last two have nine tokens more in common, which are not worth a branch of their own.
    tails = [[(7, 1.0), (8, 1.0), *[(100 * k + n, 1.0) for n in range(400)]] for k in range(1, 4)]
    batch = pack([example([*head, (6, 1.0)]), *(example([*head, *tail]) for tail in tails[:2])], share=True)
    assert batch.input_ids.tolist().count(7) == 3, "one in the head, one in each of the two"
    assert list(zip(batch.positions.tolist(), batch.targets.tolist(), strict=True)).count((39, 7)) == 1


@pytest.mark.parametrize("share", [True, False])
def test_examples_without_a_trained_token_make_no_edge(share):
    batch = pack([example([(1, 0.0), (2, 0.0)]), example([(1, 0.0)])], share=share)
    assert len(batch.positions) == len(batch.weights) == batch.supervised_tokens == 0


@pytest.mark.parametrize("share", [True, False])
def test_the_types_are_those_that_the_model_takes(share):
    batch = pack([example([(1, 0.0), (2, 1.0)]), example([(1, 0.0), (2, 0.5)])], share=share)
    types = {name: getattr(batch, name).dtype for name in FIELDS}
    assert types.pop("weights") == types.pop("owner_weights") == np.float32
    assert set(types.values()) == {np.dtype(np.int64)}
    assert batch.positions.tolist() == ([0] if share else [0, 2])


def test_ids_of_any_vocabulary_are_kept_apart():
    batch = pack([example([(2**31 - 1, 0.0), (2**31 - 1, 1.0), (0, 1.0)])], share=True)
    assert batch.targets.tolist() == [2**31 - 1, 0]
    assert batch.positions.tolist() == [0, 1]
