"""What a verb of `tutelage data` is given: a recipe or data files, and the names of the files that it writes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tutelage import config
from tutelage.config import Resolved
from tutelage.data.ledger import Ledger
from tutelage.data.written import explained
from tutelage.errors import DataError, Problem, RecipeError
from tutelage.recipe import DataOptions

Given = str | Path | Sequence[str | Path]
"""A recipe, a data file, or several data files."""

_NO_MODEL = "none"


@dataclass(frozen=True, slots=True)
class Named:
    """A recipe, or one that was made for data files."""

    resolved: Resolved
    recipe_file: str | None = None

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


def named(
    what: Given, overrides: Sequence[str] = (), *, sections: Sequence[str] = ("data",), **defaults: Any
) -> Named:
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
        return Named(config.load(recipes[0], overrides), recipes[0])
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
    return Named(resolved)


class Outputs:
    """The files that a verb writes, none of which may exist."""

    def __init__(self, output: str | Path, *names: str) -> None:
        """`output` is a file, or the folder of the files called `names`.

        Raises:
            RecipeError: usage/output-exists; recipe/bad-value when a file is not named like one of JSON lines.
            MachineError: machine/read-only.
        """
        path = Path(output)
        wrong = path.suffix != ".jsonl" if not names else path.suffix in (".jsonl", ".json")
        if wrong or (not names and path.is_dir()):
            wanted = f"a folder, for {' and '.join(names)}" if names else "a file of JSON lines"
            fix = f"-o {path.with_suffix('')}" if names else f"-o {path / 'rows' if path.is_dir() else path.with_suffix('')}.jsonl"
            raise RecipeError(Problem("recipe/bad-value", f"the output is {wanted}", "command line", f"-o {path}", fix=fix))
        self.files = tuple(path / name for name in names) or (path,)
        self.dropped = path / "rows.dropped" if names else path.with_name(f"{path.name}.dropped")
        for file in (*self.files, self.dropped):
            if os.path.lexists(file):
                what, fix = f"`{file}` exists already", "choose another name, or remove it"
                raise RecipeError(Problem("usage/output-exists", what, str(file), fix=fix))
        self._refuse_read_only(self.files[0].parent)

    @staticmethod
    def _refuse_read_only(folder: Path) -> None:
        """Find out before any row is read."""
        with explained(folder):
            nearest = folder
            while not nearest.exists():
                nearest = nearest.parent
            if not nearest.is_dir():
                raise NotADirectoryError(20, "a file stands where a folder is needed")
            probe = nearest / f".{self_name()}"
            probe.touch(exist_ok=False)
            probe.unlink()

    @property
    def file(self) -> Path:
        """The first file."""
        return self.files[0]

    def refuse_nothing(self, lines: Mapping[Path, int], ledger: Ledger | None = None) -> None:
        """Refuse to leave a file without rows, which nothing could read.

        Raises:
            DataError: data/no-rows.
        """
        for file in self.files:
            if not lines[file]:
                found = "" if ledger is None else ledger.summary()
                raise DataError(Problem("data/no-rows", f"no row is left for `{file}`", found=found))

    def told(self, lines: Mapping[Path, int], ledger: Ledger | None = None) -> dict[str, Any]:
        """What the verb says: the files that were written, and the ledger."""
        names = ("output",) if len(self.files) == 1 else ("train", "heldout")
        written = {name: str(file) for name, file in zip(names, self.files, strict=True)}
        dropped = {"dropped": str(self.dropped)} if lines[self.dropped] else {}
        return {**written, **dropped, **({} if ledger is None else {"ledger": ledger.as_json()})}
