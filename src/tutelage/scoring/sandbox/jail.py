"""Builds the sandbox around itself, layer by layer, and runs a program and its tests in it. Needs nothing but Python.

It is told what to do by one line of JSON on standard input, and tells by lines of JSON on a pipe: that it stands in
its own user namespace and waits for its ids, which layer is missing, that the program begins, and the verdict.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any

_NAMESPACES = {
    "user namespace": 0x10000000,
    "mount namespace": 0x00020000,
    "network namespace": 0x40000000,
    "process namespace": 0x20000000,
    "ipc namespace": 0x08000000,
    "host name namespace": 0x04000000,
}
_INSIDE = 65534
"""The user's number inside: nobody."""
_BIND, _RECURSIVE, _PRIVATE, _NOSUID, _NODEV, _NOEXEC, _DETACH = 0x1000, 0x4000, 0x40000, 2, 4, 8, 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR, _AT_RECURSIVE, _READ_ONLY = 442, 0x8000, 1 | 2
_LIBRARIES = ("/lib", "/lib64", "/lib32", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_FILES = ("wire.py", "worker.py", "checker.py")

libc = ctypes.CDLL(None, use_errno=True)
# Looked up and read while this process may still see where they are.
_PYTHON = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
_SOURCES: dict[str, str] = {}


class Missing(Exception):
    """A layer that this system does not give."""

    def __init__(self, layer: str, why: str) -> None:
        super().__init__(layer, why)
        self.layer, self.why = layer, why


def must(result: int, layer: str) -> None:
    """Raise Missing where a call of the C library failed."""
    if result < 0:
        raise Missing(layer, os.strerror(ctypes.get_errno()))


def enter(tell: int, hear: int) -> None:
    """Go into new namespaces as a user without any rights outside; process 1 is the next child."""
    opened: list[tuple[str, int | str]] = []
    for layer, flag in _NAMESPACES.items():
        must(libc.unshare(flag), layer)
        if layer == "user namespace":
            os.write(tell, b'{"ready": true}\n')
            if os.read(hear, 1) != b"+":
                raise Missing(layer, "its ids could not be set")
        if layer == "mount namespace":
            opened = list(_opened())
    # A user who is not root may not give its groups away, and they are no one's inside.
    with contextlib.suppress(PermissionError):
        os.setgroups([])
    must(libc.prctl(8, 1, 0, 0, 0), "user namespace")  # what may be done inside outlasts the change of user ...
    effective = _capabilities()
    os.setresgid(_INSIDE, _INSIDE, _INSIDE)
    os.setresuid(_INSIDE, _INSIDE, _INSIDE)
    _set_capabilities(effective)  # ... until the file system stands
    _new_root(opened)
    _set_capabilities((0, 0, 0, 0, 0, 0))


def _capabilities() -> tuple[int, ...]:
    header, data = struct.pack("II", 0x20080522, 0), ctypes.create_string_buffer(24)
    must(libc.capget(header, data), "user namespace")
    return struct.unpack("6I", data.raw)


def _set_capabilities(values: Sequence[int]) -> None:
    must(libc.capset(struct.pack("II", 0x20080522, 0), struct.pack("6I", *values)), "user namespace")


def _opened() -> Iterator[tuple[str, int | str]]:
    """What of the file system the interpreter needs: its place, and the open folder or the target of a link."""
    prefix = os.path.realpath(sys.base_prefix)
    wanted = [*_LIBRARIES, *([prefix] if prefix not in ("/", "/usr", "/usr/local") else []), _PYTHON]
    seen: list[str] = []
    for path in wanted:
        if not os.path.lexists(path) or any(path == one or path.startswith(one + "/") for one in seen):
            continue
        if os.path.islink(path):
            yield path, os.readlink(path)
        else:
            seen.append(path)
            yield path, os.open(path, os.O_PATH | os.O_CLOEXEC)
    for device in ("/dev/null", "/dev/urandom"):
        yield device, os.open(device, os.O_PATH | os.O_CLOEXEC)


def _new_root(opened: Sequence[tuple[str, int | str]]) -> None:
    """A file system of the interpreter's own files, all read-only, and one small folder in memory to work in."""
    layer = "read-only file system"
    must(libc.mount(None, b"/", None, _RECURSIVE | _PRIVATE, None), layer)
    must(libc.mount(b"tmpfs", b"/tmp", b"tmpfs", _NOSUID | _NODEV, b"size=1m,nr_inodes=4096,mode=755"), layer)
    for path, source in opened:
        inside = "/tmp" + path
        os.makedirs(os.path.dirname(inside), exist_ok=True)
        if isinstance(source, str):
            os.symlink(source, inside)
            continue
        held = f"/proc/self/fd/{source}"
        if os.path.isdir(held):
            os.mkdir(inside)
        else:
            os.close(os.open(inside, os.O_CREAT | os.O_WRONLY, 0o600))
        must(libc.mount(held.encode(), inside.encode(), None, _BIND | _RECURSIVE, None), layer)
        os.close(source)
        flags = _READ_ONLY | (0 if path.startswith("/dev/") else _NODEV)
        _set_attributes(inside, flags, recursive=True)
    os.mkdir("/tmp/jail")
    for name, text in _SOURCES.items():
        with open(f"/tmp/jail/{name}", "w") as file:
            file.write(text)
    os.mkdir("/tmp/work")
    options = f"size={SIZE['work']},nr_inodes=1024,mode=700".encode()
    must(libc.mount(b"tmpfs", b"/tmp/work", b"tmpfs", _NOSUID | _NODEV | _NOEXEC, options), layer)
    os.chdir("/tmp")
    must(libc.syscall(_PIVOT_ROOT.get(os.uname().machine, -1), b".", b"."), layer)
    must(libc.umount2(b".", _DETACH), layer)
    _set_attributes("/", _READ_ONLY | _NODEV, recursive=False)
    os.chdir("/work")


def _set_attributes(path: str, flags: int, *, recursive: bool) -> None:
    attributes = struct.pack("QQQQ", flags, 0, 0, 0)
    result = libc.syscall(_MOUNT_SETATTR, -100, path.encode(), _AT_RECURSIVE * recursive, attributes, len(attributes))
    must(result, "read-only file system")


SIZE: dict[str, int] = {}


def prove() -> None:
    """Look at each layer from inside: what cannot be seen to hold counts as missing."""
    if os.getpid() != 1:
        raise Missing("process namespace", "this is not its first process")
    if [name for _, name in socket.if_nameindex() if name != "lo"]:
        raise Missing("network namespace", "it has a way out")
    if os.path.exists("/proc/1") or os.path.exists("/etc") or os.path.exists("/home"):
        raise Missing("read-only file system", "files from outside can be seen")
    for place in ("/", "/usr/lib", "/jail"):
        if os.path.isdir(place) and not os.statvfs(place).f_flag & os.ST_RDONLY:
            raise Missing("read-only file system", f"{place} can be written")
    if os.getuid() != _INSIDE or any(_capabilities()):
        raise Missing("user namespace", "rights are left")


def limit() -> None:
    """Limit this process, in ways that nothing inside can widen."""
    for name, value in SIZE.items():
        if hasattr(resource, name):
            resource.setrlimit(getattr(resource, name), (value, value))


def start(name: str, kept: dict[int, int], numbers: Sequence[int], output: int) -> int:
    """A process that runs one of our files under the filter and the limits, with these descriptors and no others."""
    child = os.fork()
    if child:
        return child
    try:
        import seccomp

        libc.prctl(1, signal.SIGKILL, 0, 0, 0)
        os.setsid()  # so that a signal to its group reaches nobody else
        null = os.open("/dev/null", os.O_RDWR)
        spare = [os.dup(number) for number in numbers]
        os.dup2(kept.get(0, null), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        ours = []
        for number in spare:
            os.set_inheritable(number, True)
            ours.append(str(number))
        for number in map(int, _open_numbers()):
            if number > 2 and number not in spare:
                os.close(number)
        limit()
        seccomp.install()
        os.execve(_PYTHON, [_PYTHON, "-u", "-s", "-S", "-B", "-P", f"/jail/{name}", *ours], {"PYTHONHASHSEED": "0"})
    except BaseException as error:
        os.write(2, f"the sandbox could not start {name}: {error}".encode())
    finally:
        os._exit(70)


def _open_numbers() -> list[int]:
    numbers = []
    for number in range(256):
        try:
            os.fstat(number)
        except OSError:
            continue
        numbers.append(number)
    return numbers


def first_process(given: dict[str, Any], tell: int) -> None:
    """What process 1 does: start both, wait for the tests, and end, which ends everything."""
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)
    libc.prctl(4, 0, 0, 0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    prove()
    asks_read, asks_write = os.pipe()
    tells_read, tells_write = os.pipe()
    input_read, input_write = os.pipe()
    os.write(tell, b'{"begins": true}\n')
    start("worker.py", {}, (asks_read, tells_write), 1)
    checker = start("checker.py", {0: input_read}, (asks_write, tells_read, tell), 1)
    for number in (asks_read, asks_write, tells_read, tells_write, input_read):
        os.close(number)
    with contextlib.suppress(BrokenPipeError), os.fdopen(input_write, "wb") as stream:
        stream.write(json.dumps({"program": given["program"], "tests": given["tests"]}).encode())
    while os.wait()[0] != checker:
        pass


def main() -> None:
    """Read the order, build the sandbox, run it; exit 0 but for a layer that is missing."""
    tell, hear = int(sys.argv[1]), int(sys.argv[2])
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path.insert(0, folder)
    import seccomp

    for name in _FILES:
        with open(os.path.join(folder, name)) as file:
            _SOURCES[name] = file.read()
    given = json.loads(sys.stdin.buffer.readline())
    SIZE.update(given["limits"])
    try:
        if not sys.platform.startswith("linux"):
            raise Missing("linux", sys.platform)
        if os.uname().machine not in _PIVOT_ROOT:
            raise Missing("system call filter", f"no table of system calls for {os.uname().machine}")
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)
        try_filter(seccomp)
        enter(tell, hear)
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        else:
            guarded(given, tell)
    except Missing as missing:
        os.write(tell, json.dumps({"missing": missing.layer, "why": missing.why}).encode() + b"\n")
    except OSError as error:
        os.write(tell, json.dumps({"missing": "file system", "why": str(error)}).encode() + b"\n")


def guarded(given: dict[str, Any], tell: int) -> None:
    """Process 1, which tells what it misses and never goes back to the caller's code."""
    try:
        first_process(given, tell)
    except Missing as missing:
        os.write(tell, json.dumps({"missing": missing.layer, "why": missing.why}).encode() + b"\n")
    finally:
        os._exit(0)


def try_filter(seccomp: Any) -> None:
    """Whether the filter can be put in force, tried in a child."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            seccomp.install()
            os.write(write, b"+")
        except BaseException as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    said = os.read(read, 1000).decode()
    os.close(read)
    os.waitpid(child, 0)
    if said != "+":
        raise Missing("system call filter", said)


if __name__ == "__main__":
    main()
