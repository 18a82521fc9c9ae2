"""The guard of the corpus holds: what a case must not do is refused, and one that does not end is ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the guard reads /proc")

TRY = """
import sys
sys.path.insert(0, {here!r})
import guarded
kept_from = guarded._watch([{inside!r}])
try:
    {action}
except PermissionError as error:
    print("refused", error)
print(len(kept_from))
"""


def tried(action: str, inside: Path) -> list[str]:
    """What a program prints that tries something under watch."""
    program = TRY.format(here=str(Path(__file__).parent), inside=str(inside), action=action)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=inside.parent)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "action",
    [
        "open('outside', 'w')",
        "open('inside/../outside', 'a')",
        "import os; os.open('outside', os.O_CREAT | os.O_WRONLY)",
        "import os; os.mkdir('outside')",
        "import os; os.remove('there')",
        "import os; os.remove('there', dir_fd=os.open('.', os.O_RDONLY))",
        "import os; os.system('true')",
        "import subprocess; subprocess.run(['true'])",
        "import socket; socket.socket().connect(('127.0.0.1', 9))",
        "import pickle; pickle.loads(b'cos\\nsystem\\n.')",
    ],
)
def test_what_must_not_be_done_is_refused(action, tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "there").touch()
    *refused, count = tried(action, tmp_path / "inside")
    assert refused[0].startswith("refused the guard refuses")
    assert int(count) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "there"]


def test_what_may_be_done_is_not(tmp_path):
    (tmp_path / "inside").mkdir()
    action = "import os, shutil; open('inside/a', 'w').close(); os.mkdir('inside/b'); shutil.rmtree('inside/b')"
    assert tried(action, tmp_path / "inside") == ["0"]
    assert tried("open('/dev/null', 'w').close(); open(__import__('os').__file__).close()", tmp_path / "inside") == [
        "0"
    ]


ENDED = """
import os, sys
sys.path.insert(0, {here!r})
import guarded
guarded.GRACE = 0
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.close(reading)
    {action}
    os._exit(0)
os.close(writing)
print(guarded._awaited(child, reading, 0.5))
"""


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("import time; time.sleep(60)", "it did not end in 0.5 seconds"),
        ("os.abort()", "it ended with status 6"),
        ("guarded._limit(10, 1); bytearray(1 << 34)", "it ended with status 256"),
    ],
)
def test_one_that_does_not_end_is_ended(action, said):
    program = ENDED.format(here=str(Path(__file__).parent), action=action)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20)
    assert json.loads(done.stdout)["crashed"].startswith(said)
