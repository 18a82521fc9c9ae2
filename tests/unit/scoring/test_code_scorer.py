"""Programs out of answers, and the mark they get."""

from __future__ import annotations

import pytest
from test_sandbox import needs_sandbox
from test_scorers import rows

from tutelage.scoring.code import Code

BEFORE = "import math\n\ndef helper(x):\n    return x\n\n"
PROMPT = BEFORE + "def f(x):\n    '''Double x.'''\n"


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("    return 2 * x", PROMPT + "    return 2 * x"),
        ("def f(x):\n    return 2 * x", BEFORE + "def f(x):\n    return 2 * x"),
        ("So:\n```python\ndef f(x):\n    return 2\n```\nDone.", BEFORE + "def f(x):\n    return 2\n"),
        ("```\n    return 2\n```", PROMPT + "    return 2\n"),
        ("```python\ndef f(x): return 2", BEFORE + "def f(x): return 2"),
    ],
)  # fmt: skip
def test_the_program_of_an_answer(answer, program):
    assert Code.program(answer, {"prompt": PROMPT, "entry": "f", "tests": ""}) == program


def test_without_a_prompt_the_answer_is_the_program():
    assert Code.program("x = 1", {"tests": "pass"}) == "x = 1"


@needs_sandbox
def test_marks():
    told = {"prompt": PROMPT, "entry": "f", "tests": "def check(f):\n    assert f(2) == 4\n"}
    assert Code().mark("    return helper(2 * x)", told).score == 1.0
    mark = Code().mark("    return x", told)
    assert (mark.score, mark.why) == (0.0, "the tests: AssertionError")
    lines = {"tests": ["assert sqrt(g(4)) == 4"], "setup": ["from math import sqrt"]}
    assert Code().mark("```python\ndef g(x): return x * x\n```", lines).score == 1.0


@needs_sandbox
def test_real_tests_pass_their_own_solutions_and_fail_empty_ones():
    """Some of each set; all 164 and all 427 pass."""
    for row in rows("humaneval")[32:164:40]:
        told = {"prompt": row["prompt"], "entry": row["entry_point"], "tests": row["test"]}
        assert Code().mark(row["canonical_solution"], told).score == 1.0
        assert Code().mark("    return None", told).score == 0.0
    for row in rows("mbpp_sanitized")[::90]:
        told = {"tests": row["test_list"], "setup": row["test_imports"]}
        assert Code().mark(row["code"], told).score == 1.0
        assert Code().mark("pass", told).score == 0.0
