"""Programs out of answers, and the mark they get."""

from __future__ import annotations

import pytest
from test_sandbox import needs_sandbox
from test_scorers import rows

from tutelage.scoring.blocks import blocks
from tutelage.scoring.code import Code
from tutelage.scoring.mark import BadReference

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


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("```bash\npip install x\n```\nThen:\n```python\ndef f(): return 1\n```", "def f(): return 1\n"),
        ("Output:\n```text\n1\n```\n```\ndef f(): return 1\n```", "def f(): return 1\n"),
        ("```python3.11\ndef f(): return 1\n```", "def f(): return 1\n"),
        ('```python title="a.py"\ndef f(): return 1\n```', "def f(): return 1\n"),
        ("```{.python}\ndef f(): return 1\n```", "def f(): return 1\n"),
        ("~~~python\ndef f(): return 1\n~~~\nand\n~~~\nx\n~~~", "def f(): return 1\n"),
        ("Use it so:\n```python\nprint(f(2))\n```\nFor:\n```python\ndef f(x): return x\n```", "def f(x): return x\n"),
        ("Call ```f(1)``` of\n```py\nx = 1\n```", "x = 1\n"),
        ("1. So:\n   ```python\n   def f():\n       return 1\n   ```", "def f():\n    return 1\n"),
        ("So: ```python\ndef f(): return 1```\nDone.", "def f(): return 1"),
        ("````python\ndef f():\n    s = '''\n```\n'''\n````", "def f():\n    s = '''\n```\n'''\n"),
        (
            '```python\ndef f():\n    """As in\n    ```\n    f()\n    ```\n    """\n```',
            'def f():\n    """As in\n    ```\n    f()\n    ```\n    """\n',
        ),
        ("```bash\nls\n```", "```bash\nls\n```"),
        ("```pycon\n>>> 1\n```\n```python\nx = 1\n```", "x = 1\n"),
    ],
)  # fmt: skip
def test_which_block_is_the_program(answer, program):
    assert Code.program(answer, {"entry": "f", "tests": ""}) == program


@pytest.mark.parametrize("after", ["", "\nIt doubles x.\n", "Or:\n```python\ndef f(x):\n    return 3\n```\n"])
def test_an_answer_inside_of_the_function_ends_at_a_fence_that_it_did_not_open(after):
    """As a model ends what it takes for the block that it was asked in."""
    told = {"prompt": PROMPT, "entry": "f", "tests": ""}
    assert Code.program("    return 2 * x\n```\n" + after, told) == PROMPT + "    return 2 * x\n"
    assert Code.program(" So:\n```python\ndef f(x): return 2\n```", told).endswith("def f(x): return 2\n")


def test_blocks_are_found_in_a_time_that_grows_with_the_text():
    for text in ("```\n" * 40000, "`" * 100000 + "x`", "a```b " * 20000, "~" * 100000):
        assert isinstance(blocks(text), list)


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        (None, "no set of fields"),
        ({}, "`tests` is empty"),
        ({"tests": ["", " "]}, "`tests` is empty"),
        ({"tests": None}, "`tests` is empty"),
        ({"tests": [1]}, "`tests` is neither"),
        ({"tests": "pass", "setup": 3}, "`setup` is neither"),
        ({"tests": "pass", "prompt": ["x"]}, "`prompt` is no text"),
        ({"tests": "assert f(1) =="}, "`tests` is not Python"),
    ],
)
def test_tests_that_nothing_can_pass_are_refused(reference, why):
    with pytest.raises(BadReference, match=why):
        Code().check(reference)


def test_tests_are_taken_as_rows_hold_them():
    nulls = {"setup": None, "prompt": None, "entry": "f"}
    for told in ({"tests": "assert f(1) == 2"}, {"tests": ["assert '\\d'"], **nulls}):
        Code().check(told)
    assert Code.program("x = 1", {"tests": "pass", **nulls}) == "x = 1"


@pytest.mark.parametrize(("name", "count"), [("humaneval", 164), ("mbpp_sanitized", 427)])
def test_the_tests_of_the_benchmarks_are_taken(name, count):
    given = rows(name)
    assert len(given) == count
    for row in given:
        if name == "humaneval":
            Code().check({"prompt": row["prompt"], "entry": row["entry_point"], "tests": row["test"]})
        else:
            Code().check({"tests": row["test_list"], "setup": row["test_imports"]})


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
