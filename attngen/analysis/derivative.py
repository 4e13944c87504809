"""Derivatives by reverse mode: one walk from the result to the leaves, one table row an op.

    c * tanh(score / c)     ->     1.0 - tanh(score / c) * tanh(score / c)

``PARTIALS`` gives, for each op, what reaches each operand: (guard, value). A guarded value counts only where
its guard holds: a conditional, ``min``, ``max`` and ``clamp`` pass the derivative to what they chose. Guards
stay outside of products (``where(p, d * x, 0.0)``, never ``where(p, d, 0.0) * x``), so that an infinite or
NaN derivative inside a branch that was not chosen never meets the rest.

At points without a derivative: abs' is 0 at 0, clamp' is 1 at its bounds, ties of min and max give one half
to each, ``floor`` and ``int()`` and comparisons give none.

Two quotients of calculus are 0 / 0 in float32 and not in the reals, and are cancelled as they arise:

    sqrt(sigmoid(x))   ->   0.5 * sqrt(sigmoid(x)) * (1.0 - sigmoid(x))   sigmoid(-104.0) is 0
    log(sigmoid(x))    ->   sigmoid(-x)                                   spelled out by ir.operators
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


def _scaled(d: Expr, y: Expr) -> Expr:
    """``d * y``, without the divisions by ``y`` or its root: ``y`` may be a 0 that is none in the reals."""
    cancelled = _cancelled(d, y)
    return _mul(d, y) if cancelled is None else cancelled


def _cancelled(d: Expr, y: Expr) -> Expr | None:
    """``d * y`` without the division of ``d`` by ``y`` or its root, None where there is none."""
    if d.op is Op.NEG:
        inner = _cancelled(d.args[0], y)
        return None if inner is None else _neg(inner)
    if d.op is Op.MUL:
        for this, other in (d.args, d.args[::-1]):
            inner = _cancelled(this, y)
            if inner is not None:
                return _mul(inner, other)
    if d.op is Op.DIV:
        x, divisor = d.args
        if divisor is y:
            return x
        if divisor.op is Op.SQRT and divisor.args[0] is y:
            return _mul(x, divisor)
        if divisor.op is Op.MUL and y in divisor.args:
            return _div(x, divisor.args[1] if divisor.args[0] is y else divisor.args[0])
        inner = _cancelled(x, y)
        return None if inner is None else _div(inner, divisor)
    return None


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


def _sigmoid(node: Expr, d: Expr) -> tuple[Part | None, ...]:
    slope, cancelled = _sub(_ONE, node), _cancelled(d, node)
    return (Part(_mul(d, _mul(node, slope)) if cancelled is None else _mul(cancelled, slope)),)


def _soft_step(node: Expr) -> tuple[Expr, Expr] | None:
    """``(x, derivative)`` of ``log(sigmoid(x))`` and ``softplus(x)``, which the language spells out.

    min(x, 0.0) - log(1.0 + exp(-abs(x)))   ->   sigmoid(-x)
    max(x, 0.0) + log(1.0 + exp(-abs(x)))   ->   sigmoid(x)
    """
    if node.op not in (Op.ADD, Op.SUB):
        return None
    bend, curve = node.args
    if bend.op is not (Op.MAX if node.op is Op.ADD else Op.MIN) or bend.args[1] is not _ZERO:
        return None
    x = bend.args[0]
    fading = simple(Op.EXP, _neg(simple(Op.ABS, x)))
    if curve is not simple(Op.LOG, _add(_ONE, fading)):
        return None
    return x, simple(Op.SIGMOID, x if node.op is Op.ADD else _neg(x))


def _sign(x: Expr) -> Expr:
    return _where(_less(_ZERO, x), _ONE, _where(_less(x, _ZERO), const(-1.0), _ZERO))


PARTIALS: dict[Op, Row] = {
    Op.ADD: lambda node, d: (Part(d), Part(d)),
    Op.SUB: lambda node, d: (Part(d), Part(_neg(d))),
    Op.MUL: _multiply,
    Op.DIV: _divide,
    Op.NEG: _unary(lambda d, node, x: _neg(d)),
    Op.ABS: _unary(lambda d, node, x: _mul(d, _sign(x))),
    Op.EXP: _unary(lambda d, node, x: _scaled(d, node)),
    Op.LOG: _unary(lambda d, node, x: _div(d, x)),
    Op.SQRT: _unary(lambda d, node, x: _div(_mul(d, _HALF), node)),
    Op.RSQRT: _unary(lambda d, node, x: _div(_mul(_mul(d, const(-0.5)), node), x)),
    Op.TANH: _unary(lambda d, node, x: _mul(d, _sub(_ONE, _mul(node, node)))),
    Op.SIGMOID: _sigmoid,
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
        step = _soft_step(node)
        if step is not None:
            x, slope = step
            if x in reaching:
                parts[x].append(Part(_mul(total.value, slope), total.guard))
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
