"""The pages' templates, in which any text is escaped and what cannot be seen is spelled out."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from tutelage.report import text
from tutelage.report.collect import number


def template(name: str) -> Template:
    """One of the templates beside this file."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: text.visible(value) if type(value) is str else value,
    )
    names = ("brief", "count", "cut", "decimal", "percent", "said", "setting", "signed", "size")
    environment.filters |= {name: getattr(text, name) for name in names}
    environment.filters["number"] = number
    return environment
