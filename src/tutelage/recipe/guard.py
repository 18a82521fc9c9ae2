"""What happens when the numbers of a step cannot be right."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from tutelage.recipe.base import Section


class GuardOptions(Section):
    """Steps whose loss or gradient is not finite, and steps whose loss jumps."""

    non_finite: Literal["skip", "stop", "rollback"] = "skip"
    """What a loss or gradient that is not finite leads to. Such a step never changes the weights. `skip` goes on with
    the next one, `stop` ends the run, `rollback` goes back to the last checkpoint after sound steps and passes over
    this step's rows."""
    spikes: Literal["ignore", "skip", "stop", "rollback"] = "ignore"
    """The same for a loss far above those of the fifty sound steps before it: above their median by more than half of
    it and by more than ten standard deviations, as their median absolute deviation estimates them."""
    limit: PositiveInt = 10
    """The run ends at so many unsound steps in a row, or so many steps passed over."""
