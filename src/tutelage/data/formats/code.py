"""Files of source code: trained whole, or cut into functions, with signature and docstring as prompt.

Only Python is cut, since Python reads it (`ast`); a file that holds nothing to cut leaves with `data/no-function`.
"""

from __future__ import annotations

import ast
import io
import warnings
from collections.abc import Iterator

from tutelage.data.formats.fields import answer, empty_answer, optional_text, text
from tutelage.errors import DataError, Problem
from tutelage.types import Completion, Document, Record

Function = ast.FunctionDef | ast.AsyncFunctionDef

_NOT_IN_TREE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What `ast.parse` raises for text that is not Python, holds a zero byte, or is nested too deeply."""


def read_code(record: Record, weight: float) -> Document:
    """Read `content`, trained whole."""
    return Document(record.origin, answer(record, "content"), weight)


def read_function(record: Record, weight: float) -> Completion:
    """Read a record that `expand_functions` made."""
    return Completion(record.origin, text(record, "prompt"), answer(record, "completion"), weight)


def expand_functions(record: Record) -> tuple[Record, ...]:
    """Return one record {prompt, completion} for each function and method of `content` with a docstring and a body.

    Raises:
        DataError: data/no-function, data/bad-row, data/empty-answer.
    """
    content = text(record, "content").removeprefix("\ufeff")
    if not content.strip():
        raise empty_answer(record, "content", content)
    language = optional_text(record, "lang")
    if not _is_python(language, optional_text(record, "path")):
        found = language or optional_text(record, "path")
        raise _no_function(record, "is not Python, and only Python is cut into functions", found)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in other people's strings
            tree = ast.parse(content)
    except _NOT_IN_TREE as error:
        raise _no_function(record, "cannot be read as Python", f"{type(error).__name__}: {error}") from error
    lines = list(io.StringIO(content, newline=""))
    kept = {name: record.fields[name] for name in ("weight",) if name in record.fields}
    cuts = [{**kept, "prompt": prompt, "completion": body} for prompt, body in _cut(tree.body, lines, "")]
    if not cuts:
        raise _no_function(record, "holds no function with a docstring and a body", f"{len(lines)} lines")
    return tuple(Record(record.origin, cut) for cut in cuts)


def _is_python(language: str, path: str) -> bool:
    if language:
        return language.strip().lower() in ("python", "python3", "py")
    return not path or path.endswith((".py", ".pyi")) or "." not in path.rpartition("/")[2]


def _no_function(record: Record, what: str, found: str) -> DataError:
    why = "the format code-functions trains the bodies of Python functions from their signatures and docstrings"
    fix = "read only Python, as in where: {lang: Python}; or train on whole files, with format: code"
    return DataError(Problem("data/no-function", f"`content` {what}", str(record.origin), found, why, fix))


def _cut(nodes: list[ast.stmt], lines: list[str], within: str) -> Iterator[tuple[str, str]]:
    """Yield (prompt, body) of the functions, and of the methods after the head of their class, `within`."""
    for node in nodes:
        if isinstance(node, Function):
            cut = _cut_function(node, lines)
            if cut is not None:
                yield within + cut[0], cut[1]
        elif isinstance(node, ast.ClassDef):
            head = "".join(lines[_start(node) - 1 : _start(node.body[0]) - 1])
            yield from _cut(node.body, lines, within + head)


def _cut_function(node: Function, lines: list[str]) -> tuple[str, str] | None:
    if ast.get_docstring(node, clean=False) is None or len(node.body) < 2:
        return None
    docstring, first = node.body[0].end_lineno or 0, node.body[1]
    stub = isinstance(first, ast.Pass) or (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant))
    if (stub and len(node.body) == 2) or _start(first) <= docstring:
        return None
    return "".join(lines[_start(node) - 1 : docstring]), "".join(lines[docstring : node.end_lineno])


def _start(node: ast.stmt) -> int:
    """Line of a statement, or of the first of its decorators."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])
