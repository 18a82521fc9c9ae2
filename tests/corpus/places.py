"""Paths that are no file, or no plain one: folders, pipes, links, files of somebody else."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from makers import line, lines, maker


@maker
def nothing(folder: Path) -> None:
    """An empty folder."""


@maker
def folder_of_other_things(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "notes.md").write_text("Nothing here.")
    (folder / "data" / "deeper").mkdir()


@maker
def folder_with_a_spreadsheet(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "rows.jsonl").write_text(lines(1))
    (folder / "data" / "more.xlsx").write_bytes(b"PK\x03\x04")


@maker
def folders_named_like_files(folder: Path) -> None:
    (folder / "a.jsonl").mkdir()
    (folder / "b.jsonl").write_text(lines(1, 2))


@maker
def thousand_files(folder: Path) -> None:
    for number in range(1000):
        (folder / f"{number:04}.jsonl").write_text(line(number))


@maker
def pipe(folder: Path) -> None:
    os.mkfifo(folder / "rows.jsonl")


@maker
def listening_socket(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{opened}/rows.jsonl")  # the name of a socket must be short
    os.close(opened)


@maker
def link_to_endless_zeros(folder: Path) -> None:
    (folder / "rows.jsonl").symlink_to("/dev/zero")


@maker
def link_to_itself(folder: Path) -> None:
    (folder / "rows.jsonl").symlink_to("rows.jsonl")


@maker
def folders_in_a_loop(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "rows.jsonl").write_text(lines(1, 2))
    (folder / "data" / "again").symlink_to(folder / "data")


@maker
def link_that_leads_nowhere(folder: Path) -> None:
    (folder / "rows.jsonl").symlink_to("gone.jsonl")


@maker
def link_out_of_the_folder(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "rows.jsonl").write_text(lines(1, 2))
    (folder / "data").mkdir()
    (folder / "data" / "rows.jsonl").symlink_to("../elsewhere/rows.jsonl")


@maker
def file_of_somebody_else(folder: Path) -> None:
    (folder / "rows.jsonl").write_text(lines(1))
    (folder / "rows.jsonl").chmod(0)


@maker
def folder_of_somebody_else(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "rows.jsonl").write_text(lines(1))
    (folder / "data").chmod(0)


@maker
def two_names_of_one_file(folder: Path) -> None:
    (folder / "rows.jsonl").write_text(lines(1, 2))
    os.link(folder / "rows.jsonl", folder / "same.jsonl")
