"""Where things are kept that can be made again: converted models, encoded rows."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """TUTELAGE_CACHE, or `tutelage` in the user's cache folder."""
    given = os.environ.get("TUTELAGE_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tutelage"
