"""Runs inside the sandbox, beside the program and out of its reach: its tests, which call it by messages."""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import os
import sys
from typing import Any


class Ended(BaseException):
    """The program is no longer there, or does not speak as agreed."""


class Program:
    """The other process."""

    def __init__(self, wire: Any, asks: int, tells: int) -> None:
        self.changed: list[Any] | None = None
        self.wire, self.asks, self.tells = wire, os.fdopen(asks, "wb", buffering=0), os.fdopen(tells, "rb")

    def ask(self, **message: Any) -> Any:
        """The value it answers; raises the error that it tells, where Python knows one of this name."""
        try:
            self.asks.write(self.wire.line(message))
            told = self.wire.read(self.tells)
            if told is None:
                raise Ended("the program ended by itself")
            if "error" in told:
                raise _error(str(told["error"]), str(told.get("text", "")))
            if "changed" in told:
                self.changed = self.wire.decode(told["changed"], self.kept)
            return self.wire.decode(told["value"], self.kept)
        except (OSError, KeyError, TypeError, AttributeError) as bad:
            if "told" in locals() and isinstance(told, dict) and "error" in told:
                raise
            raise Ended("the program does not speak as agreed") from bad

    def kept(self, number: int) -> Kept:
        """What stands for an object of the program's own."""
        return Kept(self, object=int(number))

    def call(self, target: dict[str, Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call it, and let what it changed in lists, sets and dicts that it was given be seen here."""
        self.changed = None
        encoded = self.wire.encode((list(given), named), self.number)
        value = self.ask(**target, given=encoded)
        changed: list[Any] = self.changed or []
        for mine, theirs in zip(given, changed, strict=False):
            if type(mine) is type(theirs) and isinstance(mine, list):
                mine[:] = theirs
            elif type(mine) is type(theirs) and isinstance(mine, dict | set):
                mine.clear()
                mine.update(theirs)
        return value

    @staticmethod
    def number(value: Any) -> int:
        """The number of an object of the program's own that goes back to it."""
        if isinstance(value, Kept):
            return int(value._target["object"])
        raise TypeError(f"a test gives the program a {type(value).__name__}, which cannot be sent")


class Kept:
    """An object of the program's, or a name in it: it can be called and given back, and equals nothing else."""

    def __init__(self, program: Program, **target: Any) -> None:
        self._program, self._target = program, target

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Call it there."""
        return self._program.call(self._target, given, named)

    def __getattr__(self, name: str) -> Any:
        """Ask for a part of it."""
        if name.startswith("__") or "object" not in self._target:
            raise AttributeError(name)
        return self._program.ask(object=self._target["object"], attribute=name)


def _error(name: str, text: str) -> BaseException:
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, Exception) and not issubclass(known, UnicodeError):
        return known(text)
    return Ended(f"the program ended with {name}: {text}")


def _names(program: Program, defined: list[str], tests: str) -> dict[str, Any]:
    """What the tests use of the program. What they make themselves comes later, and in its place.

    A module of Python's own is this process's, and so is what Python calls by that name, unless the tests use nothing
    else of the program: a program must not say for itself what `abs` or `math.isclose` finds.
    """
    used = {node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)}
    used &= {name for name in defined if isinstance(name, str)}
    modules = used & sys.stdlib_module_names
    theirs = used - modules
    if theirs - set(dir(builtins)):
        theirs -= set(dir(builtins))
    names: dict[str, Any] = {"__name__": "tests"} | {name: importlib.import_module(name) for name in sorted(modules)}
    for name in sorted(theirs):
        value = program.ask(get=name)
        names[name] = Kept(program, call=name) if isinstance(value, Kept) else value
    return names


def check(program: Program, source: str, tests: str) -> dict[str, Any]:
    """Whether the program passes its tests, and if not, why not."""
    try:
        stage = "the program"
        defined = program.ask(program=source)
        stage = "the tests"
        names = _names(program, defined, tests)
        exec(compile(tests, "tests.py", "exec"), names)
    except Ended as error:
        return {"passed": False, "why": str(error)}
    except BaseException as error:
        return {"passed": False, "why": f"{stage}: {type(error).__name__}: {str(error)[:400]}".rstrip(": ")}
    return {"passed": True, "why": ""}


def main() -> None:
    """Read what is to be checked from standard input; write the verdict where only this process can."""
    sys.path.insert(0, "/jail")
    import wire

    del sys.path[0]
    asks, tells, verdicts = map(int, sys.argv[1:4])
    given = json.loads(sys.stdin.buffer.read())
    verdict = check(Program(wire, asks, tells), given["program"], given["tests"])
    os.write(verdicts, wire.line(verdict))


if __name__ == "__main__":
    main()
