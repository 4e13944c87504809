"""What is proven of a variant for every call, and what the kernels may do for it.

mask = causal             ->  no row is empty where q_len <= k_len: no guard at the kernel's end
table[h, bucket(dist)]    ->  the bucket is 0 to 31 of 32: no clamp
softcap(score, cap)       ->  abs(score) <= abs(cap)
score + bias[h, q]        ->  bias[h, q] moves the log-sum-exp alone
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.analysis.interval import Interval, Values
from attngen.analysis.magnitude import magnitude
from attngen.analysis.nonempty import MaybeEmpty, Nonempty, nonempty
from attngen.analysis.shift import shifts
from attngen.analysis.within import Within
from attngen.ir.nodes import AttentionIR, Expr, Op, leaves


@dataclass(frozen=True)
class Inside:
    """An index that stays in its dimension ``dim``; ``values`` are those that it may have."""

    load: Expr
    axis: int
    dim: int | str
    values: Interval

    @property
    def index(self) -> Expr:
        return self.load.args[self.axis]


@dataclass(frozen=True)
class Facts:
    """Each of these is a proof; what is not proven is not here.

    ``nonempty`` says which key every row keeps, or what a proof of it lacks. ``bound`` is what
    ``abs(score)`` does not pass, rounding aside. ``shifts`` are the score's terms that are the same for all
    keys of a row. ``inside`` has every index that needs no clamp, in the order of the clauses.
    """

    nonempty: Nonempty | MaybeEmpty
    bound: Expr | None
    shifts: tuple[Expr, ...]
    inside: tuple[Inside, ...]


def facts_of(ir: AttentionIR) -> Facts:
    """All facts of one variant."""
    return Facts(nonempty(ir), magnitude(ir.final_score), shifts(ir), tuple(_inside(ir)))


def _inside(ir: AttentionIR) -> list[Inside]:
    values = Values({i.name: i.dtype for i in ir.inputs})
    within = Within(values)
    found = []
    for node in leaves(*ir.clauses, op=Op.LOAD):
        for axis, (index, dim) in enumerate(zip(node.args, ir.input(str(node.value)).dims, strict=True)):
            if within.never_negative(index) and within.never_beyond(index, dim):
                found.append(Inside(node, axis, dim, values.of(index)))
    return found
