"""Derivatives by reverse mode: one walk from the result to the leaves, one table row an op.

    c * tanh(score / c)     ->     1.0 - tanh(score / c) * tanh(score / c)

``PARTIALS`` gives, for each op, what reaches each operand: (guard, value). A guarded value counts only where
its guard holds: a conditional, ``min``, ``max`` and ``clamp`` pass the derivative to what they chose. Guards
stay outside of products (``where(p, d * x, 0.0)``, never ``where(p, d, 0.0) * x``), so that an infinite or
NaN derivative inside a branch that was not chosen never meets the rest.

At points without a derivative: abs' is 0 at 0, clamp' is 1 at its bounds, ties of min and max give one half
to each, ``floor`` and ``int()`` and comparisons give none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attngen.analysis.simplify import simple, simplify
from attngen.ir.nodes import TRUE, Expr, Op, const, postorder
from attngen.ir.types import Type

_ZERO, _HALF, _ONE = const(0.0), const(0.5), const(1.0)


@dataclass(frozen=True)
class Part:
    """A share of a derivative: ``value`` where ``guard`` holds, else exactly 0."""

    value: Expr
    guard: tuple[Expr, ...] = ()  # all of these


Row = Callable[[Expr, Expr], "tuple[Part | None, ...]"]


def _add(x: Expr, y: Expr) -> Expr:
    return simple(Op.ADD, x, y)


def _sub(x: Expr, y: Expr) -> Expr:
    return simple(Op.SUB, x, y)


def _mul(x: Expr, y: Expr) -> Expr:
    return simple(Op.MUL, x, y)


def _div(x: Expr, y: Expr) -> Expr:
    """``x / y``; ``(y * z) / y`` is ``z``, which holds in the limit too where ``y`` is 0."""
    if x is y:
        return _ONE
    if x.op is Op.MUL and y in x.args:
        return x.args[1] if x.args[0] is y else x.args[0]
    return simple(Op.DIV, x, y)


def _neg(x: Expr) -> Expr:
    return simple(Op.NEG, x)


def _where(condition: Expr, chosen: Expr, other: Expr) -> Expr:
    return simple(Op.WHERE, condition, chosen, other)


def _less(x: Expr, y: Expr) -> Expr:
    return simple(Op.LT, x, y)


def _at_most(x: Expr, y: Expr) -> Expr:
    return simple(Op.LE, x, y)


# A row takes the node and its adjoint d, and gives what reaches each operand (None: nothing ever does).


def _unary(partial: Callable[[Expr, Expr, Expr], Expr]) -> Row:
    return lambda node, d: (Part(partial(d, node, node.args[0])),)


def _multiply(node: Expr, d: Expr) -> tuple[Part | None, ...]:
    x, y = node.args
    return Part(_mul(d, y)), Part(_mul(d, x))


def _divide(node: Expr, d: Expr) -> tuple[Part | None, ...]:
    y = node.args[1]
    share = _div(d, y)
    return Part(share), Part(_neg(_mul(share, node)))


def _extreme(first: Expr, second: Expr, node: Expr, d: Expr) -> tuple[Part | None, ...]:
    """The first operand is the chosen one where ``first <= second``, the second where ``second <= first``."""
    share = _where(simple(Op.EQ, *node.args), _mul(d, _HALF), d)
    return Part(share, (_at_most(first, second),)), Part(share, (_at_most(second, first),))


def _clamp(node: Expr, d: Expr) -> tuple[Part | None, ...]:
    x, low, high = node.args  # min(max(x, low), high)
    inside = (_at_most(low, x), _at_most(x, high))
    above = simple(Op.OR, _less(high, x), _less(high, low))
    return Part(d, inside), Part(d, (_less(x, low), _less(low, high))), Part(d, (above,))


def _conditional(node: Expr, d: Expr) -> tuple[Part | None, ...]:
    condition = node.args[0]
    return None, Part(d, (condition,)), Part(d, (simple(Op.NOT, condition),))


def _sign(x: Expr) -> Expr:
    return _where(_less(_ZERO, x), _ONE, _where(_less(x, _ZERO), const(-1.0), _ZERO))


PARTIALS: dict[Op, Row] = {
    Op.ADD: lambda node, d: (Part(d), Part(d)),
    Op.SUB: lambda node, d: (Part(d), Part(_neg(d))),
    Op.MUL: _multiply,
    Op.DIV: _divide,
    Op.NEG: _unary(lambda d, node, x: _neg(d)),
    Op.ABS: _unary(lambda d, node, x: _mul(d, _sign(x))),
    Op.EXP: _unary(lambda d, node, x: _mul(d, node)),
    Op.LOG: _unary(lambda d, node, x: _div(d, x)),
    Op.SQRT: _unary(lambda d, node, x: _div(_mul(d, _HALF), node)),
    Op.RSQRT: _unary(lambda d, node, x: _div(_mul(_mul(d, const(-0.5)), node), x)),
    Op.TANH: _unary(lambda d, node, x: _mul(d, _sub(_ONE, _mul(node, node)))),
    Op.SIGMOID: _unary(lambda d, node, x: _mul(d, _mul(node, _sub(_ONE, node)))),
    Op.SIN: _unary(lambda d, node, x: _mul(d, simple(Op.COS, x))),
    Op.COS: _unary(lambda d, node, x: _neg(_mul(d, simple(Op.SIN, x)))),
    Op.FLOOR: lambda node, d: (None,),
    Op.TO_FLOAT: lambda node, d: (None,),
    Op.MIN: lambda node, d: _extreme(node.args[0], node.args[1], node, d),
    Op.MAX: lambda node, d: _extreme(node.args[1], node.args[0], node, d),
    Op.CLAMP: _clamp,
    Op.WHERE: _conditional,
}


def gradients(root: Expr, wrt: Sequence[Expr]) -> dict[Expr, Expr]:
    """The derivative of the FLOAT ``root`` with respect to each FLOAT node of ``wrt`` (SCORE, a LOAD, ...).

    A node that ``root`` does not depend on, or only through ``floor``, ``int()`` and comparisons, gets 0.0.
    Each result is simplified.
    """
    order = postorder(root)
    # What can reach a node of wrt at all; the rest of the DAG needs no adjoint.
    reaching: set[Expr] = set()
    for node in order:
        if node.type is Type.FLOAT and (node in wrt or any(a in reaching for a in node.args)):
            reaching.add(node)
    parts: dict[Expr, list[Part]] = {node: [] for node in reaching}
    if root in reaching:
        parts[root].append(Part(_ONE))
    result = dict.fromkeys(wrt, _ZERO)
    for node in reversed(order):
        if not parts.get(node):
            continue
        total = _total(parts[node])
        if node in wrt:
            result[node] = simplify(_guarded(total))
        if not node.args or node.op in (Op.LOAD, Op.DOT):
            continue
        for arg, share in zip(node.args, PARTIALS[node.op](node, total.value), strict=True):
            if share is not None and arg in reaching:
                parts[arg].append(Part(share.value, _conjunction(total.guard, share.guard)))
    return result


def _guarded(part: Part) -> Expr:
    if not part.guard:
        return part.value
    return _where(_all(part.guard), part.value, _ZERO)


def _all(conditions: Sequence[Expr]) -> Expr:
    result = TRUE
    for condition in conditions:
        result = simple(Op.AND, result, condition)
    return result


def _conjunction(first: tuple[Expr, ...], second: tuple[Expr, ...]) -> tuple[Expr, ...]:
    return first + tuple(c for c in second if c is not TRUE and c not in first)


def _total(parts: Sequence[Part]) -> Part:
    """The sum of shares, guarded where any of them is."""
    total = parts[0]
    for part in parts[1:]:
        total = _sum(total, part)
    return total


def _sum(one: Part, two: Part) -> Part:
    if one.guard == two.guard:
        return Part(_add(one.value, two.value), one.guard)
    shared = set(one.guard) & set(two.guard)
    common = tuple(c for c in one.guard if c in shared)
    mine, theirs = (_all([c for c in p.guard if c not in shared]) for p in (one, two))
    if simple(Op.NOT, mine) is theirs:  # the two branches of one conditional
        return Part(_where(mine, one.value, two.value), common)
    either = simple(Op.OR, mine, theirs)
    value = _add(_where(mine, one.value, _ZERO), _where(theirs, two.value, _ZERO))
    return Part(value, common if either is TRUE else (*common, either))
