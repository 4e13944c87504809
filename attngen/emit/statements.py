"""Expressions as statements: shared terms get a line and a name, and every line stays short.

    1.0 - tanh(x) * tanh(x)   ->   bounded = tanh(x)
                                   1.0 - bounded * bounded
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from attngen.emit.names import Names
from attngen.emit.triton_expr import Text, TritonExpr
from attngen.ir.nodes import Expr, Op, postorder

_LONGEST = 70  # characters of an expression before it gets a line of its own
_NAMED = {Op.WORD, Op.SIZE, Op.PARAM, Op.SCORE}


@dataclass(frozen=True)
class Block:
    """Finished lines, the expressions they end in, and what they read from outside.

    ``results`` has one text per root. ``uses`` are names the block reads and does not define, in the order
    of their first use.
    """

    lines: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    defines: tuple[str, ...] = ()


class Writer:
    """Writes blocks for one variant. Names are shared between blocks: one value, one name."""

    def __init__(self, exprs: TritonExpr, names: Names) -> None:
        self._exprs = exprs
        self._names = names

    def block(self, roots: Iterable[Expr], given: Iterable[Expr] = (), *, assign: bool = False) -> Block:
        """Lines that compute ``roots``; the values in ``given`` already have their names.

        With ``assign`` each root gets a line and its name; without, roots are left as expressions.
        """
        roots = tuple(dict.fromkeys(roots)) if assign else tuple(roots)
        known = set(given) - set(roots) if assign else set(given)
        nodes = [n for n in _below(roots, known) if n not in known]
        users = Counter(a for n in nodes for a in set(n.args))
        texts = {g: Text(self._names.part(g)) for g in known}
        uses: dict[str, None] = {}
        for node in nodes:
            uses.update((self._names.part(a), None) for a in node.args if a in known)
        lines: list[str] = []
        defined: dict[str, None] = {}
        for node in nodes:
            text = self._exprs.text(node, [texts[a] for a in node.args])
            uses.update((name, None) for name in self._outside(node))
            shared = users[node] > 1 and node.args
            long = len(text.text) > _LONGEST and node not in roots
            if (assign and node in roots) or shared or long:
                name = self._names.part(node)
                lines.append(f"{name} = {text.text}")
                defined[name] = None
                text = Text(name)
            texts[node] = text
        uses.update((self._names.part(r), None) for r in roots if r in known)
        results = tuple(texts[r].text for r in roots)
        return Block(tuple(lines), results, tuple(u for u in uses if u not in defined), tuple(defined))

    def _outside(self, node: Expr) -> list[str]:
        """The names of the kernel's scope that this node's own text reads."""
        if node.op is Op.SCORE:
            return ["dot"]
        if node.op in _NAMED:
            return [self._names.own(str(node.value))]
        if node.op is Op.LOAD:
            return self._exprs.load_names(node)
        if node.op is Op.TANH:
            return ["FAST_TANH"]
        return []


def _below(roots: tuple[Expr, ...], known: set[Expr]) -> list[Expr]:
    """The nodes under ``roots`` down to the known ones, operands first."""
    order: list[Expr] = []
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(r, False) for r in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            if node not in known:
                stack.extend((a, False) for a in reversed(node.args))
    return order
