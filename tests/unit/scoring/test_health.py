"""Whether answers are whole."""

from __future__ import annotations

import pytest

from tutelage.scoring.health import health, open_fence, shares


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("no block", False),
        ("```\ncode\n```", False),
        ("```python\ncode", True),
        ("a\n```\ncode\n```\nb\n```js\nmore", True),
        ("````\n```\n````", False),
        ("````\n```", True),
        ("~~~\n```\n~~~", False),
        ("```\n~~~", True),
        ("```x``` in a line", False),
        ("```\ncode\n``` not the end", True),
        ("    ```\nindented", False),
    ],
)
def test_fences(text, is_open):
    assert open_fence(text) is is_open


def test_each_ill_by_itself():
    assert health("It is red.", stopped=True).well
    assert health("It is", stopped=False).hit_limit
    assert health(" \n", stopped=True).empty
    assert health("so " * 40, stopped=False).loops
    assert not health("so it is", stopped=True).loops
    assert health("```\nx", stopped=True).broken_fence
    assert health("{", stopped=True, expects="json").invalid_json
    assert health("{}", stopped=True, expects="json").invalid_json is False
    assert health("```json\n{}\n```", stopped=True, expects="json").invalid_json
    assert health("```json\n{}\n```", stopped=True, expects="fenced json").well
    assert health("{}", stopped=True).invalid_json is None


def test_shares():
    answers = [
        health("a", stopped=True),
        health("", stopped=False),
        health("{", stopped=True, expects="json"),
        health("{}", stopped=True, expects="json"),
    ]
    found = shares(answers)
    assert found["n"] == 4
    assert (found["hit_limit"], found["stopped"], found["empty"], found["well"]) == (0.25, 0.75, 0.25, 0.5)
    assert found["invalid_json"] == 0.5  # of the two that should be JSON
    assert shares([]) == {"n": 0}
    assert "invalid_json" not in shares(answers[:2])
