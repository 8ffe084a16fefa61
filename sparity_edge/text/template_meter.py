"""Rewrites a parsed template so that it pays where Jinja asks nobody.

Loops and macros pay for each turn, constant text and operators that copy or compare for their
size, through filters that the sandbox provides under the names below.
"""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from sparity_edge.text.template_budget import TURN

# Filters of the sandbox; no template can write these names.
PAY = "(pay)"  # pays that many units
PAID = "(paid)"  # pays for a value and hands it on
SLICED = "(sliced)"  # pays for a value of which only the outside is copied


def meter(template: nodes.Template) -> nodes.Template:
    """Rewrite a parsed template so that it pays where Jinja asks nobody."""
    metered = _Meter().visit(template)
    assert isinstance(metered, nodes.Template)
    assert template.environment is not None
    metered.set_environment(template.environment)
    return metered


def _filter(name: str, node: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Meter(NodeTransformer):
    """Loops and macros pay for each turn, constant text and copying operators for their size."""

    def _turn(self, node: Any) -> Any:
        self.generic_visit(node)
        node.body.insert(0, self._pay(TURN, node.lineno))
        return node

    visit_For = visit_Macro = visit_CallBlock = _turn  # noqa: N815

    def _pay(self, units: int, lineno: int) -> nodes.ExprStmt:
        price = nodes.Const(units, lineno=lineno)
        return nodes.ExprStmt(_filter(PAY, price), lineno=lineno)

    def visit_Output(self, node: nodes.Output) -> Any:  # noqa: N802
        self.generic_visit(node)
        size = sum(len(part.data) for part in node.nodes if isinstance(part, nodes.TemplateData))
        return [self._pay(size, node.lineno), node] if size else node

    def visit_Concat(self, node: nodes.Concat) -> Any:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [_filter(PAID, part) for part in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> Any:  # noqa: N802
        self.generic_visit(node)
        node.expr = self._compared(node.expr)
        for operand in node.ops:
            operand.expr = self._compared(operand.expr)
        return node

    def _compared(self, node: nodes.Expr) -> nodes.Expr:
        return node if isinstance(node, nodes.Const) else _filter(PAID, node)

    def visit_Pair(self, node: nodes.Pair) -> Any:  # noqa: N802
        self.generic_visit(node)
        node.key = self._compared(node.key)  # it will be hashed
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> Any:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filter(SLICED, node.node)
        return node
