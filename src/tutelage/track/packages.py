"""The packages that trackers need, looked for without importing them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec

from tutelage.errors import MachineError, Problem

NEEDS = {name: (name,) for name in ("tensorboard", "mlflow", "wandb", "trackio")}
"""Tracker -> modules that must be there."""

DATABASE = ("sqlalchemy", "alembic")


def refuse_missing(names: Sequence[str]) -> None:
    """Make sure that each tracker's package is installed; nothing is imported.

    Raises:
        MachineError: machine/missing-package, for each that is not.
    """
    problems = [
        Problem(
            "machine/missing-package",
            f"the tracker `{name}` needs the package `{module}`",
            where="track.to",
            found="it is not installed",
            why="it is looked for before anything is trained",
            fix=f'pip install "tutelage[{name}]"',
        )
        for name in names
        for module in _modules(name)
        if find_spec(module) is None
    ]
    if problems:
        raise MachineError(*problems)


def _modules(name: str) -> tuple[str, ...]:
    if name == "mlflow" and not os.environ.get("MLFLOW_TRACKING_URI"):
        return (*NEEDS[name], *DATABASE)  # Without a server, the run folder holds MLflow's database.
    return NEEDS[name]
