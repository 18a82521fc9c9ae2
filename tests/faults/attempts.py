"""Trials made two at a time, of which each is told that failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from harness import together
from outcomes import Outcome

T = TypeVar("T")


def attempts(found: Outcome, act: Callable[[T], None], trials: Sequence[T]) -> None:
    """Make every trial, count it, and raise with all that failed."""

    def attempt(trial: T) -> str:
        try:
            with found.trial():
                act(trial)
        except Exception as error:  # An AssertionError, or what the trial itself could not bear.
            return f"--- {trial}: {type(error).__name__}: {error}"
        return ""

    failed = [told for told in together([lambda trial=trial: attempt(trial) for trial in trials]) if told]  # type: ignore[misc]
    assert not failed, f"{len(failed)} of {len(trials)} failed\n" + "\n".join(told[:3000] for told in failed)
