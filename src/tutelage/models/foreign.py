"""Code that comes with a model: a door that is shut unless the recipe opens it.

Settings that name code are refused before anything is loaded. This is the second lock: whatever way `transformers`
takes to a folder's classes, it comes through here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tutelage.errors import Problem, SecurityError

_open = False


@contextmanager
def code_allowed(allowed: bool) -> Iterator[None]:
    """Inside, code of a model folder runs if `allowed`; otherwise, and everywhere else, asking for it is an error."""
    global _open
    _shut()
    before, _open = _open, allowed
    try:
        yield
    finally:
        _open = before


def _shut() -> None:
    from transformers import dynamic_module_utils

    run = dynamic_module_utils.get_class_in_module
    if getattr(run, "guarded", False):
        return

    def guarded(class_name: str, module_path: Any, *rest: Any, **options: Any) -> Any:
        if not _open:
            raise SecurityError(
                Problem(
                    "security/remote-code",
                    "loading the model tried to run code that came with it",
                    where=str(module_path),
                    found=class_name,
                    fix="if you have read the code and trust it: model.trust_remote_code=true",
                )
            )
        return run(class_name, module_path, *rest, **options)

    guarded.guarded = True  # type: ignore[attr-defined]
    dynamic_module_utils.get_class_in_module = guarded
