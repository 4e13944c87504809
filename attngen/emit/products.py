"""The score's further matrix products: the names of their tiles, and what their gradients multiply.

score = score + root * dot(q_rope[b, h, q], k_rope[b, k])
->  rope = tl.dot(q_rope, k_rope.T)                  a tile of the product, which ``logits`` takes
    d_q_rope = tl.dot(d_score, k_rope, d_q_rope)     in the dQ kernel, times the scale after its loops
    d_k_rope = tl.dot(d_score, q_rope, d_k_rope)     in the dK/dV kernel, likewise
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attngen.emit.arguments import size_of
from attngen.emit.host_expr import SIZE_TEXT
from attngen.emit.maths import function_of
from attngen.emit.names import FACTOR_SUFFIXES
from attngen.emit.scope import Scope
from attngen.emit.view import (
    FactorView,
    Function,
    LearnedFactor,
    ProductsView,
    ProductView,
    Rank,
    WeightsView,
)
from attngen.ir.nodes import Expr, Op
from attngen.ir.printer import print_expr
from attngen.plan.base2 import ONE, SCALE
from attngen.plan.products import Adjoint, Factor, Product

_WIDEST = 90  # columns of a comment
_AXES = {"b": "b", "h": "h", "h_kv": "g", "q": "s", "k": "s"}


@dataclass(frozen=True)
class ProductUses:
    """The functions that the products' gradients have, and the names that the backward kernels read for them:
    in both loops, in that over queries alone, and after the loops."""

    functions: tuple[Function, ...]
    loops: tuple[str, ...]
    loop_over_queries: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def all(self) -> frozenset[str]:
        return frozenset((*self.loops, *self.loop_over_queries, *self.after))


def make_products(scope: Scope, weights: WeightsView) -> tuple[ProductsView, ProductUses]:
    """The view, and what the backward kernels read for it."""
    products = scope.plan.products
    ranks = _ranks(scope)
    used: set[str] = set()
    views = []
    by = {p.node: scope.names.fresh("by_product") for p in products if p.adjoint is Adjoint.OWN}
    for p in products:
        sides = [_factor(scope, f, p, used, is_rows=f is p.rows) for f in (p.rows, p.columns)]
        number = "" if p.number is ONE else scope.uniform(p.number)
        joins = p.node in scope.plan.joined.nodes
        tile = "dot" if joins else scope.names.part(p.node)
        views.append(
            ProductView(
                text=_in_spec(scope, p),
                tile=tile,
                rows=sides[0],
                columns=sides[1],
                rank=ranks[p.rows.rank],
                adjoint=_adjoint(p, by, weights.d_final),
                joins=joins,
                d_tile=scope.names.fresh(f"d_{scope.names.part(p.node)}"),
                number=number,
                # What a kernel is not given but computes is known only inside its loop over query heads.
                number_after=_is_argument(scope, p.number),
            )
        )
    derivatives = _derivatives(scope, by)
    pairs = zip(products, views, strict=True)
    numbers = [(scope.uniform_names(p.number), view.number_after) for p, view in pairs]
    uses = ProductUses(
        functions=(derivatives,) if derivatives else (),
        loops=derivatives.uses if derivatives else (),
        loop_over_queries=tuple(n for names, after in numbers if not after for n in names),
        after=tuple(n for names, _ in numbers for n in names),
    )
    view = ProductsView(
        products=tuple(views),
        product_derivatives=derivatives,
        product_derivatives_target=", ".join(by.values()),
        ranks=tuple(ranks.values()),
        learned_factors=tuple(_learned(scope, products, views)),
    )
    return view, uses


def _is_argument(scope: Scope, number: Expr) -> bool:
    """Whether a kernel has a number from the start, and need not compute it."""
    return number.op in (Op.CONST, Op.PARAM) and not (number is SCALE and scope.scale_by_head)


def _in_spec(scope: Scope, p: Product) -> str:
    """The product as the spec has it, for a comment; "" where it is too long for one."""
    text = print_expr(p.node, scope.ir)
    return text if len(text) <= _WIDEST else ""


def _ranks(scope: Scope) -> dict[int | str, Rank]:
    """A pair of constants for each length of rows."""
    tensors = [scope.names.own(i.name) for i in scope.ir.inputs]
    found: dict[int | str, Rank] = {}
    for p in scope.plan.products:
        rank = p.rows.rank
        if rank not in found:
            text = str(rank) if isinstance(rank, int) else SIZE_TEXT.get(rank)
            text = text or size_of(scope.ir, str(rank), tensors)
            number = len(found) + 1
            suffix = f"_{number}" if number > 1 else ""
            found[rank] = Rank(
                scope.names.fresh(f"RANK{suffix}"), scope.names.fresh(f"BLOCK_R{suffix}"), text, number - 1
            )
    return found


def _factor(scope: Scope, factor: Factor, product: Product, used: set[str], *, is_rows: bool) -> FactorView:
    item = factor.input
    own = scope.names.own(item.name)
    name = own if item.name not in used else scope.names.fresh(own, FACTOR_SUFFIXES)
    gradient = ""
    if item.grad and product.is_differentiated:
        gradient = scope.names.gradient(item.name)
        gradient = gradient if item.name not in used else scope.names.fresh(gradient, FACTOR_SUFFIXES)
    used.add(item.name)
    axes = "".join(_AXES[word] for word in factor.words)
    return FactorView(
        name=name,
        declared=item.name,
        input=own,
        place=scope.ir.inputs.index(item),
        axes=axes + "r",
        batch="b" if "b" in axes else "tl.zeros_like(b)",
        head=factor.head or "tl.zeros_like(b)",
        by_head=factor.head == "h",
        tma="TMA" if "s" in axes else "False",
        block="BLOCK_M" if is_rows else "BLOCK_N",
        length="q_len" if is_rows else "k_len",
        gradient=gradient,
    )


def _adjoint(p: Product, by: dict[Expr, str], d_final: str) -> str:
    """The text of dS for a product's factors; ``d_final`` is that of the final score."""
    if p.adjoint is Adjoint.SCORE:
        return "d_score"
    if p.adjoint is Adjoint.FINAL:
        return d_final
    # Where P is 0 the derivative may be infinite.
    return f"tl.where(weights > 0.0, {d_final} * {by[p.node]}, 0.0)"


def _derivatives(scope: Scope, by: dict[Expr, str]) -> Function | None:
    """One function for every derivative that varies from score to score."""
    roots = tuple(p.derivative for p in scope.plan.products if p.node in by)
    if not roots:
        return None
    doc = "The derivative of the score by each product of rows."
    return function_of(scope, "product_derivatives", doc, "", roots, scope.plan.score_parts)


def _learned(
    scope: Scope, products: tuple[Product, ...], views: list[ProductView]
) -> Iterator[LearnedFactor]:
    """For each input declared ``grad``, in their order, the factors whose gradients add up to its own."""
    place = 0
    for x in scope.plan.learned:
        factors = tuple(
            side
            for p, view in zip(products, views, strict=True)
            for factor, side in ((p.rows, view.rows), (p.columns, view.columns))
            if factor.input.name == x.input.name and side.gradient
        )
        yield LearnedFactor(scope.names.own(x.input.name), x.is_gathered, place, factors)
        place += x.is_gathered
