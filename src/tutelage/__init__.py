"""Tutelage adapts pretrained language models to demonstrations, and says whether it helped.

import tutelage
result = tutelage.train("recipes/support.yaml", ["train.learning_rate=1e-4"])
print(result["heldout"]["sentence"])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tutelage.commands import check, preview, report, train
    from tutelage.errors import TutelageError

__all__ = ["TutelageError", "__version__", "check", "preview", "report", "train"]


def __getattr__(name: str) -> Any:
    # The verbs are loaded when they are first asked for, so that `import tutelage` costs nothing.
    if name not in __all__:
        raise AttributeError(f"module 'tutelage' has no attribute {name!r}")
    home = "tutelage.errors" if name == "TutelageError" else "tutelage.commands"
    return getattr(import_module(home), name)
