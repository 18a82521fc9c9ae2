"""Code that a model wrote, run against the row's tests in the sandbox: 1 where they pass, 0 where not."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from tutelage.scoring.mark import Mark, Scored
from tutelage.scoring.sandbox import Limits, run

_BLOCK = re.compile(r"```[ \t]*(?:python|py|python3|Python)?[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL)


class Code(Scored):
    """The reference holds `tests`, Python or a list of lines of it; and may hold `setup`, `prompt` and `entry`.

    `entry` is the function that `check(candidate)` of the tests is called with, as in HumanEval. `prompt` is the start
    of a program that the answer goes on with, where the answer does not define `entry` anew.
    """

    kind: Literal["code"] = "code"
    seconds: float = Field(default=10.0, gt=0, le=120)
    """Time for one program, by the clock."""

    def mark(self, answer: str, reference: Any) -> Mark:
        """Run the tests.

        Raises:
            MachineError: machine/no-sandbox; nothing is run without every layer.
        """
        program = self.program(answer, reference)
        tests = reference["tests"]
        lines = [*reference.get("setup", ()), *([tests] if isinstance(tests, str) else tests)]
        if entry := reference.get("entry"):
            lines.append(f"check({entry})")
        outcome = run(program, "\n".join(lines), Limits(seconds=self.seconds))
        return Mark(float(outcome.passed), program, outcome.why)

    @staticmethod
    def program(answer: str, reference: Any) -> str:
        """The program that an answer gives: its first block of code, or all of it; after the prompt, if need be."""
        block = _BLOCK.search(answer)
        code = str(block[1]) if block else answer
        prompt, entry = str(reference.get("prompt", "")), str(reference.get("entry", ""))
        if not prompt:
            return code
        if re.search(rf"^def {re.escape(entry)}\b", code, re.MULTILINE):
            # What the prompt imports and defines before its function is still there for the answer.
            start = re.search(rf"^def {re.escape(entry)}\b", prompt, re.MULTILINE)
            return (prompt[: start.start()] if start else "") + code
        return prompt + code
