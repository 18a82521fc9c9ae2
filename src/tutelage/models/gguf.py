"""A .gguf file as a float32 folder in the cache: converted once, whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tutelage.models.load import load_model
from tutelage.models.location import Location
from tutelage.models.tokenizer import load_tokenizer


def convert_gguf(source: Path, folder: Path) -> None:
    """Write the GGUF file's model and tokenizer as a float32 folder, whole or not at all."""
    location = Location(str(source.parent), gguf_file=source.name)
    tokenizer = load_tokenizer(location)
    model = load_model(location)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():
                raise
            # Another process finished the same conversion first.
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
