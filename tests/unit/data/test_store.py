"""What goes into the store comes out of it, whatever the parts; and a half-written part is no part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.data.store import Entry, Store, Writer, parts_of, size_of
from tutelage.types import Example, Origin

WEIGHTS = st.lists(st.sampled_from([0.0, 0.0, 1.0, 1.0, 0.5, 2.0]), min_size=1, max_size=12)
ROWS = st.lists(st.lists(WEIGHTS, min_size=1, max_size=3), max_size=12)


def example(weights, line, vocabulary) -> Example:
    array = np.array([0.0, *weights], dtype=np.float32)
    ids = (np.arange(len(array)) * 7919 + line * 104729) % vocabulary
    trained = np.flatnonzero(array)
    prompt = max(0, int(trained[0]) - line % 3) if len(trained) else len(array)  # thinking may come between
    return Example(ids.astype(np.int32), array, Origin("a.jsonl", line), prompt)


def entry(row, line, vocabulary) -> Entry:
    examples = [example(weights, line, vocabulary) for weights in row]
    return Entry(0, line, line % 3, line % 5, line * 2**40 + 1, 2**64 - line, 1, examples)


def filled(folder, rows, vocabulary, every=3) -> Store:
    writer = Writer(folder, vocabulary)
    for line, row in enumerate(rows, 1):
        writer.add(entry(row, line, vocabulary))
        if line % every == 0:
            writer.commit({})
    if writer.entries:
        writer.commit({})
    writer.finish({"files": ["a.jsonl"]}, {})
    return Store(folder)


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, vocabulary=st.sampled_from([100, 65536, 65537, 2**31 - 1]), every=st.integers(1, 5))
def test_every_example_comes_back(tmp_path_factory, rows, vocabulary, every):
    store = filled(tmp_path_factory.mktemp("store"), rows, vocabulary, every)
    expected = [e for line, row in enumerate(rows, 1) for e in entry(row, line, vocabulary).examples]
    assert len(store) == len(expected)
    for index, wanted in enumerate(expected):
        found = store.example(index)
        assert found.input_ids.tolist() == wanted.input_ids.tolist()
        assert found.weights.tolist() == wanted.weights.tolist()
        assert (found.origin, found.prompt_length) == (wanted.origin, wanted.prompt_length)
        assert store.lengths[index] == len(wanted)
        assert store.supervised[index] == wanted.supervised
    assert store.rows["prompt"].tolist() == [line * 2**40 + 1 for line in range(1, len(rows) + 1)]
    assert store.first_example.tolist() == np.cumsum([0, *map(len, rows)]).tolist()
    for wrong in (-1, len(expected)):
        with pytest.raises(IndexError):
            store.example(wrong)


def test_two_bytes_a_token_where_they_do(tmp_path):
    rows = [[[0.0] * 400 + [1.0] * 99]] * 50
    small, large = (size_of(filled(tmp_path / str(v), rows, v, every=50).folder) for v in (65536, 65537))
    tokens = 50 * 500
    assert large - small == pytest.approx(2 * tokens, abs=100)
    assert small < 1.2 * 2 * tokens


def test_a_part_without_its_name_is_no_part(tmp_path):
    filled(tmp_path, [[[1.0]]] * 6, 100)
    assert len(parts_of(tmp_path)) == 2
    (tmp_path / "part-00001").rename(tmp_path / "part-00001.new")
    assert len(parts_of(tmp_path)) == 1
