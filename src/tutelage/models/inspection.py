"""A model folder, looked into before `transformers` reads any of it: nothing in it may run code or promise the moon.

Only JSON, templates and the headers of safetensors are read. What could run code when it is opened (pickles, scripts)
is never opened; that it lies there is said.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.errors import ModelError, Problem, TutelageError
from tutelage.models.settings import Settings, known_architecture, known_class, read_settings, refuse_code
from tutelage.models.weights import ADAPTER, Tensor, tensors_of

NEVER_OPENED = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".mdl", ".joblib", ".npy", ".npz", ".h5", ".msgpack"}
"""Endings of files that can run code when they are opened."""
_SCRIPTS = {".py", ".so", ".sh", ".pyc"}

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_SHARED_HEADS = ("num_key_value_heads",)
_COUNTS = (
    *(*_LAYERS, *_WIDTHS, *_HEADS, *_SHARED_HEADS, "vocab_size", "intermediate_size", "n_inner", "head_dim"),
    *("moe_intermediate_size", "n_positions", "max_position_embeddings"),
)
_MOST = dict.fromkeys(_LAYERS, 10_000) | dict.fromkeys((*_HEADS, *_SHARED_HEADS), 100_000)
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a folder holds that passed."""

    settings: Settings
    tensors: dict[str, Tensor]
    remarks: tuple[str, ...] = ()
    """What the user should know: files that are not opened, code that is not run."""
    code: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each script of the folder, where it may run."""


def inspect(folder: Path, *, trusted: bool = False) -> Inspection:
    """Look into a folder that holds config.json or adapter_config.json.

    With `trusted` the folder's own code may run, and is hashed.

    Raises:
        ModelError: model/no-weights, model/unreadable, model/unknown-architecture, model/impossible-size,
            model/bad-weights. SecurityError: security/remote-code, security/path-escape.
    """
    settings = read_settings(folder)
    remarks = refuse_code(folder, settings, trusted=trusted)
    adapter = "adapter_config.json" in settings
    if not adapter and not (trusted and "auto_map" in settings["config.json"]):
        _refuse_unknown(folder, settings["config.json"])
    if adapter and not (folder / ADAPTER).exists():
        raise _no_adapter(folder)
    tensors = tensors_of(folder, adapter=adapter)
    if not adapter:
        refuse_sizes(folder / "config.json", settings["config.json"], tensors)
    remarks += _left_alone(folder, trusted=trusted)
    return Inspection(settings, tensors, tuple(remarks), code_in(folder) if trusted else {})


def inspect_settings(folder: Path) -> None:
    """Look at the settings beside a .gguf file, which `transformers` reads too.

    Raises:
        ModelError: model/unreadable. SecurityError: security/remote-code, security/path-escape.
    """
    refuse_code(folder, read_settings(folder), trusted=False)


def code_in(folder: Path) -> dict[str, str]:
    """SHA-256 of each Python file, by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.py"))
        if path.is_file()
    }


def refuse_sizes(path: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Make sure that the settings promise nothing that the weights do not have, before anything is allocated.

    Raises:
        ModelError: model/impossible-size.
    """
    parts = [config, *(part for part in config.values() if isinstance(part, dict) and "num_hidden_layers" in part)]
    for part in parts:
        if found := next(_impossible(part), None):
            raise _wrong_size(path, *found)
    language = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    if language is None or "quantization_config" in config or not tensors:
        return
    if found := next(_promised(language, tensors), None):
        raise _wrong_size(path, *found)


def _impossible(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in _COUNTS:
        values = config.get(name)
        for value in values if isinstance(values, list) else [values]:
            if value is None:
                continue
            most = _MOST.get(name, 1 << 31)
            if type(value) is not int or not 0 < value <= most:
                yield f"{name} = {value!r:.40}", f"it is a whole number from 1 to {most:,}"
    width, heads, shared = (_first(config, names) for names in (_WIDTHS, _HEADS, _SHARED_HEADS))
    if width and heads and width % heads and not config.get("head_dim"):
        yield f"a width of {width:,} and {heads:,} heads", "each head has the same whole share of the width"
    if heads and shared and heads % shared:
        yield f"{heads:,} heads and {shared:,} of keys and values", "the first is a multiple of the second"


def _promised(config: dict[str, Any], tensors: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    there = sum(tensor.numbers for tensor in tensors.values())
    width, layers = _first(config, _WIDTHS), _first(config, _LAYERS)
    numbered = {int(found[1]) for name in tensors if (found := _LAYER.search(name))}
    if layers and numbered and layers > len(numbered):
        yield f"{layers:,} layers", f"the weights have {len(numbered):,}"
    for name in ("vocab_size", "intermediate_size", "n_inner", "moe_intermediate_size"):
        size = _first(config, (name,))
        # Some split their embedding in two, none has less than a quarter of it.
        if width and size and width * size > 4 * there:
            yield f"{name} = {size:,} with a width of {width:,}", f"all weights together have {there:,} numbers"


def _first(config: dict[str, Any], names: tuple[str, ...]) -> int | None:
    return next((value for name in names if type(value := config.get(name)) is int), None)


def _refuse_unknown(folder: Path, config: dict[str, Any]) -> None:
    named = config.get("architectures")
    names = named if isinstance(named, list) else [] if named is None else [named]
    kind = config.get("model_type")
    if known_architecture(kind):
        return  # Classes were renamed over the years; the kind of model decides which code is used.
    unknown = [name for name in names if not known_class(name)]
    found = f"architectures = {unknown[0]!r:.80}" if unknown else f"model_type = {kind!r:.80}"
    raise ModelError(
        Problem(
            "model/unknown-architecture",
            "the model's architecture is not part of transformers",
            where=str(folder / "config.json"),
            found=found,
            fix="use a model whose architecture is, or a newer version of transformers",
        )
    )


def _left_alone(folder: Path, *, trusted: bool) -> Iterator[str]:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    pickled = [name for name in names if Path(name).suffix in NEVER_OPENED]
    scripts = [] if trusted else [name for name in names if Path(name).suffix in _SCRIPTS]
    for what, found in (("can run code when they are opened, so they are not", pickled), ("are not run", scripts)):
        if found:
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            yield f"files of the model folder that {what}: {', '.join(found[:5])}{more}"


def _no_adapter(folder: Path) -> TutelageError:
    others = sorted(p.name for p in folder.iterdir() if p.suffix in NEVER_OPENED)
    return ModelError(
        Problem(
            "model/no-weights",
            "the adapter's folder holds no weights that Tutelage reads",
            where=str(folder),
            found=f"no {ADAPTER}{'; ' + ', '.join(others[:3]) if others else ''}",
            why="pickled weights can run code when they are opened" if others else "",
            fix=f"tutelage convert {folder} NEW-FOLDER writes them as safetensors" if others else "",
        )
    )


def _wrong_size(path: Path, found: str, why: str) -> TutelageError:
    what = "config.json names a size that the model cannot have"
    return ModelError(
        Problem("model/impossible-size", what, where=str(path), found=found, why=why, fix="fetch or save it again")
    )
