"""Walking only what is new: a pass that meets many roots sharing terms visits each term once."""

from __future__ import annotations

from collections.abc import Container

from attngen.ir.nodes import Expr


def fresh(root: Expr, known: Container[Expr]) -> list[Expr]:
    """The nodes under ``root`` that are not in ``known`` nor below one that is, operands before users."""
    seen: set[Expr] = set()
    order: list[Expr] = []
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in seen and node not in known:
            seen.add(node)
            stack.append((node, True))
            stack.extend((arg, False) for arg in reversed(node.args))
    return order
