"""The rows and recipes on the pages about formats are read as the pages say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from ruamel.yaml import YAML

from tutelage.data.formats import detect, expand, parse, parse_preference
from tutelage.errors import DataError
from tutelage.recipe import Format
from tutelage.recipe.data import DataOptions
from tutelage.types import Origin, Record

PAGES = Path(__file__).parents[3] / "docs" / "how-to" / "formats"
FORMATS = [name for name in get_args(Format) if name != "auto"]
NAMED = ("preference", "code", "code-functions")


def blocks(format: str, language: str) -> list[str]:
    page = (PAGES / f"{format}.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_every_format_has_a_page() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == {*FORMATS, "README"}
    table = (PAGES / "README.md").read_text(encoding="utf-8")
    assert all(f"[{name}]({name}.md)" in table for name in FORMATS)


@pytest.mark.parametrize("format", FORMATS)
def test_the_rows_of_a_page_are_read(format: Format) -> None:
    (text,) = blocks(format, "json")
    rows = [Record(Origin(format, i), json.loads(line)) for i, line in enumerate(text.strip().split("\n"), 1)]
    for row in rows:
        assert all(parse(part, format) for part in expand(row, format))
        if format in NAMED:
            with pytest.raises(DataError):
                detect([row], source=format)
        else:
            assert detect([row], source=format) == format
        if "chosen" in row.fields:
            assert parse_preference(row).chosen


@pytest.mark.parametrize("format", FORMATS)
def test_the_recipe_of_a_page_is_valid(format: str) -> None:
    (text,) = blocks(format, "yaml")
    options = DataOptions.model_validate(YAML(typ="safe").load(text)["data"])
    assert options.train[0].format == (format if format in NAMED else "auto")
