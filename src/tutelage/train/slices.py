"""Tensors of a checkpoint, whole or in slices: as many files as processes wrote it, read by any number of them.

    one process, or replicas      model.safetensors
    divided over two              model-00001-of-00002.safetensors · model-00002-of-00002.safetensors

The slices of a tensor are runs of its rows, one after another in the order of the files. What has no rows, such as a
count, is the same in every file. Only the rows that are asked for are read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

Rows = Mapping[str, tuple[int, int]]
"""Of each parameter the rows that a process holds: from, to."""


def name_of(file: str, rank: int, world: int) -> str:
    """What the slice of a process is called."""
    stem, ending = file.rsplit(".", 1)
    return f"{stem}-{rank + 1:05}-of-{world:05}.{ending}"


def files_of(folder: Path, file: str, present: Collection[str]) -> list[Path]:
    """The file, or the files of its slices in their order.

    Raises:
        ValueError: it is not there, or not with all of its slices.
    """
    if file in present:
        return [folder / file]
    stem, ending = file.rsplit(".", 1)
    pattern = re.compile(rf"{re.escape(stem)}-[0-9]{{5}}-of-([0-9]{{5}})\.{re.escape(ending)}", re.ASCII)
    worlds = {int(match[1]) for name in present if (match := pattern.fullmatch(name))}
    if len(worlds) != 1:
        raise ValueError(f"there is no {file}, nor one set of slices of it")
    (world,) = worlds
    wanted = [name_of(file, rank, world) for rank in range(world)]
    missing = [name for name in wanted if name not in present]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    return [folder / name for name in wanted]


def read(paths: list[Path], rows: Rows | None = None) -> dict[str, Tensor]:
    """Each tensor by its name; of those whose parameter `rows` names, the rows that it says.

    Raises:
        ValueError: the files do not fit together.
        SafetensorError, OSError: one of them cannot be read.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(safe_open(path, framework="pt")) for path in paths]
        names = set(opened[0].keys())
        if any(set(file.keys()) != names for file in opened):
            raise ValueError("the slices do not hold the same tensors")
        return {name: _tensor(opened, name, _wanted(name, rows)) for name in sorted(names)}


def _wanted(name: str, rows: Rows | None) -> tuple[int, int] | None:
    """The rows of a tensor; what the optimizer knows of a parameter is named `PARAMETER/part`."""
    if rows is None:
        return None
    return rows.get(name, rows.get(name.rpartition("/")[0]))


def _tensor(opened: list[Any], name: str, wanted: tuple[int, int] | None) -> Tensor:
    slices = [file.get_slice(name) for file in opened]
    if not slices[0].get_shape():
        return opened[0].get_tensor(name)
    if wanted is None and len(opened) == 1:
        return opened[0].get_tensor(name)
    start, end = wanted or (0, sum(one.get_shape()[0] for one in slices))
    parts, before = [], 0
    for one in slices:
        here = one.get_shape()[0]
        low, high = max(start - before, 0), min(end - before, here)
        if low < high:
            parts.append(one[low:high])
        before += here
    return torch.cat(parts) if parts else slices[0][0:0]
