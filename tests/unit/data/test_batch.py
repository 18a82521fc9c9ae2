"""A micro-batch is its examples end to end, with the edges that are trained."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data.batch import pack
from tutelage.types import Example, Origin

TOKENS = st.lists(st.tuples(st.integers(0, 99), st.sampled_from([0.0, 0.0, 0.5, 1.0, 3.0])), min_size=1, max_size=12)


def example(tokens) -> Example:
    weights = np.array([weight for _, weight in tokens], dtype=np.float32)
    weights[0] = 0.0
    return Example(np.array([id for id, _ in tokens], dtype=np.int32), weights, Origin("made", 1), 1)


@given(st.lists(TOKENS, min_size=1, max_size=6))
def test_every_trained_token_is_one_edge_from_the_token_before_it(rows):
    examples = [example(row) for row in rows]
    batch = pack(examples)
    assert batch.tokens == sum(map(len, examples))
    assert batch.lengths == tuple(map(len, examples))
    edges = []
    start = 0
    for owner, one in enumerate(examples):
        assert batch.input_ids[start : start + len(one)].tolist() == one.input_ids.tolist()
        assert batch.position_ids[start : start + len(one)].tolist() == list(range(len(one)))
        edges += [
            (start + i - 1, int(one.input_ids[i]), float(one.weights[i]), owner)
            for i in range(1, len(one))
            if one.weights[i] > 0
        ]
        start += len(one)
    columns = (batch.positions, batch.targets, batch.weights, batch.owners)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == edges


def test_the_types_are_those_that_the_model_takes():
    batch = pack([example([(1, 0.0), (2, 1.0)])])
    assert (batch.input_ids.dtype, batch.targets.dtype, batch.weights.dtype) == (np.int64, np.int64, np.float32)
    assert batch.positions.tolist() == [0]
