"""Programs that try to get out of the sandbox or to pass without being right; each does no harm where it succeeds.

Each defines `f`, and its tests pass only where `f()` gives True. Beside it stands what must be said of it.
"""

from __future__ import annotations

_SYSCALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def f():
    if libc.syscall({numbers}) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return True
"""
EPERM = "Operation not permitted"
NO_FILE = "FileNotFoundError"


def _calling(*numbers: object) -> str:
    return _SYSCALL.format(numbers=", ".join(map(str, numbers)))


def _body(*lines: str, imports: str = "os, sys") -> str:
    return f"import {imports}\ndef f():\n" + "".join(f"    {line}\n" for line in lines)


_READ = "open({path!r}).read(1)"

NETWORK = {
    "internet": (_body("import socket", "socket.create_connection(('192.0.2.1', 9), 1)", "return True"), EPERM),
    "loopback": (_body("import socket", "socket.socket().bind(('127.0.0.1', 0))", "return True"), EPERM),
    "unix socket": (_body("import socket", "socket.socket(socket.AF_UNIX)", "return True"), EPERM),
    "netlink": (_body("import socket", "socket.socket(16, 3, 0)", "return True"), EPERM),
    "name lookup": (_body("import socket", "return bool(socket.getaddrinfo('example.com', 80))"), "gaierror"),
}
PROCESSES = {
    "fork": (_body("return os.fork() >= 0"), EPERM),
    "fork bomb": (_body("for _ in range(100):", "    os.fork()", "return True"), EPERM),
    "subprocess": (_body("import subprocess", "return subprocess.run([sys.executable, '-V']).returncode == 0"), EPERM),
    "spawn": (_body("return os.posix_spawn(sys.executable, [sys.executable, '-V'], {}) > 0"), EPERM),
    "threads": (
        _body(
            "import threading, time",
            "for _ in range(200):",
            "    threading.Thread(target=time.sleep, args=(5,), daemon=True).start()",
            "return True",
        ),
        "can't start new thread|ended|MemoryError",
    ),
    "new user namespace": (_calling(56, 0x10000000 | 17, 0, 0, 0, 0), EPERM),
    "clone3": (_calling(435, 0, 0), "Function not implemented"),
    "signal the parent": (_body("os.kill(os.getppid(), 9)", "return os.getppid() != 1"), "AssertionError"),
    "signal outside": (_body("os.kill({outside}, 0)", "return True"), "ProcessLookupError"),
    "signal everyone": (_body("os.kill(-1, 9)", "return True"), "without a verdict|ended by itself"),
    "signal the group": (_body("os.kill(0, 9)", "return True"), "ended by itself"),
    "become root": (_body("os.setuid(0)", "return True"), EPERM + "|Invalid argument"),
}
FILES = {
    "shadow": (_body(_READ.format(path="/etc/shadow"), "return True"), NO_FILE),
    "passwd": (_body(_READ.format(path="/etc/passwd"), "return True"), NO_FILE),
    "keys of the user": (_body("return bool(os.listdir(os.path.join({home!r}, '.ssh')))"), NO_FILE),
    "a file of the user": (_body("return open({secret!r}).read() == 'secret'"), NO_FILE),
    "environment of process 1": (_body(_READ.format(path="/proc/1/environ"), "return True"), NO_FILE),
    "own memory": (_body(_READ.format(path="/proc/self/mem"), "return True"), NO_FILE),
    "own environment": (_body("return 'TUTELAGE_MARKER' in os.environ"), "AssertionError"),
    "devices": (_body(_READ.format(path="/dev/mem"), "return True"), NO_FILE),
    "kernel settings": (_body("return bool(os.listdir('/sys'))"), NO_FILE),
    "write outside": (_body("open({marker!r}, 'w').write('x')", "return True"), NO_FILE),
    "write to the root": (_body("open('/x', 'w')", "return True"), "Read-only"),
    "write to the library": (_body("open(os.__file__, 'a')", "return True"), "Read-only|PermissionError"),
    "write to the jail": (_body("open('/jail/checker.py', 'a')", "return True"), "Read-only|PermissionError"),
    "link out": (_body("os.symlink({secret!r}, 'l')", "return open('l').read() == 'secret'"), NO_FILE),
    "climb out": (_body("return 'etc' in os.listdir(os.getcwd() + '/../../..')"), "AssertionError"),
    "large file": (
        _body(
            "with open('a', 'wb') as a:", "    for _ in range(24):", "        a.write(bytes(1 << 20))", "return True"
        ),
        "File too large",
    ),
    "full disk": (
        _body("for n in range(40):", "    open(str(n), 'wb').write(bytes(1 << 20))", "return True"),
        "No space left",
    ),
    "many files": (_body("for n in range(3000):", "    open(str(n), 'w').close()", "return True"), "No space left"),
    "device node": (_body("os.mknod('m', 0o20666, os.makedev(1, 1))", "return True"), EPERM),
}
CALLS = {
    "ptrace": (_calling(101, 16, 1, 0, 0), EPERM),
    "read another process": (_calling(310, 1, 0, 0, 0, 0, 0), EPERM),
    "mount": (_calling(165, 0, 0, 0, 0, 0), EPERM),
    "unmount": (_calling(166, "b'/work'", 0), EPERM),
    "chroot": (_calling(161, "b'/'"), EPERM),
    "unshare": (_calling(272, 0x10000000), EPERM),
    "setns": (_calling(308, 0, 0), EPERM),
    "bpf": (_calling(321, 0, 0, 0), EPERM),
    "keyctl": (_calling(250, 0, -3, 0, 0, 0), EPERM),
    "userfaultfd": (_calling(323, 1), EPERM),
    "io_uring": (_calling(425, 1, 0), EPERM),
    "perf": (_calling(298, 0, 0, -1, -1, 0), EPERM),
    "file handles": (_calling(304, -100, 0, 0), EPERM),
    "memory that is a file": (_calling(319, "b'x'", 0), EPERM),
    "personality": (_calling(135, 0x0040000), EPERM),
    "raise a limit": (
        _body("import resource", "resource.setrlimit(resource.RLIMIT_CPU, (100, 100))", "return True"),
        "not allowed to raise|ValueError",
    ),
}
WASTE = {
    "memory": (_body("return len(bytearray(2 << 30)) > 0"), "MemoryError"),
    "sleep": (_body("import time", "time.sleep(30)", "return True"), "more than"),
    "endless": (_body("while True:", "    pass"), "ended|more than"),
    "deaf and endless": (
        _body("import signal", "signal.signal(signal.SIGXCPU, signal.SIG_IGN)", "while True:", "    pass"),
        "ended|more than",
    ),
    "output": (_body("while True:", "    print('x' * 1000)"), "printed more than"),
    "crash": (_body("import ctypes", "ctypes.string_at(0)", "return True"), "ended by itself"),
    "endless answer": (
        _body("while True:", "    os.write(int(sys.argv[2]), b'1' * 65536)"),
        "does not speak|ended|more than",
    ),
}
FAKES = {
    "exit 0": ("import os\nos._exit(0)\n", "ended by itself"),
    "exit 0 when called": (_body("os._exit(0)"), "ended by itself"),
    "sys.exit": (_body("sys.exit(0)"), "SystemExit"),
    "become another program": (_body("os.execv(sys.executable, [sys.executable, '-c', ''])"), "ended by itself"),
    "a verdict of its own": (
        _body(
            "for number in range(256):",
            "    try:",
            '        os.write(number, b\'{"passed": true, "value": null}\\n\')',
            "    except OSError:",
            "        pass",
            "return False",
        ),
        "AssertionError|does not speak",
    ),
    "equals everything": (
        "class Equal:\n    def __eq__(self, other): return True\n    def __bool__(self): return True\n"
        "def f(): return Equal()\n",
        "AssertionError",
    ),
    "a number that equals everything": (
        "class Equal(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n"
        "def f(): return Equal(7)\n",
        "AssertionError",
    ),
    "no assertion any more": (
        "import builtins, sys\nbuiltins.AssertionError = KeyboardInterrupt\n"
        "for module in list(sys.modules.values()):\n"
        "    for name in ('check', 'line', 'encode'):\n"
        "        if hasattr(module, name) and module.__name__ == 'wire': setattr(module, name, lambda *a: b'true\\n')\n"
        "def f(): return False\n",
        "does not speak|ended|AssertionError",
    ),
    "the frames above": (
        "import sys\nframe = sys._getframe()\n"
        "while frame:\n    for name in ('passed', 'tests', 'verdict'):\n        frame.f_globals[name] = True\n"
        "    frame = frame.f_back\ndef f(): return False\n",
        "AssertionError",
    ),
}
EVERY = {"network": NETWORK, "processes": PROCESSES, "files": FILES, "calls": CALLS, "waste": WASTE, "fakes": FAKES}
