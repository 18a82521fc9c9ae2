"""The sandbox: what is right passes, what is wrong fails, nothing gets out, and a missing layer is named."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
from escapes import EVERY

from tutelage.errors import MachineError
from tutelage.scoring import sandbox
from tutelage.scoring.sandbox import Limits, run


def _refusal() -> str:
    try:
        run("def f(): return 1\n", "assert f() == 1")
    except MachineError as refused:
        return refused.problems[0].what
    return ""


REFUSED = _refusal()
needs_sandbox = pytest.mark.skipif(bool(REFUSED), reason=REFUSED)
SMALL = Limits(seconds=4, cpu=1, work=20 << 20)
ATTEMPTS = [(group, name, *attempt) for group, attempts in EVERY.items() for name, attempt in attempts.items()]


def test_there_are_forty_attempts():
    assert len(ATTEMPTS) >= 40


@needs_sandbox
@pytest.mark.parametrize(("group", "name", "program", "said"), ATTEMPTS, ids=[f"{a[0]}: {a[1]}" for a in ATTEMPTS])
def test_an_attempt_is_contained(group, name, program, said, tmp_path, monkeypatch):
    """It fails for the reason given, and the folder outside is as it was."""
    if group == "calls" and platform.machine() != "x86_64":
        pytest.skip("the attempts call by numbers of x86-64")
    secret, marker = tmp_path / "secret", tmp_path / "marker"
    secret.write_text("secret")
    monkeypatch.setenv("TUTELAGE_MARKER", "seen")
    for key, value in {"outside": os.getpid()}.items():
        program = program.replace(f"{{{key}}}", str(value))
    for key, value in {"secret": secret, "marker": marker, "home": Path.home()}.items():
        program = program.replace(f"{{{key}!r}}", repr(str(value)))
    begun = time.monotonic()
    outcome = run(program, "assert f() is True", SMALL)
    assert time.monotonic() - begun < 30
    assert not outcome.passed
    assert re.search(said, outcome.why), outcome
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret"]
    assert len(outcome.output) <= SMALL.output


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def f(x):\n    return x + 1\n", "assert f(1) == 2\nassert f(-1) == 0"),
        ("import math\ndef f(): return (1.5, {2, 3}, {'a': [None, True]}, b'x', 2**80, math.inf, 1j)", "r = f()\n"
         "assert r == (1.5, {2, 3}, {'a': [None, True]}, b'x', 2**80, float('inf'), 1j) and type(r) is tuple"),
        ("def f(l):\n    l.sort()\n", "a = [3, 1]\nf(a)\nassert a == [1, 3]"),
        ("def f(n):\n    yield from range(n)\n", "assert list(f(3)) == [0, 1, 2]"),
        ("def f():\n    raise ValueError('no')\n", "try:\n    f()\n    assert False\nexcept ValueError: pass"),
        ("class P:\n    def __init__(s, a): s.a = a\ndef f(a, b): return a.a + b.a", "assert f(P(1), P(2)) == 3"),
        ("N = 3\ndef helper(x): return x * N\ndef f(x): return helper(x)", "assert f(2) == helper(2) == N * 2"),
        ("def f(): return lambda x: x + 1", "assert f()(1) == 2"),
        ("def f(s): return s[::-1]", "def check(g):\n    assert g('äb\\ud800') == '\\ud800bä'\ncheck(f)"),
        ("import collections\ndef f(s): return collections.Counter(s)", "assert f('aab') == {'a': 2, 'b': 1}"),
        ("import threading\nr = []\ndef f():\n    t = threading.Thread(target=r.append, args=(1,))\n    t.start()\n"
         "    t.join()\n    return r", "assert f() == [1]"),
        ("import enum\nclass E(enum.IntEnum):\n    A = 3\ndef f(): return E.A", "assert f() == 3"),
        ("def sum(a, b): return a * b", "assert sum(2, 3) == 6"),
        ("import math\ndef f(): return 3.0", "assert f() == math.floor(3.2)"),
        ("def f():\n    open('a', 'w').write('x')\n    return open('a').read()", "assert f() == 'x'"),
    ],
)  # fmt: skip
def test_what_is_right_passes(program, tests):
    outcome = run(program, tests)
    assert (outcome.how, outcome.why) == ("passed", "")


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "tests", "why"),
    [
        ("def f(x): return x", "assert f(1) == 2, 'one more'", "the tests: AssertionError: one more"),
        ("def f(x): return [x]", "assert f(1) == (1,)", "the tests: AssertionError"),
        ("def abs(x): return 0\ndef f(): return 9", "assert abs(f() - 1) < 1", "the tests: AssertionError"),
        (
            "class math:\n    isclose = lambda *a: True\ndef f(): return 9",
            "assert math.isclose(f(), 1)",
            "the tests: AssertionError",
        ),
        ("def f(x) return x", "assert f(1) == 1", "the program: SyntaxError: expected ':' (program.py, line 1)"),
        ("def g(): pass", "assert f() == 1", "the tests: NameError: name 'f' is not defined"),
        ("1 / 0", "assert f() == 1", "the program: ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_wrong_fails_and_says_why(program, tests, why):
    outcome = run(program, tests)
    assert (outcome.how, outcome.why) == ("failed", why)


@needs_sandbox
def test_what_it_prints_is_kept():
    assert run("print('a', end='')\ndef f(): return 1", "assert f() == 1").output == "a"


@needs_sandbox
def test_nothing_is_left_behind():
    before = set(os.listdir("/proc/self/fd"))
    run("import time\ndef f(): time.sleep(60)", "f()", Limits(seconds=0.5))
    assert set(os.listdir("/proc/self/fd")) == before
    mine = [pid for pid in os.listdir("/proc") if pid.isdecimal() and _parent(pid) == os.getpid()]
    assert [pid for pid in mine if b"worker.py" in Path(f"/proc/{pid}/cmdline").read_bytes()] == []


def _parent(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


@needs_sandbox
@pytest.mark.parametrize(
    ("file", "old", "new", "layer"),
    [
        ("jail.py", '"network namespace": 0x40000000', '"network namespace": 0x40000001', "network namespace"),
        ("jail.py", '"ipc namespace": 0x08000000', '"ipc namespace": 0x00000001', "ipc namespace"),
        ("jail.py", '"process namespace": 0x20000000', '"process namespace": 0', "process namespace"),
        ("jail.py", '"mount namespace": 0x00020000', '"mount namespace": 0', "read-only file system"),
        ("jail.py", '_set_attributes("/", _READ_ONLY | _NODEV, recursive=False)', "pass", "read-only file system"),
        ("jail.py", "    _set_capabilities((0, 0, 0, 0, 0, 0))\n", "", "user namespace"),
        ("jail.py", "tmpfs", "nofs", "read-only file system"),
        ("seccomp.py", '"x86_64": (0', '"other": (0', "system call filter"),
        ("seccomp.py", "0x7FFF0000", "0x7FFF0000, 0, 0", "its processes"),
    ],
)
def test_a_missing_layer_is_named_and_nothing_runs(file, old, new, layer, tmp_path, monkeypatch):
    """The jail with one layer taken out refuses, whether the kernel says no or nobody says anything."""
    if "x86_64" in old and platform.machine() != "x86_64":
        pytest.skip("the table of this machine stays")
    folder = tmp_path / "jail"
    shutil.copytree(sandbox._JAIL.parent, folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    monkeypatch.setattr(sandbox, "_JAIL", folder / "jail.py")
    with pytest.raises(MachineError) as refused:
        run("def f(): return 1", "assert f() == 1")
    assert refused.value.code == "machine/no-sandbox"
    assert f"`{layer}`" in refused.value.problems[0].what


def test_other_systems_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(MachineError, match="lacks the layer `linux`"):
        run("", "")


@needs_sandbox
def test_a_user_namespace_without_ids_is_refused(monkeypatch):
    monkeypatch.setattr(sandbox, "_set_ids", lambda pid: False)
    with pytest.raises(MachineError, match="user namespace"):
        run("", "")
