"""The verdict draws rows, not examples; and each rendering of the held-out rows is compared by itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tutelage.evaluate.heldout import HeldoutLoss
from tutelage.evaluate.outcome import heldout_verdict


def losses(sums, weights=None):
    return HeldoutLoss(np.array(sums, float), np.array(weights or [1.0] * len(sums)), 10 * len(sums))


def test_the_same_row_in_several_renderings_is_one_draw():
    random = np.random.default_rng(0)
    base = random.normal(5, 1, 40)
    tuned = base - random.normal(0.2, 0.5, 40)
    once = heldout_verdict(losses(base), losses(tuned), confidence=0.95)
    rows = np.repeat(np.arange(40), 5)
    again = heldout_verdict(losses(np.repeat(base, 5)), losses(np.repeat(tuned, 5)), confidence=0.95, rows=rows)
    assert again["examples"] == once["examples"] == 40
    assert again["interval"] == pytest.approx(once["interval"], abs=1e-9)
    alone = heldout_verdict(losses(np.repeat(base, 5)), losses(np.repeat(tuned, 5)), confidence=0.95)
    assert alone["interval"][1] - alone["interval"][0] < 0.6 * (once["interval"][1] - once["interval"][0])


def test_renderings_are_compared_one_by_one_with_their_spread():
    base, tuned = losses([4.0, 6.0] * 10), losses([3.0, 2.0] * 10)
    found = heldout_verdict(
        base, tuned, confidence=0.95, rows=np.repeat(np.arange(10), 2), renderings=["plain", "terse"] * 10
    )
    assert {name: (one["base_nll"], one["tuned_nll"], one["n"]) for name, one in found["renderings"].items()} == {
        "plain": (4.0, 3.0, 10),
        "terse": (6.0, 2.0, 10),
    }
    assert found["spread"] == {"base": 2.0, "tuned": 1.0}
    json.dumps(found, allow_nan=False)


def test_one_rendering_has_no_spread():
    found = heldout_verdict(losses([4.0] * 6), losses([3.0] * 6), confidence=0.95, renderings=["plain"] * 6)
    assert "renderings" not in found
    assert heldout_verdict(HeldoutLoss(np.zeros(0), np.zeros(0), 0), losses([]), confidence=0.95) is None
