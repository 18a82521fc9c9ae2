"""Where things are kept that can be made again: converted models, encoded rows."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """TUTELAGE_CACHE, or `tutelage` in the user's cache folder."""
    given = os.environ.get("TUTELAGE_CACHE")
    if given:
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tutelage"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / f"tutelage-{os.getuid()}"
