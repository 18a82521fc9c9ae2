"""The reference pages, written from the declarations, so that they cannot say anything else.

    python -m tutelage.config.reference docs/reference

A page is a pure function of `tutelage.recipe` or of `CODES`; the tests compare the committed pages with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from tutelage.config.declared import Option, declared, names_in
from tutelage.errors import CLASSES, CODES

COMMAND = "python -m tutelage.config.reference docs/reference"


def options_page() -> str:
    """Every option of a recipe in Markdown: a part for each section, with a table of its options."""
    parts = [
        "# Options of a recipe",
        "A recipe is one YAML file. On the command line, `OPTION=VALUE` replaces what the file says: `train.epochs=3`. "
        "N stands for a place in a list, counted from 0: `data.train.0.path=rows.jsonl`. "
        "`tutelage options` prints the same list.",
        _made_from("src/tutelage/recipe/"),
    ]
    for section in _sections():
        heading = [f"## {section}", declared()[section].doc] if section else ["## Top level"]
        rows = (_row(declared()[name]) for name in names_in(section))
        parts += [*heading, _table(("option", "type", "default", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def errors_page() -> str:
    """Every error code in Markdown: a part for each first half of a code, with its exit code."""
    parts = [
        "# Errors",
        "An error starts with its code, as in `error[data/over-long]`, and says where it is, what was found, why it "
        "matters and what to type. The first half of the code decides the exit code. `tutelage explain CODE` prints "
        "the meaning given here.",
        _made_from("src/tutelage/errors.py"),
    ]
    for group in dict.fromkeys(code.partition("/")[0] for code in CODES):
        kind = CLASSES[group]
        rows = ((f"`{code}`", meaning) for code, meaning in CODES.items() if code.startswith(f"{group}/"))
        parts += [f"## {group}", f"Exit code {kind.exit_code}. {kind.__doc__}", _table(("code", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


PAGES = {"options.md": options_page, "errors.md": errors_page}
"""File name -> the function that makes its text."""


def write_pages(folder: Path) -> None:
    """Both pages, written into a folder that exists."""
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


def _made_from(source: str) -> str:
    return f"<!-- Made from {source} by `{COMMAND}`; change it there. -->"


def _sections() -> list[str]:
    """The names that options stand directly under; the empty one is the top level."""
    around = (name.rpartition(".")[0] for name in declared() if not name.endswith(".N"))
    return list(dict.fromkeys(around))


def _row(option: Option) -> tuple[str, str, str, str]:
    name = f"`{option.name}`"
    for section in {option.name, f"{option.name}.N"}.intersection(_sections()):
        name = f"[{name}](#{section.replace('.', '').lower()})"
    plain = {"required": "required", "not given": "not given", "": "may be left out"}
    return name, option.type, plain.get(option.default, f"`{option.default}`"), option.doc


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    cells = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in cells)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference pages.")
    parser.add_argument("folder", type=Path)
    write_pages(parser.parse_args().folder)
