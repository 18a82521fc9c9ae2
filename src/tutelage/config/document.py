"""A recipe as a YAML document: read with the line of every key, and written back.

    file ── read ──> text ── compose ──> nodes with places ── plain ──> values, line of each dotted key

YAML is plain data here (version 1.2: `no` and `on` are text). A document that says anything twice, from afar or by
a tag is refused before a value is built, so nothing in it can expand or run.
"""

from __future__ import annotations

import difflib
import io
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent, Event
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from tutelage.config.names import join
from tutelage.config.secrets import line_without_secrets, without_secrets
from tutelage.errors import Problem, RecipeError
from tutelage.recipe import Recipe

DEEPEST = 20
"""Levels of nesting that a recipe may have; its options need five."""

_YAML_FIXES = {
    "\\t": "indent with spaces, not with tabs",
    "mapping values": "put a text that holds `: ` in quotes",
    "another document": "write one recipe per file; remove the `---` between them",
}


class NotYaml(Exception):
    """The text is not a plain YAML document; line and column count from 1."""

    def __init__(self, what: str, line: int = 1, column: int = 1, *, fix: str = "") -> None:
        super().__init__(what)
        self.what, self.line, self.column, self.fix = what, line, column, fix

    def in_file(self, file: Path, text: str) -> Problem:
        """The problem, with the line it stands on."""
        shown = dict(enumerate(text.split("\n"), start=1)).get(self.line, "").strip()
        shown = line_without_secrets(shown)
        found = f"column {self.column} of: {shown[:80]}" if shown else f"column {self.column}"
        return Problem("recipe/bad-yaml", without_secrets(self.what), f"{file}:{self.line}", found, fix=self.fix)


def read(file: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The values in a recipe file, and the line of each dotted key; the document's own is under the empty name.

    Raises:
        RecipeError: recipe/missing-file, recipe/bad-yaml.
    """
    text = _text(file)
    try:
        node = compose(text)
        if not isinstance(node, MappingNode):
            what = "empty" if node is None else "a list" if isinstance(node, SequenceNode) else "a single value"
            raise NotYaml(f"the recipe is {what}, not sections with options", fix="start with `model:`")
        return plain(node)
    except NotYaml as bad:
        raise RecipeError(bad.in_file(file, text)) from None


def dump(recipe: Recipe) -> str:
    """Every option as YAML, defaults included; `load` gives an equal recipe back."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.width = 10**6
    writer.representer.sort_base_mapping_type_on_output = False
    # Unicode's own line breaks do not survive ruamel's folding unless they are escaped.
    writer.allow_unicode = not re.search("[\x85\u2028\u2029]", recipe.model_dump_json())
    text = io.StringIO()
    writer.dump(recipe.model_dump(mode="json"), text)
    return text.getvalue()


def compose(text: str) -> Node | None:
    """The one document in the text: places and resolved types, nothing built yet, so that nothing can expand."""
    try:
        depth = 0
        for event in YAML(typ="safe", pure=True).parse(text):
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            _refuse_clever(event, depth)
        node: Node | None = YAML(typ="safe", pure=True).compose(text)
        return node
    except MarkedYAMLError as bad:
        mark = bad.problem_mark or bad.context_mark
        what = " ".join(filter(None, ["not valid YAML:", bad.context, bad.problem]))
        fix = next((fix for sign, fix in _YAML_FIXES.items() if sign in what), "")
        raise NotYaml(what, mark.line + 1, mark.column + 1, fix=fix) from None
    except ReaderError as bad:
        line = text.count("\n", 0, bad.position) + 1
        column = bad.position - text.rfind("\n", 0, bad.position)
        raise NotYaml("not valid YAML: a character that text cannot hold", line, column) from None
    except (OverflowError, ValueError):  # an escape such as "\UFFFFFFFF", for which there is no mark
        raise NotYaml("not valid YAML: an escape that stands for no character") from None


def plain(node: Node) -> tuple[Any, dict[str, int]]:
    """The values of a document, and the line of each dotted key; the document's own is under the empty name."""
    lines: dict[str, int] = {}
    return _build(node, "", node.start_mark.line + 1, lines), lines


def _text(file: Path) -> str:
    try:
        if not file.is_file():
            raise RecipeError(_missing_file(file))
        return file.read_text(encoding="utf-8-sig")
    except OSError as bad:
        what = f"the recipe `{file}` cannot be read"
        raise RecipeError(Problem("recipe/missing-file", what, str(file), bad.strerror or str(bad))) from None
    except UnicodeDecodeError as bad:
        before = bad.object[: bad.start]
        line = before.count(b"\n") + 1
        column = bad.start - before.rfind(b"\n")
        fix = "save the file as UTF-8"
        raise RecipeError(NotYaml("the recipe is not UTF-8 text", line, column, fix=fix).in_file(file, "")) from None


def _missing_file(file: Path) -> Problem:
    folder = file if file.is_dir() else file.parent
    what = f"`{file}` is a folder, not a recipe" if folder == file else f"there is no recipe `{file}`"
    if not folder.is_dir():
        return Problem("recipe/missing-file", what, str(file), fix=f"there is no folder `{folder}` either")
    names = [path.name for path in sorted(folder.iterdir()) if path.suffix in {".yaml", ".yml"}]
    near = difflib.get_close_matches(file.name, names, n=3, cutoff=0.5) or names[:5]
    fix = f"did you mean: {', '.join(str(folder / name) for name in near)}?" if near else "no recipe is in that folder"
    return Problem("recipe/missing-file", what, str(file), fix=fix)


def _refuse_clever(event: Event, depth: int) -> None:
    """A recipe says each value once, in place: no anchors, tags or directives, and no towers of brackets."""
    if getattr(event, "anchor", None):
        what, fix = "anchors and aliases (`&name`, `*name`) are not read", "write the value in both places"
    elif getattr(event, "tag", None):
        what, fix = "tags (`!name`) are not read", "remove it"
    elif getattr(event, "version", None):
        what, fix = "the directive `%YAML` is not read: a recipe is YAML 1.2", "remove it"
    elif depth > DEEPEST:
        what, fix = f"more than {DEEPEST} levels of nesting", "no option is that deep"
    elif re.search("[\ud800-\udfff]", getattr(event, "value", "")):
        what, fix = "an escape that stands for no character", "write the character itself"
    else:
        return
    raise NotYaml(what, event.start_mark.line + 1, event.start_mark.column + 1, fix=fix)


def _build(node: Node, name: str, line: int, lines: dict[str, int]) -> Any:
    lines[name] = line
    if isinstance(node, SequenceNode):
        parts = ((join(name, str(i)), part) for i, part in enumerate(node.value))
        return [_build(part, place, part.start_mark.line + 1, lines) for place, part in parts]
    if isinstance(node, MappingNode):
        values: dict[str, Any] = {}
        for key, part in node.value:
            if not isinstance(key, ScalarNode):
                raise NotYaml("a key is not a name", *_place(key))
            if key.value in values:
                what = f"`{key.value}` is given twice; the first is in line {lines[join(name, key.value)]}"
                raise NotYaml(what, *_place(key), fix="remove one of them")
            values[key.value] = _build(part, join(name, key.value), key.start_mark.line + 1, lines)
        return values
    return _scalar(node)


def _scalar(node: Node) -> Any:
    kind = str(node.tag).rpartition(":")[2]
    if kind not in {"bool", "float", "int", "null"}:
        return node.value  # dates are text too: no option is a date
    try:
        return YAML(typ="safe", pure=True).constructor.construct_object(node)
    except ValueError:  # `0x_` is taken for a number but is none
        return node.value


def _place(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
