"""The files that a verb of `tutelage data` writes: none of them may exist, and none is left without rows."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.data.ledger import Ledger
from tutelage.data.written import explained
from tutelage.errors import DataError, Problem, RecipeError


class Outputs:
    """The files that a verb writes, none of which may exist."""

    def __init__(self, output: str | Path, *names: str, ending: str = ".jsonl") -> None:
        """`output` is a file with this ending, or the folder of the files called `names`.

        Raises:
            RecipeError: usage/output-exists; recipe/bad-value when the name is not one for such a file or folder.
            MachineError: machine/read-only.
        """
        path = Path(output)
        self._refuse_name(path, names, ending)
        self.files = tuple(path / name for name in names) or (path,)
        # Not `.jsonl`, or a source that names the folder or a pattern would read these rows, too.
        self.dropped = path / "rows.dropped" if names else path.with_name(f"{path.name}.dropped")
        for file in (*self.files, self.dropped):
            if os.path.lexists(file):
                what, fix = f"`{file}` exists already", "choose another name, or remove it"
                raise RecipeError(Problem("usage/output-exists", what, str(file), fix=fix))
        self._refuse_read_only(self.files[0].parent)

    @staticmethod
    def _refuse_name(path: Path, names: tuple[str, ...], ending: str) -> None:
        if names:
            wrong, wanted, fix = path.suffix in (".jsonl", ".json"), "a folder", str(path.with_suffix(""))
        else:
            folder = path.is_dir()
            wrong, wanted = folder or path.suffix != ending, f"a file whose name ends in {ending}"
            fix = str(path / f"rows{ending}" if folder else path.with_suffix(ending))
        if wrong:
            what = f"the output is {wanted}" + (f", for {' and '.join(names)}" if names else "")
            raise RecipeError(Problem("recipe/bad-value", what, "command line", found=str(path), fix=fix))

    @staticmethod
    def _refuse_read_only(folder: Path) -> None:
        """Find out before any row is read, and leave nothing behind."""
        with explained(folder):
            nearest = folder
            while not nearest.exists():
                nearest = nearest.parent
            if not nearest.is_dir():
                raise NotADirectoryError
            with tempfile.TemporaryFile(dir=nearest):
                pass

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
