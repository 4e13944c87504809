"""Whether a tile of queries may keep anything of a tile of keys: a condition on the corners of both.

    abs(q // 32 % 32 - k // 32 % 32) <= 2     the extents of q // 32 % 32 and k // 32 % 32 come within 2
    dist % 4 == 0                             True: every pair of tiles may

Ranges (see ``block_range``) bound the keys in closed form. Where a comparison leaves them open, the extents
of its sides over a pair of tiles may still prove that the pair keeps nothing: interval arithmetic, through
``//`` and ``%`` too. What is not understood counts as possible.
"""

from __future__ import annotations

from attngen.analysis.divisors import guarded
from attngen.analysis.extent import Extents
from attngen.analysis.interval import Values, fits_int64
from attngen.analysis.linear import Sums, at_most_zero
from attngen.analysis.rates import Rate
from attngen.analysis.simplify import simple
from attngen.analysis.walk import fresh
from attngen.ir.nodes import FALSE, TRUE, Expr, Input, Op, postorder
from attngen.ir.types import Type

_MOST_NODES = 400  # of a condition, which every program computes


def may_keep(mask: Expr, inputs: tuple[Input, ...] = ()) -> Expr:
    """The condition, over ``q_first`` to ``q_last`` and ``k_first`` to ``k_last``: False proves EMPTY.

    TRUE where nothing is known. ``inputs`` as for ``key_ranges``.
    """
    judge = _Judge(inputs)
    condition, positive = guarded(mask, judge.values)
    may = simple(Op.OR, simple(Op.NOT, condition), judge.verdicts(positive)[0])
    return may if len(postorder(may)) <= _MOST_NODES else TRUE


Verdict = tuple[Expr, Expr]  # some score of the pair may, and each one must, satisfy a condition
_OPEN: Verdict = (TRUE, FALSE)


class _Judge:
    def __init__(self, inputs: tuple[Input, ...]) -> None:
        self.values = Values({i.name: i.dtype for i in inputs})
        self._sums = Sums()
        self._extents = Extents("qk", self._sums, frozenset(i.name for i in inputs if i.sorted))
        self._known: dict[Expr, Verdict] = {}
        self._exact: dict[Expr, bool] = {}

    def verdicts(self, mask: Expr) -> Verdict:
        for node in postorder(mask):
            if node.type is Type.BOOL:
                self._known[node] = self._verdict(node)
        return self._known[mask]

    def _verdict(self, node: Expr) -> Verdict:
        if node in (TRUE, FALSE):
            return node, node
        parts = [self._known[a] for a in node.args if a.type is Type.BOOL]
        if node.op is Op.NOT:
            may, must = parts[0]
            return simple(Op.NOT, must), simple(Op.NOT, may)
        if node.op in (Op.AND, Op.OR):
            (may, must), (other_may, other_must) = parts
            return simple(node.op, may, other_may), simple(node.op, must, other_must)
        if not self._is_exact(node):
            return _OPEN
        if self._extents.rate(node) in (Rate.LAUNCH, Rate.PROGRAM):
            return node, node
        if node.op not in (Op.LT, Op.LE, Op.EQ, Op.NE) or node.args[0].type is not Type.INT:
            return _OPEN
        return self._checked(self._compared(node))

    def _compared(self, node: Expr) -> Verdict:
        left, right = (self._sums.of(a) for a in node.args)
        gap = left.plus(right, -1)
        if node.op in (Op.LT, Op.LE):
            gap = gap.plus(1 if node.op is Op.LT else 0)
        low, high = self._extents.of_sum(gap)
        may_be_low = TRUE if low is None else at_most_zero(low, self._sums)
        must_be_low = FALSE if high is None else at_most_zero(high, self._sums)
        if node.op in (Op.LT, Op.LE):
            return may_be_low, must_be_low
        may_be_high = TRUE if high is None else at_most_zero(high.times(-1), self._sums)
        must_be_high = FALSE if low is None else at_most_zero(low.times(-1), self._sums)
        may, must = simple(Op.AND, may_be_low, may_be_high), simple(Op.AND, must_be_low, must_be_high)
        return (may, must) if node.op is Op.EQ else (simple(Op.NOT, must), simple(Op.NOT, may))

    def _checked(self, verdict: Verdict) -> Verdict:
        """The verdict, open where a kernel's 64 bits would wrap around while computing it."""
        return verdict if all(map(self._is_exact, verdict)) else _OPEN

    def _is_exact(self, root: Expr) -> bool:
        """Whether no int under ``root`` passes 64 bits."""
        for node in fresh(root, self._exact):
            fits = node.type is not Type.INT or fits_int64(self.values.of(node))
            self._exact[node] = fits and all(self._exact[a] for a in node.args)
        return self._exact[root]
