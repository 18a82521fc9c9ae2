"""In which number formats a model is held, multiplied and updated."""

from __future__ import annotations

from typing import Literal

from tutelage.recipe.base import Section

Weights = Literal["auto", "float32", "bfloat16", "float16"]
State = Literal["auto", "float32", "bfloat16"]
Master = Literal["auto", "float32", "none", "stochastic"]


class PrecisionOptions(Section):
    """Four formats, each chosen for the device when it is `auto`; the run prints and stores what they became."""

    weights: Weights = "auto"
    """Of the model in memory; for LoRA of the frozen weights, beside which the adapter stays in float32. auto:
    float32, but bfloat16 for LoRA on a GPU that has it, if the model is not stored in another format. float16 is
    refused, with the reason."""
    compute: Weights = "auto"
    """Of what matrix products read; their sums are float32. auto: bfloat16 on a GPU that has it and for bfloat16
    weights, float32 elsewhere. float16 is refused, with the reason."""
    optimizer: State = "auto"
    """Of AdamW's two averages; auto is float32. bfloat16 takes half the memory, rounded at random so that small
    changes are not lost."""
    master: Master = "auto"
    """What becomes of updates that are too small for trained bfloat16 weights. auto and float32: the optimizer keeps
    the weights in float32 and rounds copies of them; stochastic: no copies, rounded at random, right on average;
    none: no copies, for weights that are trained in float32 and need none."""
