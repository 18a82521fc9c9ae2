"""Runs that were made, read and compared; nothing here writes, and whatever lies in a folder is answered in words."""

from __future__ import annotations

from tutelage.history.difference import diff
from tutelage.history.listing import listing
from tutelage.history.verification import verify

__all__ = ["diff", "listing", "verify"]
