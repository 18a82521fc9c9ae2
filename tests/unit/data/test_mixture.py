"""Mixtures: exact proportions in every epoch, no example again before its source was used up, any position at once."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.data.mixture import Mixture, Portion, portions
from tutelage.data.plan import Permutation
from tutelage.errors import RecipeError
from tutelage.recipe import MixtureOptions, Source

PORTIONS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 60)), min_size=1, max_size=4)


def mixture(pairs, seed=0) -> Mixture:
    first, found = 0, []
    for number, (size, taken) in enumerate(pairs):
        found.append(Portion(f"source {number}", first, size, taken, size * 10))
        first += size
    return Mixture(found, seed=seed)


def drawn(mixed, epoch):
    order = mixed.order(epoch)
    return [order[position][0] for position in range(len(order))]


@settings(deadline=None)
@given(pairs=PORTIONS, seed=st.integers(0, 99), epochs=st.integers(1, 5))
def test_each_epoch_takes_its_portions_and_each_source_in_passes(pairs, seed, epochs):
    mixed = mixture(pairs, seed)
    seen: Counter[int] = Counter()
    for epoch in range(epochs):
        slots = drawn(mixed, epoch)
        assert len(slots) == mixed.size == sum(taken for _, taken in pairs)
        for portion in mixed.portions:
            mine = [slot for slot in slots if portion.first <= slot < portion.first + portion.size]
            assert len(mine) == portion.taken
        seen.update(slots)
        for portion in mixed.portions:  # after any epoch, no example is more than one pass ahead of another
            counts = [seen[slot] for slot in range(portion.first, portion.first + portion.size)]
            assert max(counts) - min(counts) <= 1
            assert sum(counts) == portion.taken * (epoch + 1)


@given(size=st.integers(1, 50), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_without_a_mixture_the_order_is_the_permutation_itself(size, seed, epoch):
    order = Permutation(size, seed=seed, epoch=epoch)
    assert drawn(mixture([(size, size)], seed), epoch) == [order[position] for position in range(size)]


def test_a_late_position_costs_no_more_than_an_early_one():
    mixed = mixture([(10**6, 10**6), (10**5, 3 * 10**5), (7, 10**4)])
    start = time.perf_counter()
    for epoch in (0, 10**6):
        order = mixed.order(epoch)
        assert all(0 <= order[position][0] < 1_100_007 for position in (0, mixed.size // 2, mixed.size - 1))
    assert time.perf_counter() - start < 0.5


def taken(options, sizes=(100, 1000), tokens=(1000, 40_000), **sources):
    given = [Source(path="a", **{k: v[0] for k, v in sources.items()})]
    given += [Source(path="b", **{k: v[1] for k, v in sources.items()})]
    return [p.taken for p in portions(given, sizes, tokens, MixtureOptions(**options))]


def test_every_example_once_by_default():
    assert taken({}) == [100, 1000]
    assert taken({}, cap=(None, 300)) == [100, 300]


def test_shares_of_examples_and_of_tokens():
    assert taken({"by": "examples"}) == [550, 550]
    assert taken({"by": "examples", "epoch_examples": 90}, share=(2.0, 1.0)) == [60, 30]
    by_tokens = taken({"by": "tokens", "epoch_examples": 1000})
    assert by_tokens[0] * 10 == pytest.approx(by_tokens[1] * 40, rel=0.01)


def test_a_high_temperature_makes_the_sources_equal():
    assert taken({"by": "temperature"}) == [100, 1000]
    assert taken({"by": "temperature", "temperature": 1e9}) == [550, 550]
    low, high = taken({"by": "temperature", "temperature": 2.0})
    assert high / low == pytest.approx(10**0.5, rel=0.02)


@given(
    sizes=st.lists(st.integers(1, 10_000), min_size=1, max_size=6),
    shares=st.lists(st.floats(0.01, 100), min_size=6, max_size=6),
    total=st.integers(100, 10_000),
)
def test_portions_are_within_one_of_their_shares(sizes, shares, total):
    sources = [Source(path="a", share=share) for share, _ in zip(shares, sizes, strict=False)]
    options = MixtureOptions(by="examples", epoch_examples=total)
    found = portions(sources, sizes, [10 * size for size in sizes], options)
    whole = sum(source.share for source in sources)
    for portion, source in zip(found, sources, strict=True):
        assert abs(portion.taken - total * source.share / whole) <= 1
    assert total <= sum(portion.taken for portion in found) <= total + len(found)


def test_a_source_with_a_share_and_no_rows_is_refused():
    with pytest.raises(RecipeError, match="`b` has a share"):
        taken({"by": "examples"}, sizes=(5, 0), tokens=(50, 0))
    assert taken({}, sizes=(5, 0), tokens=(50, 0)) == [5]
