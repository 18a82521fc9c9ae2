"""Attention over a flat row of segments, the prefix forest: each token sees its own branch up to itself.

Registered with `transformers` under one name, so that any model that asks the attention interface for its kernel
can run without padding, without a mask tensor and without cross-talk. A cache, when given, takes the keys and
values instead (generation).

part         which queries attend to which keys          merged, varlen, flex, reference   the backends
layout       the forest of one micro-batch               choice      those that are exact here
"""

from tutelage.models.attention.backend import Backend, UnsupportedAttention
from tutelage.models.attention.choice import UNCHECKED, Choice, Shape, choose
from tutelage.models.attention.interface import NAME, Cache, attend_segments, dropped
from tutelage.models.attention.layout import Layout

__all__ = [
    "NAME",
    "UNCHECKED",
    "Backend",
    "Cache",
    "Choice",
    "Layout",
    "Shape",
    "UnsupportedAttention",
    "attend_segments",
    "choose",
    "dropped",
]
