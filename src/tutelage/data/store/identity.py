"""What decides the tokens of a store: its name is the hash of this, so nothing stale is ever used."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import unicodedata
from importlib import metadata
from pathlib import Path
from typing import Any

import tutelage.types
from tutelage import files
from tutelage.data import sources
from tutelage.data.encode import Encoder, clock
from tutelage.data.store.building import stored_renderings
from tutelage.data.stream import Stream, sources_of
from tutelage.recipe import DataOptions


def identity(options: DataOptions, encoder: Encoder, stream: Stream) -> dict[str, Any]:
    """Everything that decides which tokens a store holds, as JSON."""
    rows = sources_of(options)
    template, near = encoder.template, options.duplicates
    return {
        "code": _code(),
        "packages": _versions(),
        "sources": [sources.fingerprint(source) for source in rows],
        "read": [source.model_dump(mode="json", exclude={"name", "share", "cap"}) for source in rows],
        "clean": options.clean.model_dump(),
        "decontaminate": None if stream.decontaminate is None else stream.decontaminate.identity(),
        "near": None if near.near == "off" else [near.threshold, near.words],
        "renderings": stored_renderings(options),
        "tokenizer": hashlib.sha256(encoder.tokenizer.backend.to_str().encode()).hexdigest(),
        "special_tokens": encoder.tokenizer.special_tokens,
        "template": None if template is None else template.sha256,
        "date": str(clock.now().date()) if template is not None and template.uses_clock else None,
        "chance": secrets.token_hex(8) if template is not None and template.uses_chance else None,
        "max_length": options.max_length,
        "over_long": options.over_long,
        "thinking_weight": options.thinking_weight,
        "on_bad_row": options.on_bad_row,
    }


def _code() -> str:
    """Hash of the sources that decide it: other code, other store."""
    package = Path(tutelage.types.__file__).parent
    parts = (package / "types.py", *(package / "data").rglob("*.py"), *(package / "recipe").rglob("*.py"))
    return files.sha256_of_all(package, parts)


def _versions() -> dict[str, str]:
    """The packages that decide how text is read and cut up."""
    found = {"unicode": unicodedata.unidata_version}
    for name in ("tokenizers", "jinja2", "ftfy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
