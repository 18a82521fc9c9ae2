"""Runs `check` on one recipe after another, each in a child process with limits, where whatever it does is watched.

    parent ── job ──> server (imports once) ── fork ──> child: limits, watch, check ──> what came of it ──> parent

A child may take so much time and memory, and may open files for writing only where it is told to. What it must not
do at all (connect, start a process, load a library or a pickle, change what lies outside) is refused and reported.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

GRACE = 5
"""Seconds that a child gets beyond its own before it is ended."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NEVER = {
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.startfile", "subprocess.Popen", "pty.spawn"),
    *("socket.connect", "socket.bind", "socket.sendto", "urllib.Request", "pickle.find_class", "ctypes.dlopen"),
    *("os.kill", "signal.pthread_kill", "os.chown", "os.setxattr", "marshal.loads"),
}
_CHANGES = {
    *("os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.symlink", "os.truncate", "os.chmod"),
    *("shutil.rmtree", "shutil.move", "shutil.copyfile"),
}
_WITHIN = {"os.mkdir", "os.rmdir", "os.remove"}
"""Whose last argument is a descriptor of the folder that a path is relative to, or -1."""


class Guard:
    """The server's side that the tests hold."""

    def __init__(self, model: Path) -> None:
        # Standard error is left as it is: a child that crashes says so there.
        command = [sys.executable, __file__, str(model)]
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, encoding="utf-8")

    def check(self, folder: Path, recipe: dict[str, Any], **limits: Any) -> dict[str, Any]:
        """What `check` of a recipe, in a folder, came to."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps({"folder": str(folder), "recipe": recipe, **limits}) + "\n")
        self._server.stdin.flush()
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()


def _serve(model: str) -> None:
    # Whatever is imported here is not imported in each child; torch is, where a tokenizer is loaded and asked.
    import pyarrow.parquet  # noqa: F401

    from tutelage import commands  # noqa: F401
    from tutelage.models.location import Location
    from tutelage.models.tokenizer import chat_tokenizer, load_tokenizer
    from tutelage.recipe import ModelOptions

    chat_tokenizer(load_tokenizer(Location(model)), ModelOptions(path=model))
    gc.collect()
    gc.freeze()  # a child that collected what it did not make would copy all its pages
    for line in sys.stdin:
        job = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            with os.fdopen(writing, "w", encoding="utf-8") as pipe:
                json.dump(_guarded(job), pipe)
                pipe.flush()
                os._exit(0)
        os.close(writing)
        print(_awaited(child, reading, job["seconds"]), flush=True)


def _awaited(child: int, reading: int, seconds: float) -> str:
    """What the child says, or how it ended."""
    said, until, hung = b"", time.monotonic() + seconds + GRACE, False
    while True:
        if not hung and not select.select([reading], [], [], max(0, until - time.monotonic()))[0]:
            os.kill(child, signal.SIGKILL)
            hung = True
        block = os.read(reading, 1 << 16)
        if not block:
            break
        said += block
    os.close(reading)
    _, status = os.waitpid(child, 0)
    ended = f"it did not end in {seconds + GRACE:g} seconds" if hung else f"it ended with status {status}"
    return said.decode() or json.dumps({"crashed": ended})


def _guarded(job: dict[str, Any]) -> dict[str, Any]:
    """What `check` comes to, with the seconds and megabytes that it took and what it was kept from."""
    from tutelage import commands
    from tutelage.data.encode import sandbox
    from tutelage.errors import TutelageError

    os.chdir(job["folder"])
    if job.get("powerless"):
        _give_up_powers()
    before = resource.getrusage(resource.RUSAGE_SELF)
    _limit(job["megabytes"], job["seconds"])
    if job.get("rendering_seconds") is not None:
        sandbox.SECONDS = job["rendering_seconds"]
    kept_from = _watch([str(Path(place).resolve()) for place in job["writable"]])
    start = time.monotonic()
    told: dict[str, Any]
    try:
        told = {"checked": commands.check(job["recipe"], job.get("overrides", ()), data_only=True)}
    except TutelageError as error:
        told = {"exit": error.exit_code, "problems": [asdict(problem) for problem in error.problems]}
        told["text"] = str(error)
    except BaseException:
        told = {"crashed": traceback.format_exc()}
    after = resource.getrusage(resource.RUSAGE_SELF)
    told["seconds"] = time.monotonic() - start
    told["megabytes"] = (after.ru_maxrss - before.ru_maxrss) / 1024
    told["kept_from"] = kept_from
    return told


def _limit(megabytes: int, seconds: int) -> None:
    # Threads set aside more addresses than they use, hence the spare; what is used is measured.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ((megabytes + 4096) << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds * 2 + GRACE, seconds * 2 + GRACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _watch(writable: list[str]) -> list[str]:
    """Refuse what must not be done from here on; the list fills with it."""
    kept_from: list[str] = []

    def inside(path: Any, folder: int = -1) -> bool:
        if isinstance(path, int):
            return True
        base = os.getcwd() if folder == -1 else f"/proc/self/fd/{folder}"
        resolved = os.path.realpath(os.path.join(base, os.fsdecode(path)))
        return any(resolved == root or resolved.startswith(root + os.sep) for root in writable)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        folder = arguments[-1] if event in _WITHIN else -1
        outside = event in _NEVER or (event in _CHANGES and not inside(arguments[0], folder))
        if event == "open" and not outside:
            path, _, flags = arguments
            outside = path != os.devnull and bool(flags & _WRITING) and not inside(path)
        if outside and not _by_the_interpreter(event):
            kept_from.append(f"{event} {arguments!r}"[:300])
            raise PermissionError(f"the guard refuses {event}")

    sys.addaudithook(hook)
    return kept_from


def _by_the_interpreter(event: str) -> bool:
    """Whether Python only loads compiled code of its own, or a package its library, for an import."""
    if event not in ("marshal.loads", "ctypes.dlopen"):
        return False
    frame = sys._getframe(2)
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None


def _give_up_powers() -> None:
    """Root reads what it may not; without its capabilities it is a user like others (capset(2))."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    _serve(sys.argv[1])
