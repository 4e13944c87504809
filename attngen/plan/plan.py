"""The plan of one variant: the IR and every decision the templates need, still data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from attngen.analysis.block_range import hulls, key_ranges, query_ranges
from attngen.analysis.facts import Facts, facts_of
from attngen.analysis.interval import fits_int64, intervals
from attngen.analysis.rates import Rate, rate_of, rates
from attngen.analysis.simplify import simple
from attngen.ir.nodes import SCORE, TRUE, AttentionIR, Expr, Op, leaves
from attngen.ir.types import Type
from attngen.plan.base2 import LOG2_E, Logits, base2
from attngen.plan.far import Far, far_tiles
from attngen.plan.hoist import Hoisted, hoist
from attngen.plan.hopper import Backend, Hopper, choose_backend, far_in_gluon
from attngen.plan.kept import where_kept
from attngen.plan.learned import Learned, Read, Route, learned_inputs
from attngen.plan.loops import Loops
from attngen.plan.picks import picks
from attngen.plan.products import Joined, Product, joined, products_of
from attngen.plan.sides import keeps_keys_alone, sides_apart
from attngen.plan.table import TileTable, current
from attngen.plan.tiles import Tiles, tiles_for
from attngen.plan.weights import Forward, Weights, weights_of
from attngen.plan.whole import with_room


@dataclass(frozen=True)
class Options:
    """How to build, beside what the spec says.

    ``backend`` is "auto", "triton" or "hopper" (see ``plan.hopper``). ``math`` is "approx" (the tanh
    instruction for 16-bit tensors) or "exact". ``table`` is where tiles are looked up (see ``plan.table``).
    """

    backend: str = "auto"
    math: str = "approx"
    table: TileTable = field(default_factory=current, repr=False)

    def __post_init__(self) -> None:
        if self.backend not in ("auto", "triton", "hopper"):
            raise ValueError(f"backend is 'auto', 'triton' or 'hopper', got {self.backend!r}")
        if self.math not in ("approx", "exact"):
            raise ValueError(f"math is 'approx' or 'exact', got {self.math!r}")


@dataclass(frozen=True)
class Plan:
    """What the kernels of one variant do, and where.

    ``scale_on_host`` says that the launcher computes the scale, as it does ``1 / sqrt(head_dim)``. Otherwise
    the kernels compute it once a program; it may then differ between the query heads of one key head, so dK
    cannot take it out of its sum. ``keep`` is the mask as the kernels compute it.
    """

    ir: AttentionIR
    options: Options
    logits: Logits
    score_parts: Hoisted
    mask_parts: Hoisted
    key_loops: Loops
    query_loops: Loops
    scale_on_host: bool
    tiles: Tiles
    facts: Facts
    weights: Weights
    backend: Backend
    keep: Expr = TRUE
    learned: tuple[Learned, ...] = ()
    far: Far | None = None
    products: tuple[Product, ...] = ()

    @cached_property
    def derivative_is_uniform(self) -> bool:
        """Whether the score's derivative is one number for a whole program."""
        return rate_of(self.logits.derivative) <= Rate.PROGRAM

    @cached_property
    def joined(self) -> Joined:
        """Which products of rows the kernels add up with q.k in one accumulator."""
        reads = [r.by_score for x in self.learned for r in x.reads if r.by_score is not None]
        derivatives = [e for p in self.products for e in (p.number, p.derivative)]
        return joined(self.products, (self.logits.tile, self.logits.derivative, *reads, *derivatives))

    @cached_property
    def backward_is_heavy(self) -> bool:
        """Whether score and mask hold more than a number or two for each score in registers: what they load
        for rows, columns or scores, or a derivative that varies. Far tiles count, where they have loops."""
        far = self.far_in_gluon
        known = rates(far.of(self.ir.final_score) if far else self.ir.final_score, self.ir.mask)
        loads = any(node.op is Op.LOAD and rate > Rate.PROGRAM for node, rate in known.items())
        return loads or not self.derivative_is_uniform

    @cached_property
    def sink_log2(self) -> Expr | None:
        """The sink's logit in base 2."""
        return None if self.ir.sink is None else simple(Op.MUL, LOG2_E, self.ir.sink)

    @property
    def takes_no_max(self) -> bool:
        """Whether scores are so small that 2**logit itself may be summed, without a maximum taken out of it.

        By consts alone: a param that decided it would compile the kernel again. A sink may be large.
        """
        bound = self.facts.bound
        if self.weights.forward is not Forward.ONLINE or self.weights.degree != 1:
            return False
        if bound is None or bound.op is not Op.CONST or self.ir.sink is not None:
            return False
        return float(bound.value or 0) <= _LARGEST_BOUND

    @property
    def splits_far(self) -> bool:
        """Whether the tiles far from the diagonal have loops of their own."""
        return self.far is not None and self.far.is_split

    @property
    def far_in_gluon(self) -> Far | None:
        """What tiles far from the diagonal do without in the kernels for sm_90."""
        return self.backend.hopper.far if self.backend.hopper is not None else None

    @property
    def gluon_logits(self) -> Logits:
        """The logits of most tiles of the kernels for sm_90, by which these are chosen."""
        far = far_in_gluon(self.ir, self.logits, self.far)
        return self.logits if far is None else far.logits(self.logits)

    @property
    def gathers_sums(self) -> bool:
        """Whether the fused backward for sm_90 can give what the gradients of all learned inputs are sums of:
        of an element that all queries and keys of a head read, or of one by distance what lies beyond its
        reach, if the derivative is quickly found. The keys of a program see all queries: it adds up by key,
        in a certain order. What a sink reads needs no more than a query's log-sum-exp and delta; of an input
        that scores read as well, the two kinds of sums would not add up."""
        hopper = self.backend.hopper
        if any(len({read.by_sink is None for read in x.reads}) > 1 for x in self.learned):
            return False
        reads = [(x.route, read) for x in self.learned for read in x.reads]
        return (
            bool(reads)
            and (hopper is not None and hopper.dense is None)
            and all(_sums_up(route, read, hopper) for route, read in reads)
        )

    @property
    def gathers_in_wide(self) -> bool:
        """Whether the backward of wide heads can, too: what the sink alone reads."""
        reads = (read for x in self.learned for read in x.reads)
        return self.gathers_sums and all(read.by_score is None for read in reads)

    @property
    def gathers_dense(self) -> bool:
        """Whether the fused backward for sm_90 can give the gradient of the input that comes in tiles: where
        that is all there is to gather, each dimension has an index of its own, whose tiles no other heads
        read, and the score's derivative by it is a number."""
        dense = self.backend.hopper.dense if self.backend.hopper is not None else None
        if dense is None or len(self.learned) != 1 or self.learned[0].route is not Route.DENSE:
            return False
        reads = self.learned[0].reads
        return [r.load for r in reads] == [dense.load] and all(
            r.by_score is not None and r.by_score.op is Op.CONST for r in reads
        )

    @property
    def is_masked(self) -> bool:
        return self.ir.mask is not TRUE

    @cached_property
    def mask_ends_keys(self) -> bool:
        """Whether the mask alone keeps the rows below q_len from the keys beyond k_len."""
        return keeps_keys_alone(self.ir, self.keep)

    @property
    def looks(self) -> bool:
        """Whether a kernel evaluates the mask before the others run."""
        picks = self.key_loops.picks
        return picks is not None and picks.may_keep is None

    @property
    def scale_is_const(self) -> bool:
        return self.ir.scale.op is Op.CONST


def make_plan(ir: AttentionIR, options: Options) -> Plan:
    """Decide everything."""
    weights, keep = weights_of(ir), sides_apart(ir)
    logits = where_kept(base2(ir), keep)
    products = products_of(ir)
    key_loops, query_loops = loops_of(ir, options.table)
    far = _far(ir, logits, (key_loops, query_loops))
    return Plan(
        ir=ir,
        options=options,
        logits=logits,
        score_parts=hoist(logits.tile, logits.derivative, *weights.roots),
        mask_parts=hoist(keep),
        key_loops=key_loops,
        query_loops=query_loops,
        scale_on_host=_is_plain(ir.scale),
        tiles=tiles_for(ir, logits, options.table),
        facts=facts_of(ir),
        weights=weights,
        backend=choose_backend(ir, logits, key_loops, far, options.backend, options.table),
        keep=keep,
        learned=learned_inputs(ir, products),
        far=far,
        products=products,
    )


def _far(ir: AttentionIR, logits: Logits, loops: tuple[Loops, Loops]) -> Far | None:
    """A softmax's alone, of no product of matrices but q.k; with no loop of their own where a list of tiles
    says which to visit."""
    if not ir.is_plain:
        return None
    far = far_tiles((logits.tile, logits.derivative), loops, ir.inputs)
    return far if far is None or loops[0].picks is None else replace(far, is_split=False)


def loops_of(ir: AttentionIR, table: TileTable) -> tuple[Loops, Loops]:
    """What a tile of queries streams through, and a tile of keys, where tiles are those of ``table``."""
    keys = key_ranges(ir.mask, ir.inputs)
    if (chosen := picks(ir.mask, ir.inputs, keys)) is None:
        queries = query_ranges(ir.mask, ir.inputs)
        return Loops(with_room(keys, table.shortest)), Loops(with_room(queries, table.shortest))
    all_keys, all_queries = hulls(ir.mask, ir.inputs)
    return Loops((all_keys,), chosen), Loops((all_queries,), chosen)


def _sums_up(route: Route, read: Read, hopper: Hopper) -> bool:
    """Whether the fused backward has the registers for a read's sums: it computes the derivative of a score
    beside accumulators that leave few."""
    if read.by_score is None or read.by_sink is not None:
        return read.by_score is None and route is Route.SUMS
    if SCORE in leaves(read.by_score, op=Op.SCORE):
        return False
    work = sum(rate is Rate.TILE and bool(node.args) for node, rate in rates(read.by_score).items())
    if hopper.near_table and read.by_score.op is not Op.CONST:
        return False
    is_sum = route is Route.SUMS and read.rate <= Rate.PROGRAM
    return work <= _FEW_OPERATIONS and (is_sum or (route is Route.BANDS and hopper.far is not None))


# Of a derivative for each score: -abs(pos - k) is three.
_FEW_OPERATIONS = 4

# exp(score) is then 2**-75 to 2**75; its sums with values below 2**32 stay within float32 and bfloat16.
_LARGEST_BOUND = 52.0

# What Python computes as float32 would, but for rounding, wherever it stands in a scale.
_PLAIN = {Op.CONST, Op.WORD, Op.TO_FLOAT, Op.ADD, Op.MUL, Op.DIV, Op.SQRT, Op.RSQRT}


def _is_plain(scale: Expr) -> bool:
    """Whether a scale is arithmetic of constants and head dimensions, which are at least 1, within int64."""
    known = intervals(scale, dtypes={})
    words = {node.value for node in known if node.op is Op.WORD}
    plain = words <= {"head_dim", "v_dim"} and all(node.op in _PLAIN for node in known)
    return plain and all(fits_int64(known[node]) for node in known if node.type is Type.INT)
