"""Tutelage adapts pretrained language models to demonstrations, and says whether it helped."""

__version__ = "0.1.0"
