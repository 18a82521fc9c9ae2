"""The order is a keyed permutation; each example is used once a pass, and each micro-batch fits."""

from __future__ import annotations

import time
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data.plan import Permutation, global_batches, micro_batches, total_steps


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 1000))
def test_a_permutation_holds_every_index_once(size, seed, epoch):
    order = Permutation(size, seed=seed, epoch=epoch)
    assert sorted(order[position] for position in range(size)) == list(range(size))


@pytest.mark.parametrize("position", [-1, 5])
def test_a_permutation_has_no_other_positions(position):
    with pytest.raises(IndexError):
        Permutation(5, seed=0, epoch=0)[position]


def test_orders_differ_between_epochs_and_seeds_and_are_the_same_again():
    keys = [(seed, epoch) for seed in range(4) for epoch in range(4)]
    orders = {key: tuple(Permutation(50, seed=key[0], epoch=key[1])[p] for p in range(50)) for key in keys}
    assert len(set(orders.values())) == len(keys)
    assert tuple(range(50)) not in orders.values()
    assert orders[1, 2] == tuple(Permutation(50, seed=1, epoch=2)[p] for p in range(50))


def test_every_place_is_about_equally_likely():
    size, draws = 6, 3000
    firsts = [Permutation(size, seed=seed, epoch=0)[0] for seed in range(draws)]
    expected = draws / size
    assert all(abs(firsts.count(index) - expected) < 5 * expected**0.5 for index in range(size))


def orders(count, seed):
    return lambda epoch: Permutation(count, seed=seed, epoch=epoch)


def test_any_position_of_a_million_is_found_at_once():
    start = time.perf_counter()
    for epoch in range(100):
        order = Permutation(10**6, seed=1, epoch=epoch)
        assert all(0 <= order[position] < 10**6 for position in (0, 499_999, 999_999))
    assert time.perf_counter() - start < 1


@given(count=st.integers(1, 60), size=st.integers(1, 20), epochs=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_pass_uses_each_example_once_and_its_tail_is_a_step(count, size, epochs, seed):
    batches = list(global_batches(orders(count, seed), size=size, epochs=epochs))
    assert [batch.step for batch in batches] == list(range(1, len(batches) + 1))
    assert len(batches) == total_steps(count, size=size, epochs=epochs, steps=None)
    for epoch in range(epochs):
        mine = [batch.examples for batch in batches if batch.epoch == epoch]
        assert sorted(index for examples in mine for index in examples) == list(range(count))
        assert [len(examples) for examples in mine[:-1]] == [size] * (len(mine) - 1)
        assert 1 <= len(mine[-1]) <= size


@given(count=st.integers(1, 60), size=st.integers(1, 20), steps=st.integers(1, 40))
def test_steps_are_the_first_of_endless_passes(count, size, steps):
    batches = list(global_batches(orders(count, 7), size=size, steps=steps))
    assert len(batches) == steps == total_steps(count, size=size, epochs=None, steps=steps)
    assert batches == list(islice(global_batches(orders(count, 7), size=size, epochs=steps), steps))


@given(lengths=st.lists(st.integers(1, 50), max_size=60), budget=st.integers(1, 120))
def test_micro_batches_hold_every_index_once_within_the_budget(lengths, budget):
    groups = micro_batches(lengths, budget)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert group == sorted(group)
        assert sum(lengths[i] for i in group) <= budget or len(group) == 1
    fitting = [sum(lengths[i] for i in group) for group in groups if sum(lengths[i] for i in group) <= budget]
    # No two groups could have been one.
    assert all(a + b > budget for n, a in enumerate(fitting) for b in fitting[n + 1 :])


def test_few_groups_are_made():
    assert micro_batches([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]
    assert micro_batches([30, 1], 10) == [[0], [1]]
    assert micro_batches([], 10) == []
