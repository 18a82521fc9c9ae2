"""What a verb of `tutelage data` is given: a recipe, or data files with options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tutelage import config
from tutelage.config import Resolved
from tutelage.errors import Problem, RecipeError
from tutelage.recipe import DataOptions

What = str | Path | Sequence[str | Path]
"""A recipe, a data file, or several data files."""

_NO_MODEL = "none"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A recipe, or one that was made for data files."""

    resolved: Resolved
    file: str | None = None

    @property
    def data(self) -> DataOptions:
        """The `data` section."""
        return self.resolved.recipe.data

    @property
    def all_to_train(self) -> DataOptions:
        """The same with nothing held out."""
        return self.data.model_copy(update={"heldout": 0.0})

    @property
    def has_model(self) -> bool:
        """Whether a model was named, whose tokenizer can count."""
        return self.resolved.recipe.model.path != _NO_MODEL

    def with_data(self, options: DataOptions) -> Resolved:
        """The recipe with another `data` section."""
        return replace(self.resolved, recipe=self.resolved.recipe.model_copy(update={"data": options}))


def given(what: What, overrides: Sequence[str] = (), *, sections: Sequence[str] = ("data",), **defaults: Any) -> Chosen:
    """The recipe that is given, or one made for data files; `defaults` are data options of the latter.

    Raises:
        RecipeError: everything that is wrong with it, at once; recipe/conflict for an option outside of `sections`
            beside data files, because nothing would heed it.
    """
    paths = [str(what)] if isinstance(what, str | Path) else [str(path) for path in what]
    recipes = [path for path in paths if path.endswith((".yaml", ".yml"))]
    if recipes:
        if len(paths) > 1:
            what_, found = "a recipe names its data itself, so it stands alone", ", ".join(paths)
            fix = "name one recipe, or data files; data.train.0.path=FILE sets the file of a recipe"
            raise RecipeError(Problem("recipe/conflict", what_, recipes[0], found=found, fix=fix))
        return Chosen(config.load(recipes[0], overrides), recipes[0])
    if not paths:
        fix = "name a recipe or data files, as in `tutelage data stats rows.jsonl`"
        raise RecipeError(Problem("recipe/missing-option", "no data is named", "command line", fix=fix))
    data = {"train": [{"path": path} for path in paths], "heldout": 0, **defaults}
    resolved = config.resolve({"model": {"path": _NO_MODEL}, "data": data, "output": "none"}, overrides)
    for override in overrides:
        option = override.partition("=")[0]
        if option.partition(".")[0] not in sections:
            what_ = f"`{option}` has no effect on what is done here with data files"
            fix = f"remove it; the options here begin with {' or '.join(f'{name}.' for name in sections)}"
            raise RecipeError(Problem("recipe/conflict", what_, "command line", found=override, fix=fix))
    return Chosen(resolved)
