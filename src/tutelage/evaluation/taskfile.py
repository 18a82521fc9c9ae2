"""A task file of lm-eval, looked into before it is read there: what it is called, and whether it brings code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tutelage import files
from tutelage.errors import Problem, RecipeError, SecurityError


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A task as it is asked for."""

    name: str
    file: str
    """Of a task of one's own; empty for one that comes with lm-eval."""
    sha256: str


def asked_for(task: str, *, trusted: bool) -> TaskFile:
    """A name of lm-eval's own, or a file; `trusted`: code that the file names may run.

    Raises:
        RecipeError: recipe/missing-file, recipe/bad-yaml, recipe/bad-value. SecurityError: security/remote-code.
    """
    if not task.endswith((".yaml", ".yml")):
        return TaskFile(task, "", "")
    path = Path(task)
    found = dict(_pairs(_node(path)))
    name = found.get("task")
    if not isinstance(name, ScalarNode) or not name.value:
        what, fix = "the file is no task of lm-eval: it does not say what the task is called", "add `task: NAME`"
        raise RecipeError(Problem("recipe/bad-value", what, str(path), fix=fix))
    if not trusted:
        _refuse_code(path, set())
    return TaskFile(str(name.value), str(path), files.sha256(path))


def _node(path: Path) -> Node | None:
    if not path.is_file():
        raise RecipeError(Problem("recipe/missing-file", "there is no such task file", str(path)))
    try:
        with path.open("rb") as file:
            return YAML(typ="rt", pure=True).compose(file)  # type: ignore[no-any-return]
    except (YAMLError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split())[:300]
        raise RecipeError(Problem("recipe/bad-yaml", "the task file is not YAML", str(path), found=told)) from None


def _refuse_code(path: Path, seen: set[Path]) -> None:
    """Refuse a file that lm-eval would run code for, and what it includes."""
    from lm_eval.api import metrics  # noqa: F401 (the registry is empty without them)
    from lm_eval.api.registry import METRIC_REGISTRY

    seen.add(path.resolve())
    node = _node(path)
    asks = [f"{one.tag} {one.value}" for one in _all(node) if str(one.tag).startswith("!")]
    for key, value in _pairs(node, deep=True):
        told = str(value.value) if isinstance(value, ScalarNode) else ""
        asks += [f"{key}: {told}"] if key == "class" or (key == "hf_evaluate" and told.lower() != "false") else []
        asks += [f"{key}: {told}"] if key == "metric" and told not in METRIC_REGISTRY else []
    if asks:
        what = "the task asks lm-eval to run code that does not come with it"
        fix = "read that code, and add --trust-remote-code if you trust it"
        raise SecurityError(Problem("security/remote-code", what, str(path), found=", ".join(asks[:5]), fix=fix))
    for key, value in _pairs(node):
        for one in _all(value) if key == "include" else ():
            other = path.parent / str(one.value)
            if isinstance(one, ScalarNode) and other.resolve() not in seen:
                _refuse_code(other, seen)


def _all(node: Node | None) -> Iterator[Any]:
    """The node and every one in it, each once."""
    left, seen = [node], set()
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, SequenceNode):
            left += one.value
        elif isinstance(one, MappingNode):
            left += [part for pair in one.value for part in pair]


def _pairs(node: Node | None, *, deep: bool = False) -> Iterator[tuple[str, Any]]:
    """The keys of a mapping with what stands under them; with `deep`, of all mappings in it, too."""
    for one in _all(node) if deep else [node]:
        if isinstance(one, MappingNode):
            yield from ((str(key.value), value) for key, value in one.value)
