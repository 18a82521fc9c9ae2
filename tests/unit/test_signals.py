"""A signal ends a process at once, or where it is held, when the holder asks; a second one ends it where it stands."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tutelage.signals import SIGNALS, StopRequested

NAMES = ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"]

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="these signals are not known here")

BEGIN = """
import os, signal, sys, time
from tutelage.signals import SIGNALS, StopRequested
def send(name):
    os.kill(os.getpid(), getattr(signal, name))
    for _ in range(100): pass  # A handler runs between two instructions.
SIGNALS.install()
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_outside_of_a_held_stretch_it_is_raised_where_it_arrives(name):
    done = run(f"""
try:
    send({name!r})
    print("went on")
except Exception:
    print("taken for a failure")
except StopRequested as stop:
    print("stopped", stop, SIGNALS.requested)
""")
    assert done.stdout.split() == ["stopped", name, name]


def test_what_nohup_switched_off_stays_off():
    code = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
SIGNALS.install()
signal.raise_signal(signal.SIGHUP)
print("went on", SIGNALS.requested)
"""
    assert run(code).stdout.split() == ["went", "on", "None"]


@pytest.mark.parametrize("name", NAMES)
def test_where_it_is_held_it_is_only_noted(name):
    done = run(f"""
with SIGNALS.held():
    print(SIGNALS.requested)
    send({name!r})
    print("went on", SIGNALS.requested)
    try:
        SIGNALS.raise_if_requested()
    except StopRequested as stop:
        print("stopped", stop)
""")
    assert done.stdout.split() == ["None", "went", "on", name, "stopped", name]
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 138), ("SIGHUP", 129)])
def test_a_second_one_ends_the_process_where_it_stands(name, code):
    done = run(f"""
import atexit
atexit.register(print, "in order")
with SIGNALS.held():
    send("SIGTERM")
    print("held", flush=True)
    send({name!r})
    print("went on", flush=True)
""")
    assert done.stdout.split() == ["held"]
    assert (done.returncode, done.stderr) == (code, "")


def test_a_stretch_inside_may_be_broken_off_all_the_same():
    done = run("""
with SIGNALS.held():
    try:
        with SIGNALS.released():
            send("SIGTERM")
            print("went on")
    except StopRequested as stop:
        print("stopped", stop)
    try:
        with SIGNALS.released():
            print("entered")
    except StopRequested:
        print("not entered")
    print(SIGNALS._held)
""")
    assert done.stdout.split("\n") == ["stopped SIGTERM", "not entered", "1", ""]


IMPORTED = """
import pathlib, tempfile
place = pathlib.Path(tempfile.mkdtemp())
sys.path.insert(0, str(place))
SEND = "import os, signal\\ndef send():\\n os.kill(os.getpid(), signal.SIGTERM)\\n for _ in range(100): pass\\n"
(place / "deeper.py").write_text(SEND + BODY + "\\nwhole = True\\n")
(place / "slow.py").write_text("import deeper\\nfrom deeper import whole\\n")
def importing():
    import slow
    print("went on")
if ALONE:
    SIGNALS.remove()
    SIGNALS.install(alone=True)
try:
    importing()
except StopRequested as stop:
    print("stopped", stop)
"""
BODIES = {
    "a line": "send()",
    "what Python makes another exception of": (
        "class D:\n def __set_name__(self, owner, name): send()\nclass C:\n d = D()"
    ),
    "what Python drops": "import weakref\nclass C: pass\nc = C()\nr = weakref.ref(c, lambda _: send())\ndel c",
    "what is caught": "try: send()\nexcept BaseException: pass",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_in_the_middle_of_an_import_it_ends_a_process_of_our_own_at_once(body):
    """Imports of several libraries do not bear an exception in every place; torch's end the process by SIGABRT."""
    done = run(f"ALONE, BODY = True, {body!r}" + IMPORTED)
    assert (done.stdout, done.returncode) == ("", 75)
    assert done.stderr == "stopped on request (SIGTERM); what was saved before stays\n"


def test_in_the_middle_of_an_import_it_is_raised_in_somebody_elses_process():
    done = run(f"ALONE, BODY = False, {BODIES['a line']!r}" + IMPORTED)
    assert (done.stdout, done.returncode) == ("stopped SIGTERM\n", 0)


def test_after_removal_the_systems_own_meaning_is_back():
    done = run("""
SIGNALS.remove()
print(SIGNALS.requested, flush=True)
send("SIGTERM")
print("went on", flush=True)
""")
    assert done.stdout.split() == ["None"]
    assert done.returncode == -signal.SIGTERM
    done = run("""
SIGNALS.remove()
try:
    send("SIGINT")
except KeyboardInterrupt:
    print("interrupted")
""")
    assert done.stdout.split() == ["interrupted"]


def test_handlers_that_somebody_set_since_are_left():
    done = run("""
signal.signal(signal.SIGTERM, lambda *_: print("theirs", flush=True))
SIGNALS.remove()
send("SIGTERM")
""")
    assert (done.stdout.split(), done.returncode) == (["theirs"], 0)


def test_another_thread_changes_nothing():
    done = run("""
import threading
before = signal.getsignal(signal.SIGTERM)
for call in (SIGNALS.remove, SIGNALS.install):
    thread = threading.Thread(target=call)
    thread.start(), thread.join()
print(signal.getsignal(signal.SIGTERM) == before)
""")
    assert done.stdout.split() == ["True"]


def test_here_nothing_was_asked_for():
    SIGNALS.raise_if_requested()
    assert SIGNALS.requested is None
    assert not issubclass(StopRequested, Exception)
