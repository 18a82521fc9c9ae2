"""How far settings go, and how many of them."""

from __future__ import annotations

import pytest

from tutelage.sweep.halving import Rung, rungs


@pytest.mark.parametrize(
    ("settings", "halving", "expected"),
    [
        (9, 3, [(1 / 9, 9), (1 / 3, 3), (1, 1)]),
        (4, 3, [(1 / 3, 4), (1, 2)]),
        (3, 3, [(1 / 3, 3), (1, 1)]),
        (2, 3, [(1, 2)]),
        (2, 2, [(1 / 2, 2), (1, 1)]),
        (100, 3, [(1 / 9, 100), (1 / 3, 34), (1, 12)]),
        (8, 2, [(1 / 8, 8), (1 / 4, 4), (1 / 2, 2), (1, 1)]),
        (100, 2, [(1 / 8, 100), (1 / 4, 50), (1 / 2, 25), (1, 13)]),
        (9, None, [(1, 9)]),
        (1, 3, [(1, 1)]),
    ],
)
def test_rungs(settings, halving, expected):
    assert [(rung.share, rung.settings) for rung in rungs(settings, halving)] == [
        (pytest.approx(share), count) for share, count in expected
    ]


def test_no_rung_lies_in_the_warm_up_or_beyond_the_end():
    assert Rung(1 / 9, 9).step(900, 45) == 100
    assert Rung(1 / 9, 9).step(900, 300) == 301
    assert Rung(1 / 9, 9).step(3, 0) == 1
    assert Rung(1 / 3, 3).step(1, 0) == 1
    assert Rung(1 / 3, 3).step(4, 4) == 4
    assert Rung(1, 1).step(900, 45) == 900
