"""The plan of one variant: the IR and every decision the templates need, still data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from attngen.analysis.block_range import key_ranges, query_ranges
from attngen.analysis.interval import fits_int64, intervals
from attngen.analysis.rates import Rate, rate_of, rates
from attngen.analysis.simplify import simple
from attngen.ir.nodes import TRUE, AttentionIR, Expr, Op
from attngen.ir.types import Type
from attngen.plan.base2 import LOG2_E, Logits, base2
from attngen.plan.hoist import Hoisted, hoist
from attngen.plan.hopper import Backend, choose_backend
from attngen.plan.learned import Learned, learned_inputs
from attngen.plan.loops import Loops
from attngen.plan.tiles import Table, tiles_for


@dataclass(frozen=True)
class Options:
    """How to build, beside what the spec says.

    ``backend`` is "auto", "triton" or "hopper" (see ``plan.hopper``). ``math`` is "approx" (the tanh
    instruction for 16-bit tensors) or "exact".
    """

    backend: str = "auto"
    math: str = "approx"

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
    cannot take it out of its sum.
    """

    ir: AttentionIR
    options: Options
    logits: Logits
    score_parts: Hoisted
    mask_parts: Hoisted
    key_loops: Loops
    query_loops: Loops
    scale_on_host: bool
    tiles: Table
    backend: Backend
    learned: tuple[Learned, ...] = ()

    @cached_property
    def derivative_is_uniform(self) -> bool:
        """Whether the score's derivative is one number for a whole program."""
        return rate_of(self.logits.derivative) <= Rate.PROGRAM

    @cached_property
    def backward_is_heavy(self) -> bool:
        """Whether score and mask hold more than a number or two for each score in registers: what they load
        for rows, columns or scores, or a derivative that varies."""
        known = rates(self.ir.final_score, self.ir.mask)
        loads = any(node.op is Op.LOAD and rate > Rate.PROGRAM for node, rate in known.items())
        return loads or not self.derivative_is_uniform

    @cached_property
    def sink_log2(self) -> Expr | None:
        """The sink's logit in base 2."""
        return None if self.ir.sink is None else simple(Op.MUL, LOG2_E, self.ir.sink)

    @property
    def is_masked(self) -> bool:
        return self.ir.mask is not TRUE

    @property
    def scale_is_const(self) -> bool:
        return self.ir.scale.op is Op.CONST


def make_plan(ir: AttentionIR, options: Options) -> Plan:
    """Decide everything."""
    logits = base2(ir)
    return Plan(
        ir=ir,
        options=options,
        logits=logits,
        score_parts=hoist(logits.tile, logits.derivative),
        mask_parts=hoist(ir.mask),
        key_loops=Loops(key_ranges(ir.mask, ir.inputs)),
        query_loops=Loops(query_ranges(ir.mask, ir.inputs)),
        scale_on_host=_is_plain(ir.scale),
        tiles=tiles_for(ir),
        backend=choose_backend(ir, logits, options.backend),
        learned=learned_inputs(ir),
    )


# What Python computes as float32 would, but for rounding, wherever it stands in a scale.
_PLAIN = {Op.CONST, Op.WORD, Op.TO_FLOAT, Op.ADD, Op.MUL, Op.DIV, Op.SQRT, Op.RSQRT}


def _is_plain(scale: Expr) -> bool:
    """Whether a scale is arithmetic of constants and head dimensions, which are at least 1, within int64."""
    known = intervals(scale, dtypes={})
    words = {node.value for node in known if node.op is Op.WORD}
    plain = words <= {"head_dim", "v_dim"} and all(node.op in _PLAIN for node in known)
    return plain and all(fits_int64(known[node]) for node in known if node.type is Type.INT)
