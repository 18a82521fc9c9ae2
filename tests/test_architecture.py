"""The house as it is drawn: imports go down only, torch comes late, files and functions stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tutelage

SOURCES = sorted(Path(tutelage.__file__).parent.rglob("*.py"))
LARGEST_FILE, LARGEST_FUNCTION = 300, 60


def python(code: str) -> str:
    """What a fresh process prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_imports_go_down_only():
    pytest.importorskip("importlinter")
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    "modules",
    ["tutelage", "tutelage.config, tutelage.data.dataset, tutelage.cli.app, tutelage.runs", "tutelage.errors"],
)
def test_torch_comes_late(modules):
    heavy = "[m for m in ('torch', 'transformers', 'peft', 'datasets') if m in sys.modules]"
    assert python(f"import sys, {modules}; print({heavy})") == "[]"


def test_the_public_names():
    assert set(tutelage.__all__) == {"TutelageError", "__version__", "check", "preview", "report", "train"}
    assert all(getattr(tutelage, name) is not None for name in tutelage.__all__)
    with pytest.raises(AttributeError):
        tutelage.no_such_name  # noqa: B018


def test_no_file_is_too_long():
    long = {str(path.relative_to(SOURCES[0].parent)): _lines(path) for path in SOURCES if _lines(path) > LARGEST_FILE}
    assert long == {}


def test_no_function_is_too_long():
    long = {
        f"{path.name}:{node.name}": node.end_lineno - node.lineno + 1
        for path in SOURCES
        for node in functions(path)
        if node.end_lineno - node.lineno + 1 > LARGEST_FUNCTION
    }
    assert long == {}


def test_every_module_says_what_it_is_for():
    assert [str(path) for path in SOURCES if _lines(path) and not ast.get_docstring(_tree(path))] == []


def test_nothing_goes_by_a_name_that_means_nothing():
    vague = {"utils", "helpers", "manager", "handler", "common", "misc"}
    assert [str(path) for path in SOURCES if vague & set(path.with_suffix("").parts)] == []


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _lines(path: Path) -> int:
    return path.read_text("utf-8").count("\n")
