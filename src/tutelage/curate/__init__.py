"""The verbs of `tutelage data`, as plain functions: each looks at rows, or writes rows that `train` reads.

They take what a recipe's `data` section takes: a recipe, or data files, with overrides spelled as in a recipe.
Nothing is overwritten, and what leaves is written beside what stays, with its reason.
"""

from __future__ import annotations

from tutelage.curate.given import What
from tutelage.curate.views import show, stats
from tutelage.curate.writing import clean, convert, mix, split

__all__ = ["What", "clean", "convert", "mix", "show", "split", "stats"]
