"""What the fused backward for sm_90 needs beyond the view of Triton's two kernels, whose lines it holds.

score = score - slopes[h] * abs(dist)   ->   seed = "-0.6931471805599453 / scale"

Where the score is linear in the product of queries and keys, the accumulator of that product can start at the
row's log-sum-exp, over what the product is multiplied by: 2**logit is then P without anything to subtract. It
frees the registers that would hold the log-sum-exp of each query.
"""

from __future__ import annotations

import math
import re

from attngen.analysis.interval import intervals, is_positive
from attngen.emit.reads import lines_to, names_in
from attngen.emit.scope import Scope
from attngen.emit.view import (
    DenseView,
    HopperBackward,
    HopperBackwardView,
    Launch,
    LearnedView,
    Maths,
    Ranges,
    Tiles,
)
from attngen.plan.base2 import ONE, SCALE


def make_hopper_backward(
    scope: Scope,
    maths: Maths,
    tiles: Tiles,
    ranges: Ranges,
    launch: Launch,
    learned: LearnedView,
    dense: DenseView | None,
) -> HopperBackwardView:
    """The view of the backward for sm_90; nothing where the plan has no kernels for it."""
    if scope.plan.backend.hopper is None:
        return HopperBackwardView(None)
    queries, by_head = ranges.query_range, ranges.query_range.is_by_head
    searches = tuple(re.sub(r"\bsearch\(", "hopper_search(", line) for line in queries.lines)
    fed_lines = lines_to(queries.uses, tiles.program_near) if by_head else ()
    read = {*queries.uses, *names_in(fed_lines)}
    read |= {"k_len"} if {"k_last", "whole"} & read else set()
    factors = " ".join((_seed(scope), scope.uniform(scope.plan.logits.factor)))
    dropout = ("Seed", "kept_scale") if scope.ir.dropout is not None else ()
    wanted = {*tiles.dkdv_near.context, *names_in(tiles.program_near), *names_in([factors]), *dropout}
    wanted |= {SCALE.value if scope.ir.scale is not ONE else "", *(queries.uses if by_head else ())}
    backward = HopperBackward(
        gradient=maths.gradient.call,
        context=tuple(n for n in tiles.dkdv_near.context if n != "k_first"),
        positions=tiles.positions,
        dense=dense,
        part=learned.reads[0].part if scope.plan.gathers_dense else "",
        seed=_seed(scope),
        early=scope.plan.backward_is_heavy,
        searches=searches if searches != queries.lines else (),
        by_head=by_head,
        fed=tuple(n for n in ("q_len", "k_len", *launch.kernel_arguments) if n in read),
        fed_lines=fed_lines,
        own=tuple(n for n in launch.kernel_arguments if n in wanted),
    )
    return HopperBackwardView(backward)


def _seed(scope: Scope) -> str:
    """The factor of the log-sum-exp in base 2, or "" where the score is not linear in the product."""
    plan, scale = scope.plan, scope.ir.scale
    is_known = not scope.scale_by_head and is_positive(intervals(scale, dtypes={})[scale])
    if not (plan.logits.is_linear and is_known):
        return ""
    per_bit = repr(-math.log(2))
    if scale is ONE:
        return per_bit
    return f"{per_bit} / {repr(scale.value) if plan.scale_is_const else SCALE.value}"
