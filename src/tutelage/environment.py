"""What a run was made with: versions, machine, kernels, and the token store."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage import __version__, files
from tutelage.data.store import Store

if TYPE_CHECKING:
    from tutelage.models.forward import Forward
    from tutelage.models.location import Location


def code() -> str:
    """SHA-256 of the package's own files, by which two states of it are told apart whatever version they name."""
    root = Path(__file__).parent
    return files.sha256_of_all(root, (*root.rglob("*.py"), *root.rglob("*.c")))[:16]


def describe(location: Location, store: Store, forward: Forward) -> dict[str, Any]:
    """What `environment.json` holds."""
    import tokenizers
    import torch
    import transformers

    return {
        "tutelage": __version__,
        "code": code(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if forward.device.type == "cuda" else forward.device.type,
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "attention": [backend.name for backend in forward.backends] if forward.packed else ["the model's own"],
        "kernels": list(forward.fused),
        "model": location.describe(),
        "store": {"folder": str(store.folder), "bytes": store.bytes_on_disk()},
    }
