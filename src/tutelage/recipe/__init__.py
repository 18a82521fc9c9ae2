"""Every option of a run, declared once; one YAML file is one `Recipe`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from tutelage.recipe.base import Section
from tutelage.recipe.budget import BudgetOptions
from tutelage.recipe.checkpoint import CheckpointOptions
from tutelage.recipe.clean import CleanOptions
from tutelage.recipe.data import DataOptions, Format, HeldoutFile, Join, Rows, Source
from tutelage.recipe.decontaminate import DecontaminateOptions
from tutelage.recipe.duplicates import DuplicateOptions
from tutelage.recipe.evaluate import EvaluateOptions
from tutelage.recipe.guard import GuardOptions
from tutelage.recipe.mixture import MixtureOptions
from tutelage.recipe.model import Full, Lora, ModelOptions
from tutelage.recipe.precision import PrecisionOptions
from tutelage.recipe.renderings import Rendering, RenderingOptions
from tutelage.recipe.track import TrackOptions
from tutelage.recipe.train import Schedule, TrainOptions

__all__ = [
    "BudgetOptions",
    "CheckpointOptions",
    "CleanOptions",
    "DataOptions",
    "DecontaminateOptions",
    "DuplicateOptions",
    "EvaluateOptions",
    "ExportOptions",
    "Format",
    "Full",
    "GuardOptions",
    "HeldoutFile",
    "Join",
    "Lora",
    "MixtureOptions",
    "ModelOptions",
    "PrecisionOptions",
    "Recipe",
    "Rendering",
    "RenderingOptions",
    "Rows",
    "Schedule",
    "Section",
    "Source",
    "TrackOptions",
    "TrainOptions",
]


class ExportOptions(Section):
    """What is written at the end, beside the model or adapter."""

    merged: bool = False
    """For LoRA: also write the base model with the update merged in."""
    step: Literal["best", "last"] | PositiveInt = "best"
    """Which step's weights: the last ones; those of the step whose held-out loss was the lowest, where it is lower by
    more than `evaluate.margin` standard errors of the difference; or those of a step given by its number, which is
    saved and kept."""

    @property
    def named(self) -> int | None:
        """The step that is given by its number."""
        return None if isinstance(self.step, str) else self.step


class Recipe(Section):
    """One run."""

    model: ModelOptions
    """The model that is adapted."""
    data: DataOptions
    """The rows."""
    train: TrainOptions = TrainOptions()
    """The training loop."""
    guard: GuardOptions = GuardOptions()
    """Steps whose numbers cannot be right."""
    checkpoint: CheckpointOptions = CheckpointOptions()
    """What is kept while training, so that the run can be continued."""
    precision: PrecisionOptions = PrecisionOptions()
    """In which number formats the model is held, multiplied and updated."""
    evaluate: EvaluateOptions = EvaluateOptions()
    """What is measured before and after."""
    export: ExportOptions = ExportOptions()
    """What is written at the end."""
    budget: BudgetOptions = BudgetOptions()
    """Limits within which the plan chooses."""
    track: TrackOptions = TrackOptions()
    """Who else is told how the run goes."""
    output: str = Field(min_length=1)
    """The run folder; it must not hold a run yet, unless that one is to be continued."""

    @property
    def learning_rate(self) -> float:
        """`train.learning_rate` with the default for the adapter filled in."""
        if self.train.learning_rate is not None:
            return self.train.learning_rate
        return 2e-5 if self.model.adapter.kind == "full" else 2e-4

    def conflicts(self) -> list[tuple[str, str, str]]:
        """Contradictions between options: (option, what is wrong, how to mend it)."""
        found = []
        if self.train.epochs is not None and self.train.steps is not None:
            found.append(("train.steps", "both `train.epochs` and `train.steps` are given", "remove one of them"))
        if self.export.merged and self.model.adapter.kind == "full":
            found.append(
                (
                    "export.merged",
                    "there is no adapter to merge after full fine-tuning",
                    "remove `export.merged`",
                )
            )
        if self.evaluate.patience is not None and self.data.heldout == 0:
            what, how = "no rows are held out, so nothing says when to end", "give data.heldout a share"
            found.append(("evaluate.patience", what, how))
        if self.evaluate.general and not self.evaluate.drift:
            found.append(("evaluate.general", "drift is not measured", "remove it, or set evaluate.drift=true"))
        if self.evaluate.score != "none" and self.data.heldout == 0:
            found.append(
                ("evaluate.score", "no rows are held out, so no answer can be scored", "give data.heldout a share")
            )
        return found
