"""Limits built into the tree of a chat template: its size, and a check wherever it repeats or grows.

A check is written into the tree as a filter, which costs a template the least; the names of these filters cannot be
written in a template. The sandbox says what they do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeGuard

import jinja2
from jinja2 import nodes
from jinja2.sandbox import SandboxedEnvironment
from jinja2.visitor import NodeTransformer

from tutelage.data.encode.growth import FILTERS

LOOP, KEPT, NOTED = "(each item)", "(kept)", "(written)"
MAX_NODES, _MAX_DEPTH, _MAX_PARTS = 10_000, 100, 64
"""Parts of a template, how deep they are nested, and unknown parts of one sum."""

_FEW = 8
_MADE_ANEW = (nodes.Add, nodes.Concat, nodes.Filter, nodes.Call, nodes.Mul, nodes.Mod, nodes.CondExpr)
"""What takes memory of its own when it is written, as names and pieces of the template do not."""


class LimitError(jinja2.TemplateError):
    """A template asks for more than any chat template needs."""


def limited(tree: nodes.Template, environment: SandboxedEnvironment) -> nodes.Template:
    """The tree with its checks.

    Raises:
        LimitError: it is too large or nested too deeply.
    """
    count = depth = 0
    waiting: list[nodes.Node] = [tree]
    while waiting:
        count += len(waiting)
        depth += 1
        if count > MAX_NODES or depth > _MAX_DEPTH:
            raise LimitError(f"it has more than {MAX_NODES:,} parts, or more than {_MAX_DEPTH} inside each other")
        waiting = [child for node in waiting for child in node.iter_child_nodes()]
    made: nodes.Template = _Limits(environment).visit(tree)
    return made


class _Limits(NodeTransformer):
    """Puts the limits where a template repeats or grows; what cannot grow is left as it is, and as quick."""

    def __init__(self, environment: SandboxedEnvironment) -> None:
        self._environment = environment
        self._within = 0

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        assert isinstance(node.iter, nodes.Expr)
        node.iter = self._filtered(node.iter, LOOP)
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        # What is written is counted when it is joined, so only long sums are counted before.
        node.nodes = [self._sum(child, 3) if _is_sum(child) else self.visit(child) for child in node.nodes]
        if self._within:
            node.nodes = [
                self._filtered(child, NOTED) if isinstance(child, _MADE_ANEW) else child for child in node.nodes
            ]
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._block(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._block(node)

    def visit_FilterBlock(self, node: nodes.FilterBlock) -> nodes.Node:
        return self._block(node)

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        return self._block(node)

    def _block(self, node: nodes.Node) -> nodes.Node:
        """Something whose output is kept until all of it is there."""
        writes = sum(len(output.nodes) for output in node.find_all(nodes.Output))
        # A short one, which neither repeats nor calls, writes little before it is joined.
        much = writes > _FEW or any(node.find_all((nodes.For, nodes.Call, nodes.CallBlock)))
        self._within += much
        self.generic_visit(node)
        self._within -= much
        return node

    def visit_Assign(self, node: nodes.Assign) -> nodes.Node:
        gathers = isinstance(node.target, nodes.NSRef)
        node.node = self._sum(node.node, 0 if gathers else 1) if _is_sum(node.node) else self.visit(node.node)
        return node

    def visit_Add(self, node: nodes.Add) -> nodes.Node:
        return self._sum(node, 1)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        return self._sum(node, 1)

    def visit_Mul(self, node: nodes.Mul) -> nodes.Node:
        return self._computed(node)

    def visit_Pow(self, node: nodes.Pow) -> nodes.Node:
        return self._computed(node)

    def visit_Mod(self, node: nodes.Mod) -> nodes.Node:
        return self._computed(node)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        return self._computed(node)

    def _computed(self, node: nodes.Expr) -> nodes.Node:
        """What can be computed from the template alone is, since Jinja elsewhere does so before it renders."""
        with suppress(nodes.Impossible):
            self._constant(node)
        self.generic_visit(node)
        return node

    def _constant(self, node: nodes.Expr) -> Any:
        if isinstance(node, nodes.Mul | nodes.Pow | nodes.Mod):
            left, right = self._constant(node.left), self._constant(node.right)
            return self._tried(self._environment.call_binop, None, node.operator, left, right)
        if isinstance(node, nodes.Filter) and node.node is not None and node.name in FILTERS:
            values = [self._constant(item) for item in (node.node, *node.args)]
            filter = self._environment.filters.get(node.name)
            if filter is None or hasattr(filter, "jinja_pass_arg") or node.kwargs:
                raise nodes.Impossible()
            return self._tried(filter, *values)
        return node.as_const()

    @staticmethod
    def _tried(function: Callable[..., Any], *values: Any) -> Any:
        try:
            return function(*values)
        except LimitError:
            raise
        except Exception as error:  # Whatever it is, it comes again where it is rendered, if it ever is.
            raise nodes.Impossible() from error

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return self._collected(node, node.items)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return node if node.ctx != "load" else self._collected(node, node.items)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return self._collected(node, [pair.value for pair in node.items])

    def _collected(self, node: nodes.Expr, items: list[nodes.Expr]) -> nodes.Node:
        return self._filtered(node, KEPT) if sum(not isinstance(item, nodes.Const) for item in items) > 1 else node

    def _sum(self, node: nodes.Expr, most: int) -> nodes.Expr:
        """A sum, counted when more than `most` of its parts are not written out in the template."""
        unknown = 0

        def visited(part: nodes.Expr) -> nodes.Expr:
            nonlocal unknown
            if isinstance(part, nodes.Add):
                part.left, part.right = visited(part.left), visited(part.right)
            elif isinstance(part, nodes.Concat):
                part.nodes = [visited(item) for item in part.nodes]
            else:
                unknown += not isinstance(part, nodes.Const)
                part = self.visit(part)
            return part

        node = visited(node)
        if unknown > _MAX_PARTS:
            raise LimitError(f"one of its sums has {unknown} parts; {_MAX_PARTS} are allowed")
        return self._filtered(node, KEPT) if unknown > most else node

    def _filtered(self, node: nodes.Expr, name: str) -> nodes.Expr:
        made = nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
        made.set_environment(self._environment)
        return made


def _is_sum(node: nodes.Node) -> TypeGuard[nodes.Add | nodes.Concat]:
    return isinstance(node, nodes.Add | nodes.Concat)
