"""How the gradients of learned inputs are gathered: the same bits every time, whatever their index maps.

One element of an input may be read by many scores, so its gradient is a sum over places that no single
program owns:

    slopes[h]                      ->  SUMS: each query's sum over the keys, then torch's sum over queries,
                                       or each key's over the queries (see ``Plan.gathers_sums``)
    bias[b, h, q]                  ->  SUMS
    table[h, bucket(dist)]         ->  BANDS: a sum for each distance, then over the distances of a bucket
    bias[b, h, q, k]               ->  DENSE: each part is stored where it belongs, once
    bias[h, q, k]                  ->  DENSE: a program owns a tile and adds up the batch, one after the other
    table[h, path[b, q, k]]        ->  PLACES, added up in whole numbers
    dot(a[b, h, q], c[b, k])       ->  PRODUCTS, rows of further matrix products (see ``plan.products``)

Floating-point sums depend on their order, and atomics have none. SUMS, BANDS and DENSE add in an order that
the launch fixes. For PLACES, whatever the index, sums of whole numbers: each part is rounded to a multiple of
a unit small enough for all parts together (2**-61 of the sum of their magnitudes, which a first pass over the
scores finds), and integers add up to the same in any order.

BANDS takes a table's far distances, at which it reads one element on each side of the diagonal, as SUMS
does; only the band of tiles where the element changes is visited again, along its diagonals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from functools import reduce

from attngen.analysis.derivative import gradients
from attngen.analysis.diagonal import Reach
from attngen.analysis.rates import Rate, join, rate_of
from attngen.analysis.simplify import simple
from attngen.ir.nodes import SCORE, AttentionIR, Expr, Input, Op, const, leaves
from attngen.ir.vectors import AXES
from attngen.plan.base2 import argument_of, over_product
from attngen.plan.far import distances_of, reach_of_load
from attngen.plan.products import Product

_ZERO = const(0.0)


class Route(Enum):
    """How the parts of one input's gradient come together."""

    SUMS = "sums"  # a sum for each query, then over what the input does not index
    BANDS = "bands"  # a sum for each distance, then over the distances that read one element
    DENSE = "dense"  # a tile of the input for each tile of scores; what broadcasts is added up in order
    PLACES = "places"  # each part goes to the place that was read
    PRODUCTS = "products"  # no element is read alone: rows of a matrix product, for each product it is in
    NONE = "none"  # nothing differentiable reads it: zeros


class Side(StrEnum):
    """Which factor of a product an input is."""

    ROWS = "rows"  # of the queries: its gradient comes with dQ
    COLUMNS = "columns"  # of the keys: with dK and dV


@dataclass(frozen=True)
class Read:
    """One element that score, weight or sink read: ``load``, and the derivatives with respect to it.

    ``by_score`` is d score / d element over the raw product (a sigmoid's bias is part of the score),
    ``by_weight`` d weight / d element over the normalised weight, ``by_sink`` d sink / d element; None where
    the one does not depend on it. ``rate`` says how often the index changes.
    """

    load: Expr
    by_score: Expr | None
    by_sink: Expr | None
    rate: Rate
    by_weight: Expr | None = None

    @property
    def is_by_row(self) -> bool:
        """Whether all keys of a query read the same element."""
        return self.rate <= Rate.ROW


@dataclass(frozen=True)
class Learned:
    """A learned input, every place that reads an element of it, and the route of what these give it.

    ``axes`` are the words of a SUMS input's dimensions, "" for a dimension of size 1. ``reads_once`` says
    that no element is read twice, unless a dimension of the tensor broadcasts. ``reach`` holds the distances
    at which the element of a BANDS input changes. ``factor_of`` has a side for each product whose
    factor it is, which gives it more.
    """

    input: Input
    route: Route
    reads: tuple[Read, ...]
    axes: tuple[str, ...] = ()
    reads_once: bool = False
    reach: Reach | None = None
    factor_of: tuple[Side, ...] = ()

    @property
    def is_gathered(self) -> bool:
        """Whether all of the gradient, or a part of it, comes without a product. It may be zeros."""
        return bool(self.reads) or not self.factor_of


def learned_inputs(ir: AttentionIR, products: Sequence[Product]) -> tuple[Learned, ...]:
    """The plan for each input declared ``grad``, in the order of their declarations."""
    return tuple(_with_factors(_learned(ir, item), products) for item in ir.inputs if item.grad)


def _with_factors(learned: Learned, products: Sequence[Product]) -> Learned:
    """The same, and the products that give it more."""
    sides = [
        side
        for p in products
        for side, factor in ((Side.ROWS, p.rows), (Side.COLUMNS, p.columns))
        if p.is_differentiated and factor.input == learned.input
    ]
    route = Route.PRODUCTS if sides and not learned.reads else learned.route
    return replace(learned, route=route, factor_of=tuple(sides))


def _learned(ir: AttentionIR, item: Input) -> Learned:
    reads = _reads(ir, item)
    axes = [_axes(item, read.load) for read in reads]
    if not reads:
        return Learned(item, Route.NONE, reads)
    same = axes[0] if len(set(axes)) == 1 else None
    if same is not None and all(read.is_by_row for read in reads):
        return Learned(item, Route.SUMS, reads, same)
    # Kernels that own a tile know the softmax's gradient alone, and of the score's matrix products q.k alone.
    if ir.is_plain and len(reads) == 1 and reads[0].by_sink is None:
        if same is not None and {"q", "k"} <= set(same):
            return Learned(item, Route.DENSE, reads, same, reads_once={"b", "h"} <= set(same))
        indices = distances_of(reads[0].load)
        if indices is not None:
            reach = reach_of_load(indices, item, {i.name: i.dtype for i in ir.inputs})
            return Learned(item, Route.BANDS, reads, reach=reach)
    return Learned(item, Route.PLACES, reads)


def _reads(ir: AttentionIR, item: Input) -> tuple[Read, ...]:
    """Every differentiable read of an input, in the order of the score's operands."""
    score = argument_of(ir)
    roots = [score, ir.scale, *(e for e in (ir.weight, ir.sink) if e is not None)]
    loads = [node for node in leaves(*roots, op=Op.LOAD) if node.value == item.name]
    chain = gradients(score, [SCORE, *loads])
    by_weight = gradients(ir.weight, loads) if ir.weight is not None else dict.fromkeys(loads, _ZERO)
    by_scale = gradients(ir.scale, loads)
    by_sink = gradients(ir.sink, loads) if ir.sink is not None else dict.fromkeys(loads, _ZERO)
    reads = []
    for node in loads:
        direct, by_dot = over_product(ir, (chain[node], chain[SCORE]))
        through_scale = simple(Op.MUL, simple(Op.MUL, by_dot, by_scale[node]), SCORE)
        total = direct if by_scale[node] is _ZERO else simple(Op.ADD, direct, through_scale)
        parts = (_some(total), _some(by_sink[node]), _some(by_weight[node]))
        if any(part is not None for part in parts):
            reads.append(Read(node, *parts[:2], _rate(item, node), parts[2]))
    return tuple(reads)


def _rate(item: Input, node: Expr) -> Rate:
    """How often the element changes that a load reads: a dimension of size 1 has but one."""
    indices = (index for index, dim in zip(node.args, item.dims, strict=True) if dim != 1)
    return reduce(join, map(rate_of, indices), Rate.PROGRAM)


def _some(derivative: Expr) -> Expr | None:
    return None if derivative is _ZERO else derivative


def _axes(item: Input, node: Expr) -> tuple[str, ...] | None:
    """The words that index the dimensions, where they name the elements one by one; else None."""
    axes = []
    for index, dim in zip(node.args, item.dims, strict=True):
        name = str(index.value) if index.op is Op.WORD else ""
        if dim == 1:
            axes.append("")
        elif AXES.get(name) == dim:
            axes.append(name)
        else:
            return None
    words = [a for a in axes if a]
    distinct = len(set(words)) == len(words) and not {"h", "h_kv"} <= set(words)
    return tuple(axes) if distinct else None
