"""The classes of a variant: what its kernels hold in registers beside the product, from little to much.

Each class stands for rows of the table of tiles (``plan.table``). A variant has several, from the general to
the particular; where the rows of two of them speak of the same tile, the later class has it.

                          of Triton's kernels    of Gluon's
    full             ->   light                  light
    causal           ->   light                  light, masked
    softcap          ->   light, medium          light, masked, medium, masked medium
    low_rank_bias    ->   light, products
    dense_bias       ->   light, pairs           light, dense

The lines of a score are counted: the operations that run once a score, of logit and mask.
"""

from __future__ import annotations

from attngen.analysis.rates import Rate, rate_of, rates
from attngen.ir.nodes import TRUE, AttentionIR, Expr, Op, leaves
from attngen.plan.base2 import Logits
from attngen.plan.dense import Dense, dense_input
from attngen.plan.loops import Loops

#: Of Triton's kernels. ``products``: rows of further products beside those of q and k; a head dimension is
#: then the sum of the padded widths. ``weight``: what meets V is not the softmax alone. ``pairs``: a tile of
#: a dense bias, which comes in whole rows. ``reads``: an address for every score, as of a table by distance.
TRITON_CLASSES = ("light", "medium", "heavy", "products", "dropout", "weight", "pairs", "reads")


def _masked(cost: str) -> str:
    return "masked" if cost == "light" else f"masked {cost}"


_COSTS = ("light", "banded", "medium", "heavy", "dropout", "dense")

#: Of Gluon's, and of the choice between the two. ``banded``: ranges of keys that begin within the sequence,
#: so that loops are short. ``dense``: an input that comes in tiles, as q, k and v do. Each again for variants
#: with a mask, whose programs have unequal work: "masked" is of the light ones.
GLUON_CLASSES = tuple(name for cost in _COSTS for name in (cost, _masked(cost)))

#: From how many operations a score on.
_MEDIUM, _HEAVY = 5, 9


def triton_classes(ir: AttentionIR, logits: Logits) -> tuple[str, ...]:
    """The classes of a variant's Triton kernels."""
    reads = [n for n in leaves(ir.final_score, ir.mask, op=Op.LOAD) if rate_of(n) is Rate.TILE]
    pairs = bool(reads) and all(map(reads_pairs, reads))
    has = {
        "light": True,
        lines(ir, logits): True,
        "products": ir.has_products,
        "dropout": ir.dropout is not None,
        "weight": ir.weight is not None and ir.is_softmax,
        "pairs": pairs,
        "reads": bool(reads) and not pairs,
    }
    return tuple(name for name in TRITON_CLASSES if has.get(name))


def gluon_classes(ir: AttentionIR, logits: Logits, key_loops: Loops) -> tuple[str, ...]:
    """The classes of the forward for sm_90."""
    costs = ("light", *_beyond_light(ir, logits, key_loops))
    if ir.mask is TRUE:
        return costs
    return tuple(name for cost in costs for name in (cost, _masked(cost)))


def _beyond_light(ir: AttentionIR, logits: Logits, key_loops: Loops) -> tuple[str, ...]:
    if dense_in_tiles(ir, logits) is not None:
        return ("dense",)
    if (cost := lines(ir, logits)) == "heavy":
        return ("heavy",)
    if ir.dropout is not None:
        return "medium", "dropout"
    if cost == "medium" or reads_by_score(ir, logits):
        return ("medium",)
    begins = any(r.possible.lo is not None for r in key_loops.ranges)
    return ("banded",) if begins else ()


def dense_in_tiles(ir: AttentionIR, logits: Logits) -> Dense | None:
    """The input that comes in tiles: only beside what leaves it registers."""
    return dense_input(ir) if lines(ir, logits) != "heavy" and ir.dropout is None else None


def lines(ir: AttentionIR, logits: Logits) -> str:
    """What the lines of a score cost: "light", "medium" or "heavy"."""
    known = rates(logits.tile, ir.mask)
    work = sum(rate is Rate.TILE and bool(node.args) for node, rate in known.items())
    return "heavy" if work >= _HEAVY else "medium" if work >= _MEDIUM else "light"


def reads_by_score(ir: AttentionIR, logits: Logits) -> int:
    """How many inputs are read at an address of their own for every score."""
    known = rates(logits.tile, ir.mask)
    return sum(rate is Rate.TILE and node.op is Op.LOAD for node, rate in known.items())


def reads_pairs(node: Expr) -> bool:
    """Whether a load's queries and keys run along dimensions of their own."""
    return {Rate.ROW, Rate.COLUMN} <= {rate_of(index) for index in node.args}
