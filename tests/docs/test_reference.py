"""The reference pages say what the declarations say, all of it, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.config import options
from tutelage.config.reference import COMMAND, PAGES, errors_page, options_page
from tutelage.errors import CODES, Problem, TutelageError

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", PAGES)
def test_the_committed_page_is_the_one_that_is_made(name: str) -> None:
    page = FOLDER / name
    assert page.is_file(), f"docs/reference/{name} is missing; run: {COMMAND}"
    assert page.read_text(encoding="utf-8") == PAGES[name](), f"docs/reference/{name} is out of date; run: {COMMAND}"


def test_the_command_writes_the_pages(tmp_path: Path) -> None:
    module = COMMAND.split()[2]
    subprocess.run([sys.executable, "-W", "error", "-m", module, str(tmp_path)], check=True)
    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert written == {name: page() for name, page in PAGES.items()}


def test_every_option_has_one_row_with_its_type_default_and_meaning() -> None:
    rows = {row[0].partition("]")[0].strip("[`"): row[1:] for row in rows_of(options_page())}
    for option in options():
        kind, default, meaning = rows[option.name]
        assert (kind.replace(r"\|", "|"), meaning) == (option.type, option.doc)
        assert default.strip("`") == option.default


def test_every_link_leads_to_a_section() -> None:
    page = options_page()
    anchors = {heading.lower().replace(".", "").replace(" ", "-") for heading in re.findall("^## (.*)$", page, re.M)}
    links = re.findall(r"\]\(#(.*?)\)", page)
    assert len(links) == len(set(links)) == len(anchors) - 1  # nothing leads to the top level
    assert set(links) < anchors


def test_every_code_stands_under_the_exit_code_of_its_error() -> None:
    seen = {}
    for part in errors_page().split("\n## ")[1:]:
        exit_code = int(re.findall(r"Exit code (\d+)\.", part)[0])
        seen |= {code.strip("`"): (meaning, exit_code) for code, meaning in rows_of(part)}
    assert seen == {code: (meaning, TutelageError.of([Problem(code, "")]).exit_code) for code, meaning in CODES.items()}


def rows_of(page: str) -> list[list[str]]:
    """The cells of every table row, heads left out."""
    lines = [line for line in page.splitlines() if re.match(r"\| \[?`", line)]
    return [re.split(r" (?<!\\)\| ", line.removeprefix("| ").removesuffix(" |")) for line in lines]
