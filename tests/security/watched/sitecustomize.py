"""Put on PYTHONPATH by a test: writes down what the process and its children do that could be an attack."""

from __future__ import annotations

import os
import sys

_FILE = os.environ.get("TUTELAGE_TEST_EVENTS", "")
_FOLDER = os.environ.get("TUTELAGE_TEST_FOLDER", "")
_DATA = (".bin", ".pt", ".pth", ".pkl", ".py", ".pyc", ".mdl", ".npy")
_SHELLS = {"sh", "bash", "dash", "/bin/sh", "/bin/bash"}


def _seen(event: str, arguments: tuple) -> str | None:
    if event == "pickle.find_class":
        return f"pickle.find_class {arguments[0]}.{arguments[1]}"
    if event == "os.system":
        return "os.system"
    if event == "subprocess.Popen":
        command = arguments[1]
        shell = isinstance(command, str) or str(command[0]) in _SHELLS
        return f"shell {command!r:.80}" if shell else None
    if event == "socket.connect":
        address = arguments[1]
        inside = not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1", "localhost")
        return None if inside else f"socket.connect {address!r}"
    if event == "socket.getaddrinfo":
        return None if arguments[0] in (None, "localhost", "127.0.0.1", "") else f"socket.getaddrinfo {arguments[0]!r}"
    if event == "open":
        path = arguments[0]
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        inside = isinstance(path, str) and os.path.abspath(path).startswith(_FOLDER)
        return f"open {path}" if inside and path.endswith(_DATA) else None
    if event in ("exec", "compile"):
        name = getattr(arguments[0], "co_filename", "") if event == "exec" else arguments[1]
        name = os.fsdecode(name) if isinstance(name, bytes) else str(name)
        return f"{event} {name}" if os.path.abspath(name).startswith(_FOLDER) and os.sep in name else None
    return None


_busy = False


def _hook(event: str, arguments: tuple) -> None:
    global _busy
    if _busy or event not in _EVENTS:
        return
    _busy = True
    try:
        line = _seen(event, arguments)
        if line is not None:
            with open(_FILE, "a") as file:
                file.write(line + "\n")
    finally:
        _busy = False


_EVENTS = {
    *("pickle.find_class", "os.system", "subprocess.Popen", "socket.connect", "socket.getaddrinfo", "open"),
    *("exec", "compile"),
}
if _FILE:
    with open(_FILE, "a") as file:
        file.write("watching\n")
    sys.addaudithook(_hook)
