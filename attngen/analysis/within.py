"""Whether an index stays inside its dimension, for every call: then nothing need hold it there.

    table[h, clamp(dist, 0, reach - 1)]  ->  h is below heads, the clamp below reach
    table[h, bucket(dist)]               ->  0 to 31 of 32, by intervals
    doc[b, pos]                          ->  below k_len, but negative where there are fewer keys than queries

An input's dimension has at least one element wherever a kernel runs.
"""

from __future__ import annotations

from collections.abc import Callable

from attngen.analysis.interval import Values, fits_int64
from attngen.analysis.linear import Linear, Sums, term
from attngen.analysis.walk import fresh
from attngen.ir.nodes import RUNS_OVER, SIZES, Expr, Op, size, word
from attngen.ir.types import Type

_MOST_CHOICES = 64  # of an index that is one of several


class Within:
    """Proofs for indices, which are INTs of one variant. ``values`` know how large they are."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._sums = Sums()
        self._exact: dict[Expr, bool] = {}

    def never_negative(self, index: Expr) -> bool:
        """Whether ``index`` is at least 0."""

        def holds(node: Expr) -> bool:
            return self._values.of(node).lo >= 0 or self._is_natural(node, self._sums.of(node))

        return _follows(index, holds, least=True)

    def never_beyond(self, index: Expr, dim: int | str) -> bool:
        """Whether ``index`` is below ``dim``: a number, a size word, or a size that an input's name binds."""
        if isinstance(dim, int):
            return self._values.of(index).hi <= dim - 1
        length = word(dim) if dim in SIZES else size(dim)

        def holds(node: Expr) -> bool:
            if node.op is Op.WORD and RUNS_OVER.get(str(node.value)) == dim:
                return True
            if node.op is Op.MOD and node.args[1] is length:
                return True
            return self._is_natural(node, term(length).plus(self._sums.of(node), -1).plus(-1))

        return _follows(index, holds, least=False)

    def _is_natural(self, node: Expr, form: Linear) -> bool:
        """Whether ``form``, a sum made from ``node``, is at least 0 where every named size is at least 1."""
        least = form.constant
        for part, factor in form.terms.items():
            if factor < 0 or self._values.of(part).lo < 0:
                return False
            least += factor if part.op is Op.SIZE else 0
        return least >= 0 and self._is_exact(node)

    def _is_exact(self, root: Expr) -> bool:
        """Whether nothing under ``root`` may pass int64 and wrap around."""
        for node in fresh(root, self._exact):
            fits = node.type is not Type.INT or fits_int64(self._values.of(node))
            self._exact[node] = fits and all(self._exact[a] for a in node.args)
        return self._exact[root]


def _follows(index: Expr, holds: Callable[[Expr], bool], *, least: bool) -> bool:
    """Whether what ``holds`` says, a lower bound (``least``) or an upper one, is so of ``index``.

    It is so of a minimum, a maximum, a clamp or a conditional if it is of enough of their operands.
    """
    one, both = (Op.MAX, Op.MIN) if least else (Op.MIN, Op.MAX)
    found: dict[Expr, bool] = {}
    for node in _choices(index):
        args = [found.get(a, False) for a in node.args]
        if node.op is one:
            inherited = any(args)
        elif node.op is both:
            inherited = all(args)
        elif node.op is Op.CLAMP:  # min(max(x, low), high)
            inherited = (any(args[:2]) and args[2]) if least else (all(args[:2]) or args[2])
        else:
            inherited = node.op is Op.WHERE and all(args[1:])
        found[node] = node.type is Type.INT and (inherited or holds(node))
    return found[index]


def _choices(index: Expr) -> list[Expr]:
    """The INTs that ``index`` is one of, operands before users, itself last; alone where they are many."""
    order: list[Expr] = []
    seen: set[Expr] = set()
    stack = [(index, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in seen and node.type is Type.INT:
            seen.add(node)
            stack.append((node, True))
            if node.op in (Op.MIN, Op.MAX, Op.CLAMP, Op.WHERE):
                stack += [(arg, False) for arg in node.args]
        if len(seen) > _MOST_CHOICES:
            return [index]
    return order
