"""Code that a model wrote, run against the row's tests in the sandbox: 1 where they pass, 0 where not."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from tutelage.scoring.blocks import Block, blocks
from tutelage.scoring.mark import BadReference, Mark, Scored
from tutelage.scoring.sandbox import Limits, run

_INDENTED = re.compile(r"(?:[ \t]*\r?\n)*(?: {2}|\t)[ \t]*\S")


class Code(Scored):
    """The reference holds `tests`, Python or a list of lines of it; and may hold `setup`, `prompt` and `entry`.

    `entry` is the function that `check(candidate)` of the tests is called with, as in HumanEval. `prompt` is the start
    of a program that the answer goes on with, where the answer does not define `entry` anew.
    """

    version: ClassVar[int] = 2
    kind: Literal["code"] = "code"
    seconds: float = Field(default=10.0, gt=0, le=120)
    """Time for one program, by the clock."""

    def mark(self, answer: str, reference: Any) -> Mark:
        """Run the tests.

        Raises:
            MachineError: machine/no-sandbox; nothing is run without every layer.
        """
        program = self.program(answer, reference)
        outcome = run(program, _tests(reference), Limits(seconds=self.seconds))
        return Mark(float(outcome.passed), program, outcome.why)

    def check(self, reference: Any) -> None:
        """Refuse what is no tests.

        Raises:
            BadReference: they are missing, or are not Python.
        """
        if not isinstance(reference, Mapping):
            raise BadReference("the reference is no set of fields, and `tests` is needed")
        for name in ("tests", "setup"):
            lines = reference.get(name) or ""
            if not isinstance(lines, str | list | tuple) or not all(isinstance(line, str) for line in lines):
                raise BadReference(f"`{name}` is neither a text nor a list of lines")
        for name in ("prompt", "entry"):
            if not isinstance(reference.get(name) or "", str):
                raise BadReference(f"`{name}` is no text")
        if not "".join(reference.get("tests") or ()).strip():
            raise BadReference("`tests` is empty, and a program that is not tested would pass")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse(_tests(reference))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise BadReference(f"`tests` is not Python: {error}") from None

    @staticmethod
    def program(answer: str, reference: Any) -> str:
        """The program that an answer gives: a block of code in it, or all of it; after the prompt, if need be."""
        prompt, entry = reference.get("prompt") or "", reference.get("entry") or ""
        defines = re.compile(rf"^(?:async )?def {re.escape(entry)}\b", re.MULTILINE)
        code = _code(answer, defines, goes_on=bool(prompt))
        if not prompt:
            return code
        if defines.search(code):
            # What the prompt imports and defines before its function is still there for the answer.
            start = defines.search(prompt)
            return (prompt[: start.start()] if start else "") + code
        return str(prompt) + code


def _code(answer: str, defines: re.Pattern[str], *, goes_on: bool) -> str:
    """The block that defines the function; or else the first of Python, or else the first that names no language."""
    found = blocks(answer)
    before = answer[: found[0].start] if found else answer
    if goes_on and _INDENTED.match(before):
        return before  # It goes on inside of the function, so the fence after it closes what was never opened.
    ranks = (lambda block: defines.search(block.text), lambda block: block.python, lambda block: not block.language)
    chosen: list[Block] = [block for fits in ranks for block in found if fits(block)]
    return chosen[0].text if chosen else answer


def _tests(reference: Mapping[str, Any]) -> str:
    parts = [reference.get("setup") or (), reference["tests"]]
    lines = [line for part in parts for line in ([part] if isinstance(part, str) else part)]
    if entry := reference.get("entry"):
        lines.append(f"check({entry})")
    return "\n".join(lines)
