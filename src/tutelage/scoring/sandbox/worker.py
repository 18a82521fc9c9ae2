"""Runs inside the sandbox: a program, and then the calls that its tests make, one message each."""

from __future__ import annotations

import os
import sys
from typing import Any


def main() -> None:
    """Read the program, run it, and answer calls until the tests have ended."""
    sys.path.insert(0, "/jail")
    import wire

    del sys.path[0]
    asks = os.fdopen(int(sys.argv[1]), "rb")
    tells = os.fdopen(int(sys.argv[2]), "wb", buffering=0)
    objects: list[Any] = []

    def keep(value: Any) -> int:
        objects.append(value)
        return len(objects) - 1

    names: dict[str, Any] = {"__name__": "program", "__builtins__": __builtins__}
    while (asked := wire.read(asks)) is not None:
        try:
            if "program" in asked:
                exec(compile(asked["program"], "program.py", "exec"), names)
                told: dict[str, Any] = {"value": [name for name in names if not name.startswith("__")]}
            elif "get" in asked:
                told = {"value": wire.encode(names[asked["get"]], keep)}
            elif "attribute" in asked:
                told = {"value": wire.encode(getattr(objects[asked["object"]], asked["attribute"]), keep)}
            else:
                given = wire.decode(asked["given"], objects.__getitem__)
                before = wire.encode(given[0], keep)
                called = objects[asked["object"]] if "object" in asked else names[asked["call"]]
                value = wire.encode(called(*given[0], **given[1]), keep)
                after = wire.encode(given[0], keep)
                told = {"value": value} | ({"changed": after} if after != before else {})
        except BaseException as error:
            told = {"error": type(error).__name__, "text": _text(error)}
        tells.write(wire.line(told))


def _text(error: BaseException) -> str:
    try:
        return str(error)[:400]
    except BaseException:
        return ""


if __name__ == "__main__":
    main()
