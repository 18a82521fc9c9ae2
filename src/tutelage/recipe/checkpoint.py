"""What is kept of a run while it trains, so that it can be continued."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from tutelage.recipe.base import Section


class CheckpointOptions(Section):
    """Checkpoints: everything that a run needs to go on as if it had not been broken off."""

    every: PositiveInt = 50
    """Optimizer steps between two checkpoints; one is also written where the held-out loss is measured, after the last
    step, and when the run is asked to stop."""
    keep: PositiveInt = 2
    """How many of the newest stay. The best by held-out loss and the last after sound steps always stay as well."""
    wait: NonNegativeInt = 600
    """Seconds for which a full disk is waited for before the run ends; what is on disk by then stays whole."""
