"""What a recipe may hold: every option by its dotted name, read from the declarations in `tutelage.recipe`.

Types and limits are put into the words that messages, `tutelage options` and the reference use.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as bounds
from pydantic.fields import FieldInfo

from tutelage.config.names import general, join, within
from tutelage.errors import Problem, RecipeError
from tutelage.recipe import Recipe, Section

REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Option:
    """One declared option; a list position in its name is written N, as in `data.train.N.path`."""

    name: str
    type: str
    default: str
    doc: str


def options(section: str | None = None) -> list[Option]:
    """Every option, or those of one section such as `train` or `data.train.0`, in the order of declaration.

    Raises RecipeError when there is no such section.
    """
    found = [option for option in declared().values() if option.type != "section"]
    if section is None:
        return found
    name = general(section)
    inside = [option for option in found if within(option.name, name)]
    if not inside:
        near = difflib.get_close_matches(name, declared(), n=3)
        fix = f"did you mean: {', '.join(near)}?" if near else "run `tutelage options` to see them all"
        raise RecipeError(Problem("recipe/unknown-option", f"there is no section `{section}`", fix=fix))
    return inside


@cache
def declared() -> dict[str, Option]:
    """Every option and section by its general name (`data.train.N.path`)."""
    found: dict[str, Option] = {}
    _declare(Recipe, "", "", found)
    return found


def names_in(section: str) -> list[str]:
    """The options directly in a section; the empty name is the top level."""
    return [name for name in declared() if name.rpartition(".")[0] == general(section)]


def declared_part(keys: list[str]) -> str:
    """The longest beginning of `keys` that is an option: a number in a list of numbers is not one."""
    while general(".".join(keys)) not in declared():
        keys = keys[:-1]
    return ".".join(keys)


def _declare(section: type[Section], prefix: str, note: str, found: dict[str, Option]) -> None:
    for key, field in section.model_fields.items():
        name = join(prefix, key)
        doc = note + " ".join(field.description.split()) if field.description else found[prefix].doc
        option = Option(name, _type(field.annotation, field.metadata), _default(field), doc)
        if name in found:  # `kind`, which every variant of a section has
            option = replace(found[name], type=f"{found[name].type} | {option.type}")
        found[name] = option
        if option.type.startswith("list of section"):
            name += ".N"
            found[name] = Option(name, "section", REQUIRED, doc)
        variants = list(_sections(field.annotation))
        for variant in variants:
            kind = f"For `kind: {variant.model_fields['kind'].default}`. " if len(variants) > 1 else ""
            _declare(variant, name, kind, found)


def _sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def _type(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [more for item in parts[1:] for more in (item.metadata if isinstance(item, FieldInfo) else [item])]
        return _type(parts[0], [*metadata, *inner])
    if origin in {Union, UnionType}:
        each = [_type(part, () if part is NoneType else metadata) for part in parts]
        return " or ".join(dict.fromkeys(each))  # variants of a section read alike
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin is tuple:
        item = _type(parts[0])
        many = f"list of {item}s" if item.isalpha() else f"list of {item}"
        text = many if parts[-1] is Ellipsis else f"list of {len(parts)}, each {item}"
    elif origin is dict:
        text = f"mapping of {_type(parts[0])} to {_type(parts[1])}"
    elif isinstance(annotation, type) and issubclass(annotation, Section):
        text = "section"
    else:
        text = {str: "text", int: "whole number", float: "number", bool: "true | false", NoneType: "null"}[annotation]
    limits = [limit for item in metadata if (limit := _limit(item, whole=annotation is int))]
    return f"{text} ({', '.join(limits)})" if limits else text


def _limit(item: Any, *, whole: bool) -> str:
    match item:
        case bounds.Gt(gt=0) if whole:
            return "1 or more"
        case bounds.Gt(gt=low):
            return f"above {low}"
        case bounds.Ge(ge=low):
            return f"{low} or more"
        case bounds.Lt(lt=high):
            return f"below {high}"
        case bounds.Le(le=high):
            return f"at most {high}"
        case bounds.MinLen(min_length=1):
            return "not empty"
        case bounds.DocInfo(documentation=text):
            return text
    return ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return REQUIRED
    if field.default is None:
        return "not given"
    if isinstance(field.default, Section):
        return ""
    return field.default if isinstance(field.default, str) else json.dumps(field.default)
