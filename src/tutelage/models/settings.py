"""The JSON files of a model folder, read with limits, and searched for what could make `transformers` run code.

`transformers` takes any key of these files for an attribute or an argument, and some of them name code: classes of the
folder, kernels of the hub, modules to import. Such a key is refused wherever it stands, whatever its value; what is
private to a class is refused too, but for numbers and for the few names that published models have.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tutelage.errors import ModelError, Problem, SecurityError, TutelageError

LARGEST = {"config.json": 4 << 20, "generation_config.json": 4 << 20, "adapter_config.json": 4 << 20}
LARGEST |= {"tokenizer_config.json": 32 << 20, "chat_template.jinja": 1 << 20, "tokenizer.json": 256 << 20}
"""Bytes that a file may have; any other, 64 MiB."""
DEEPEST = 32
"""Levels of nesting; published ones have six."""
READ = ("config.json", "generation_config.json", "tokenizer_config.json", "adapter_config.json")
"""What is searched; `transformers` makes objects of them."""
TEXTS = (".json", ".jinja", ".txt", ".model")

Settings = dict[str, dict[str, Any]]
"""The values of each file that is there, by its name."""

_PRIVATE = {"_name_or_path", "_model_name_or_path", "_commit_hash", "_diffusers_version"}
"""Private keys that published models have, and that say nothing but a name; a number names no code under any key."""
_FLAGS = {"_attn_implementation_autoset"}
"""Keys that are harmless as long as they are true, false or nothing."""
_ATTENTION = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "attn_implementation": _ATTENTION,
    "_attn_implementation": _ATTENTION,
    "__type": ("AddedToken",),
    "experts_implementation": (None, "eager", "batched_mm", "grouped_mm"),
    "cache_implementation": (
        *(None, "dynamic", "dynamic_full", "offloaded", "static", "offloaded_static"),
        *("sliding_window", "hybrid", "hybrid_chunked", "quantized"),
    ),
}
"""Keys with a closed list of values; any other value could name a kernel that is fetched and run."""
_CODE = {"trust_remote_code", "custom_pipelines", "custom_generate", "kernel_config"}
_OWN_CODE = "auto_map"


def read_settings(folder: Path) -> Settings:
    """The files that are there.

    Raises:
        ModelError: model/unreadable. SecurityError: security/path-escape, for a link that leads out of the folder.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix in TEXTS:
            _refuse_odd(path)
    return {name: read_object(folder / name) for name in READ if (folder / name).is_file()}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ModelError: model/unreadable, for anything else, too large or too deep.
    """
    try:
        value = json.loads(path.read_text("utf-8"), parse_constant=_number_of, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise unreadable(path, f"it is nested more than {DEEPEST} levels deep") from None
    except (OSError, ValueError) as error:
        raise unreadable(path, str(error)) from error
    if not isinstance(value, dict):
        raise unreadable(path, f"it holds {type(value).__name__}, not an object")
    if _depth(value) > DEEPEST:
        raise unreadable(path, f"it is nested more than {DEEPEST} levels deep")
    return value


def refuse_code(folder: Path, settings: Settings, *, trusted: bool) -> list[str]:
    """Make sure that nothing in the files makes `transformers` run code of others; remarks on what is left unused.

    Code of the folder itself is named by `auto_map`. Where `transformers` has the architecture, its own code is used
    and the key means nothing; elsewhere the folder is refused, unless it is `trusted`.

    Raises:
        SecurityError: security/remote-code.
    """
    problems, remarks = [], []
    for name, values in settings.items():
        for place, key, value in walk(values):
            if key == _OWN_CODE and place == key and isinstance(value, dict):
                if trusted and (elsewhere := [v for v in _names(value) if "--" in v]):
                    problems.append(_refused(folder / name, place, elsewhere[0], "it names code of another place"))
                elif not trusted and _needed(name, values, settings):
                    problems.append(_refused(folder / name, place, value, "transformers has no code of its own for it"))
                elif not trusted:
                    remarks.append(f"{name} names code of the folder, which is not run: transformers has its own")
            elif _asks_for_code(key, value):
                problems.append(_refused(folder / name, place, value))
    if problems:
        raise SecurityError(*problems)
    return remarks


def walk(values: Any, within: str = "") -> Iterator[tuple[str, str, Any]]:
    """Each key of nested values: where it stands, its name, and its value."""
    pairs = values.items() if isinstance(values, dict) else ()
    for key, value in pairs:
        place = f"{within}.{key}" if within else str(key)
        yield place, str(key), value
        yield from walk(value, place)
    if isinstance(values, list):
        for number, value in enumerate(values):
            yield from walk(value, f"{within}.{number}")


def known_architecture(model_type: object) -> bool:
    """Whether `transformers` has code of its own for such a model."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return isinstance(model_type, str) and model_type in CONFIG_MAPPING_NAMES


def known_class(name: object) -> bool:
    """Whether `transformers` has a class of that name."""
    return isinstance(name, str) and name in _classes()


@cache
def _classes() -> frozenset[str]:
    import transformers

    return frozenset(dir(transformers))


def unreadable(path: Path, found: str) -> TutelageError:
    what = f"{path.name} is not what its name says"
    return ModelError(Problem("model/unreadable", what, where=str(path), found=found[:200]))


def _asks_for_code(key: str, value: Any) -> bool:
    if key in _CHOICES:
        return not (value is None or isinstance(value, str)) or value not in _CHOICES[key]
    if key in _FLAGS:
        return not (value is None or isinstance(value, bool))
    if key == "auto_mapping":
        # Names a module that is imported; only where PEFT did not know the task.
        library = value.get("parent_library") if isinstance(value, dict) else value
        return library is not None and not str(library).startswith("transformers.models.")
    if key == "use_kernels":
        return value not in (None, False)
    if key in _CODE or key == _OWN_CODE or "_implementation" in key:
        return value not in (None, False, {}, [])
    return key.startswith("_") and key not in _PRIVATE and not (value is None or isinstance(value, bool | int | float))


def _needed(name: str, values: dict[str, Any], settings: Settings) -> bool:
    """Whether the file's object could not be made without the folder's code."""
    if name == "tokenizer_config.json":
        made = values.get("tokenizer_class")
        return "AutoTokenizer" in values[_OWN_CODE] and made is not None and not known_class(made)
    return not known_architecture(settings.get("config.json", values).get("model_type"))


def _names(auto_map: dict[str, Any]) -> Iterator[str]:
    for value in auto_map.values():
        yield from (str(part) for part in (value if isinstance(value, list) else [value]))


def _refused(path: Path, place: str, value: Any, why: str = "") -> Problem:
    own = place == _OWN_CODE
    return Problem(
        "security/remote-code",
        "the model folder asks to run its own code" if own else "a setting of the model folder could run code",
        where=str(path),
        found=f"{place} = {json.dumps(value, ensure_ascii=False)[:120]}",
        why=why or "transformers would take it for the name of code, or for the leave to run it",
        fix="use a model whose architecture is part of transformers; or, if you have read its code and trust it, "
        "model.trust_remote_code=true"
        if own and "another place" not in why
        else f"remove `{place}` from {path.name} if you trust the rest of the folder",
    )


def _refuse_odd(path: Path) -> None:
    """A text of the folder is a file of it, no larger than such files are; a link would bring in what lies elsewhere.

    The hub's cache is made of links, from `snapshots` to `blobs` beside it.
    """
    try:
        status = path.stat()
        real = path.resolve()
    except OSError as error:
        raise unreadable(path, str(error.strerror)) from error
    if stat.S_ISDIR(status.st_mode):
        return
    if not stat.S_ISREG(status.st_mode):
        raise unreadable(path, "it is not a file but a pipe or a device")
    folder = path.parent.resolve()
    roots = [folder]
    if folder.parent.name == "snapshots":
        roots.append(folder.parent.parent / "blobs")
    if not any(real.is_relative_to(root) for root in roots):
        raise SecurityError(
            Problem(
                "security/path-escape",
                f"{path.name} is a link that leads out of the model folder",
                where=str(path),
                found=f"{path.name} -> {os.readlink(path) if path.is_symlink() else real}",
                why="what it says is copied into the trained model, and may be none of its business",
                fix="put a copy of the file into the folder",
            )
        )
    largest = LARGEST.get(path.name, 64 << 20)
    if status.st_size > largest:
        raise unreadable(path, f"it has {status.st_size:,} bytes; {largest:,} are allowed")


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            part
            for item in level
            for part in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        ]
    return deepest


def _number_of(text: str) -> float:
    # Written by Python's own writer for settings without bounds, as in `"max": Infinity`.
    return float(text)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"`{next(n for n in names if names.count(n) > 1)}` is given twice")
    return values
