"""Bad input that is too large, too odd or too binary to lie in a repository: one function each, called by its name.

A maker fills the folder of its case; the recipe of the case says what is read.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Maker = Callable[[Path], None]
MAKERS: dict[str, Maker] = {}
MEGABYTE = 1 << 20


def maker(make: Maker) -> Maker:
    """Register a maker under its name."""
    MAKERS[make.__name__] = make
    return make


def line(number: int, **more: Any) -> str:
    """One good row."""
    return json.dumps({"instruction": f"Ask {number}", "input": "", "output": f"Yes {number}.", **more}) + "\n"


def lines(*numbers: int) -> str:
    """Good rows."""
    return "".join(line(number) for number in numbers)


# --------------------------------------------------------------------------------------------- deep, long, large


@maker
def deep_json(folder: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    rows = [line(1), f'{{"instruction": "Ask 2", "output": "Yes 2.", "extra": {deep}}}\n', deep + "\n", line(4)]
    (folder / "rows.jsonl").write_text("".join(rows))


@maker
def deep_json_array(folder: Path) -> None:
    (folder / "rows.json").write_text("[" + line(1) + "," + "[" * 100_000 + "]" * 100_000 + "]")


@maker
def deep_arguments(folder: Path) -> None:
    """As deep as Python's parser allows, where a template walks through it."""
    rows = []
    for number, depth in enumerate((3, 90, 300, 450, 900), 1):
        arguments = '{"a":' * depth + "1" + "}" * depth
        call = {"type": "function", "function": {"name": "add", "arguments": "HERE"}}
        answer = {"role": "assistant", "content": "", "tool_calls": [call]}
        row = {"messages": [{"role": "user", "content": f"Ask {number}"}, answer]}
        rows.append(json.dumps(row).replace('"HERE"', arguments) + "\n")
    (folder / "rows.jsonl").write_text("".join(rows))


@maker
def deep_columns(folder: Path) -> None:
    """Deep values where a message would show them."""
    deep = "[" * 700 + "]" * 700
    rows = [line(1), f'{{"instruction": "Ask 2", "output": {deep}}}\n', f'{{"instruction": {deep}, "output": "3"}}\n']
    (folder / "rows.jsonl").write_text("".join(rows))


@maker
def row_of_100_megabytes(folder: Path) -> None:
    with (folder / "rows.jsonl").open("w") as file:
        file.write(lines(1))
        file.write('{"instruction": "Ask 2", "output": "')
        for _ in range(100):
            file.write("word 2 " * (MEGABYTE // 7))
        file.write('"}\n' + lines(3))


@maker
def line_of_300_megabytes(folder: Path) -> None:
    with (folder / "rows.jsonl").open("wb") as file:
        file.write(lines(1).encode())
        file.seek(300 * MEGABYTE, os.SEEK_CUR)  # a hole: zeros that take no room
        file.write(b"\n" + lines(3).encode())


@maker
def row_of_40_megabytes_in_an_array(folder: Path) -> None:
    with (folder / "rows.json").open("wb") as file:
        file.write(b"[" + line(1).encode() + b', {"instruction": "Ask 2", "output": "')
        for _ in range(40):
            file.write(b"x" * MEGABYTE)
        file.write(b'"}]')


@maker
def long_field(folder: Path) -> None:
    """Longer than the 131,072 characters at which Python's csv module stops."""
    (folder / "rows.csv").write_text("instruction,output\nAsk 1," + "word " * 30_000 + "\nAsk 2,Yes 2.\n")


# --------------------------------------------------------------------------------------------- packed


@maker
def gzip_bomb(folder: Path) -> None:
    """10 GiB of spaces in a few megabytes: a gzip file may be several, one after another."""
    member = gzip.compress(b" " * (64 * MEGABYTE), 1)
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(lines(1).encode()) + member * 160)


@maker
def zstandard_bomb(folder: Path) -> None:
    """The same in a few hundred kilobytes."""
    import pyarrow as pa

    member = pa.compress(b" " * (64 * MEGABYTE), "zstd", asbytes=True)
    start = pa.compress(lines(1).encode(), "zstd", asbytes=True)
    (folder / "rows.jsonl.zst").write_bytes(start + member * 160)


@maker
def gzip_in_gzip(folder: Path) -> None:
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(gzip.compress(lines(1, 2).encode())))


# --------------------------------------------------------------------------------------------- templates


@maker
def template_of_a_megabyte(folder: Path) -> None:
    (folder / "own.jinja").write_text("{# " + "x" * MEGABYTE + " #}")


@maker
def template_that_is_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "own.jinja")
