"""Low-rank score terms: which tiles each further matrix product reads, and what its gradients multiply.

score = score + root * dot(a[b, h, q], c[b, k])

    S  += root * A C'          A: the rows of a tile's queries, C: those of its keys
    dA  = root * (dS C)        per query, in the dQ kernel: no two programs share a row
    dC  = root * (dS' A)       per key and key head, in the dK/dV kernel; then summed over what C lacks

dS is the adjoint of the term, which the derivative table gives as it does any other leaf's. Where it is the
score's own, or that of the final score, times one number a program, the kernels' dS serves and the number is
multiplied once, after the sum. Where ``scale`` is ``root`` too, one accumulator takes both products.

Every loop over scores that makes logits adds these products to q.k, whatever makes weights of them. Two kinds
of kernels do not, and are left out beside products: tiles far from the diagonal have no loop of their own
(``plan.far``), and no kernel owns a tile of a learned input (``plan.learned``: PLACES, not BANDS or DENSE).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from attngen.analysis.derivative import gradients
from attngen.analysis.rates import Rate, rate_of
from attngen.ir.nodes import SCORE, AttentionIR, Expr, Input, Op, const, leaves, postorder
from attngen.ir.vectors import reads_keys
from attngen.plan.base2 import ONE, over_product

_ZERO = const(0.0)


class Adjoint(Enum):
    """What the gradients of a product's factors multiply, before ``Product.number``."""

    SCORE = "score"  # the dS of dQ and dK
    FINAL = "final"  # that of the final score: P (dP - delta), where a softmax makes the weights
    OWN = "own"  # that times ``Product.derivative``


@dataclass(frozen=True)
class Factor:
    """One side of a product: an input whose rows ``words`` index, in the order of its dimensions."""

    input: Input
    words: tuple[str, ...]

    @property
    def rank(self) -> int | str:
        """How long the rows are: a number, or a size's name."""
        return self.input.dims[-1]

    @property
    def head(self) -> str:
        """The word that picks the head, "" where all heads share the rows."""
        return next((w for w in self.words if w in ("h", "h_kv")), "")


@dataclass(frozen=True)
class Product:
    """``node`` is the DOT; ``rows`` is the factor of the queries, ``columns`` that of the keys.

    ``number`` is the same for a whole program; ``derivative``, over the raw product q.k, is ONE unless the
    adjoint is OWN. ``is_differentiated`` is False where the score does not depend on the product but through
    comparisons and the like.
    """

    node: Expr
    rows: Factor
    columns: Factor
    adjoint: Adjoint = Adjoint.FINAL
    number: Expr = ONE
    derivative: Expr = ONE
    is_differentiated: bool = True


def products_of(ir: AttentionIR) -> tuple[Product, ...]:
    """The products of a score, in the order of its operands."""
    nodes = tuple(leaves(ir.final_score, op=Op.DOT))
    chain = gradients(ir.final_score, [SCORE, *nodes]) if nodes else {}
    return tuple(_product(ir, node, chain[node], chain[SCORE]) for node in nodes)


@dataclass(frozen=True)
class Joined:
    """Products that are added to q.k itself, so that one accumulator holds the ``sum`` of all of them.

    ``sum`` is SCORE where there are none.
    """

    nodes: frozenset[Expr] = frozenset()
    sum: Expr = SCORE


def joined(products: Sequence[Product], roots: Sequence[Expr]) -> Joined:
    """The products that ``roots``, all expressions over the raw product, read only as a sum with it."""
    found = Joined()
    nodes = postorder(*roots)
    for p in products:
        sums = [n for n in nodes if n.op is Op.ADD and {*n.args} == {found.sum, p.node}]
        if len(sums) == 1 and not {found.sum, p.node} & _reached(roots, sums[0]):
            found = Joined(found.nodes | {p.node}, sums[0])
    return found


def _reached(roots: Sequence[Expr], end: Expr) -> set[Expr]:
    """The nodes under ``roots`` that are there otherwise than under ``end``."""
    seen: set[Expr] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in seen and node is not end:
            seen.add(node)
            stack.extend(node.args)
    return seen


def _product(ir: AttentionIR, node: Expr, by_node: Expr, by_score: Expr) -> Product:
    rows, columns = sorted(node.args, key=reads_keys)
    sides = _factor(ir, rows), _factor(ir, columns)
    if by_node is _ZERO:
        return Product(node, *sides, is_differentiated=False)
    if rate_of(by_node) <= Rate.PROGRAM:
        same = Adjoint.SCORE if by_score is ONE else Adjoint.FINAL
        return Product(node, *sides, same, over_product(ir, [by_node])[0])
    number = _ratio(by_node, by_score)
    if number is not None:
        return Product(node, *sides, Adjoint.SCORE, over_product(ir, [number])[0])
    return Product(node, *sides, Adjoint.OWN, ONE, over_product(ir, [by_node])[0])


def _factor(ir: AttentionIR, vector: Expr) -> Factor:
    return Factor(ir.input(str(vector.value)), tuple(str(index.value) for index in vector.args))


def _ratio(x: Expr, y: Expr) -> Expr | None:
    """``x / y`` where that is one number a program, as ``n * y`` shows it to be."""
    if x is y:
        return ONE
    if x.op is Op.MUL and y in x.args:
        other = x.args[x.args[0] is y]
        return other if rate_of(other) <= Rate.PROGRAM else None
    return None
