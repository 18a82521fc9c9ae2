"""The safetensors files of a folder: their headers checked to the last byte before anybody else opens them.

    8 bytes: length of the header | header: JSON, each tensor's type, shape and place | the tensors, without a gap

A header promises sizes, and whoever believes it allocates them. Here each promise is held against the file: the types
are known, the shapes have the bytes that they are given, and the bytes lie one after another up to the file's end.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import ModelError, Problem, SecurityError, TutelageError

BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16}
BITS |= {"BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4}
BITS |= {"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6}
"""Bits of a number, by the name of its type."""
LONGEST_HEADER = 100_000_000
WHOLE, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"
_PART = re.compile(r"model-\d+-of-\d+\.safetensors")


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


class _Bad(Exception):
    """What is wrong with a header."""


def tensors_of(folder: Path, *, adapter: bool = False) -> dict[str, Tensor]:
    """Each tensor that will be loaded, by its name in the files.

    Raises:
        ModelError: model/no-weights; model/bad-weights. SecurityError: security/path-escape, from the index.
    """
    files = [folder / ADAPTER] if adapter else _files(folder)
    tensors: dict[str, Tensor] = {}
    for path in files:
        for name, tensor in header_of(path).items():
            if name in tensors:
                raise _refused(path, f"the tensor `{name}` is in another file too")
            tensors[name] = tensor
    if not adapter and len(files) > 1:
        lost = sorted(set(_index(folder)) - set(tensors))
        if lost:
            raise _refused(folder / INDEX, f"it names tensors that no file has: {', '.join(lost[:3])}")
    return tensors


def header_of(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, by name.

    Raises:
        ModelError: model/bad-weights.
    """
    try:
        if not path.is_file():
            raise _Bad("it is not a file")
        with path.open("rb") as file:
            size = path.stat().st_size
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length < 2:
                raise _Bad("it has no header")
            if length > LONGEST_HEADER:
                pickled = start[:1] == b"\x80" or start[:4] == b"PK\x03\x04"
                raise _Bad(
                    "it is a pickle under another name" if pickled else f"its header would have {length:,} bytes"
                )
            if length > size - 8:
                raise _Bad(f"its header of {length:,} bytes is longer than the file, which has {size:,}")
            return _checked(_parsed(file.read(length)), size - 8 - length)
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from error
    except _Bad as bad:
        raise _refused(path, str(bad)) from None


def _parsed(data: bytes) -> dict[str, Any]:
    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(values := dict(pairs)) < len(pairs):
            raise _Bad("its header names a tensor twice")
        return values

    if data[:1] != b"{":
        raise _Bad("its header is not JSON")
    try:
        header = json.loads(data.decode("utf-8"), object_pairs_hook=without_repeats)
    except (ValueError, RecursionError):
        raise _Bad("its header is not JSON in UTF-8") from None
    return dict(header)


def _checked(header: dict[str, Any], size: int) -> dict[str, Tensor]:
    tensors, places = {}, []
    for name, said in header.items():
        if name == "__metadata__":
            if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
                raise _Bad("its metadata are not texts")
            continue
        match said:
            case {"dtype": str() as dtype, "shape": list() as shape, "data_offsets": [int() as begin, int() as end]}:
                pass
            case _:
                raise _Bad(f"its header does not say type, shape and place of `{name[:80]}`")
        if dtype not in BITS:
            raise _Bad(f"`{name[:80]}` has the unknown type {dtype[:20]}")
        if not all(type(extent) is int and 0 <= extent < 1 << 48 for extent in shape):
            raise _Bad(f"`{name[:80]}` has the shape {shape!s:.60}")
        tensor = Tensor(dtype, tuple(shape))
        if tensor.numbers * BITS[dtype] != (end - begin) * 8:
            raise _Bad(f"`{name[:80]}` has {end - begin:,} bytes, and its shape {shape!s:.60} of {dtype} needs others")
        tensors[name] = tensor
        places.append((begin, end, name))
    reached = 0
    for begin, end, name in sorted(places):
        if begin != reached:
            raise _Bad(f"`{name[:80]}` {'overlaps another tensor' if begin < reached else 'begins after a gap'}")
        reached = end
    if reached != size:
        raise _Bad(f"its tensors end at byte {reached:,}, and its data at byte {size:,}")
    return tensors


def _files(folder: Path) -> list[Path]:
    """What `transformers` would load: the whole file, or else the parts that the index names."""
    if (folder / WHOLE).exists():
        return [folder / WHOLE]
    if not (folder / INDEX).is_file():
        raise _no_weights(folder)
    names = sorted(set(_index(folder).values()))
    extra = sorted(p.name for p in folder.iterdir() if _PART.fullmatch(p.name) and p.name not in names)
    if extra:
        raise _refused(folder / INDEX, f"it does not name {', '.join(extra[:3])}, which lies beside it")
    lost = [name for name in names if not (folder / name).is_file()]
    if lost:
        raise _refused(folder / INDEX, f"there is no {', '.join(lost[:3])}, which it names")
    return [folder / name for name in names]


def _index(folder: Path) -> dict[str, str]:
    from tutelage.models.settings import read_object

    path = folder / INDEX
    places = read_object(path).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise _refused(path, "it has no weight_map from tensors to files")
    for name in places.values():
        if Path(name).name != name or name == ".." or "\\" in name or "\0" in name:
            raise SecurityError(
                Problem(
                    "security/path-escape",
                    "the index of the weights names a file outside the model folder",
                    where=str(path),
                    found=f"weight_map: {name[:120]!r}",
                    fix="do not use this folder, or fetch it again from where it came",
                )
            )
        if not name.endswith(".safetensors"):
            raise _refused(path, f"it names {name[:120]!r}, which is no safetensors file")
    return places


def _no_weights(folder: Path) -> TutelageError:
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".ckpt"})
    others = sorted(p.name for p in folder.glob("*.safetensors"))
    found = f"; {', '.join((pickled + others)[:3])}" if pickled or others else ""
    return ModelError(
        Problem(
            "model/no-weights",
            "the model folder holds no weights that Tutelage reads",
            where=str(folder),
            found=f"neither {WHOLE} nor {INDEX}{found}",
            why="pickled weights can run code when they are opened" if pickled else "",
            fix=f"tutelage convert {folder} NEW-FOLDER writes them as safetensors"
            if pickled
            else f"put {WHOLE} into the folder",
        )
    )


def _refused(path: Path, found: str) -> TutelageError:
    what = "the index of the weights does not fit them" if path.name == INDEX else "the file is not whole safetensors"
    return ModelError(
        Problem("model/bad-weights", what, where=str(path), found=found, fix="fetch or save the model again")
    )
