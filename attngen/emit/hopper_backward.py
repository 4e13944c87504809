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
from attngen.emit.hopper import PLACE
from attngen.emit.reads import lines_to, names_in
from attngen.emit.scope import Scope
from attngen.emit.view import (
    DenseView,
    HopperBackward,
    HopperBackwardView,
    Launch,
    LearnedView,
    Maths,
    NearView,
    Ranges,
    Sink,
    SinkSums,
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
    sink: Sink,
    dense: DenseView | None,
    near: NearView | None,
) -> HopperBackwardView:
    """The view of the backward for sm_90; nothing where the plan has no kernels for it."""
    plan = scope.plan
    if plan.backend.hopper is None:
        return HopperBackwardView(None)
    program = tiles.program_near if plan.far_in_gluon is None else tiles.program
    gathered = learned.gathered_reads if plan.gathers_sums else ()
    of_sink = _of_sink(learned, sink, tiles) if plan.gathers_sums and learned.sink_reads else None
    of_queries = [read.sum for read in of_sink.reads] if of_sink else []
    of_keys = [name for name in learned.row_sums if name not in of_queries] if plan.gathers_sums else []
    seed = _seed(scope)
    queries, by_head = ranges.query_range, ranges.query_range.is_by_head
    searches = tuple(re.sub(r"\bsearch\(", "hopper_search(", line) for line in queries.lines)
    fed_lines = lines_to(queries.uses, program) if by_head else ()
    read = {*queries.uses, *names_in(fed_lines)}
    read |= {"k_len"} if {"k_last", "whole"} & read else set()
    factors = " ".join((seed, scope.uniform(plan.logits.factor)))
    dropout = ("Seed", "kept_scale") if scope.ir.dropout is not None else ()
    wanted = {*tiles.fused.context, *names_in(program), *names_in([factors]), *dropout}
    wanted |= {SCALE.value if scope.ir.scale is not ONE else "", *(queries.uses if by_head else ())}
    backward = HopperBackward(
        gradient=maths.gradient.call,
        above=plan.backend.hopper.fused_from - 1,
        context=tuple(n for n in tiles.fused.context if n != "k_first"),
        positions=tiles.positions,
        dense=dense,
        has_far=plan.far_in_gluon is not None,
        near=near,
        program=program,
        part=learned.reads[0].part if plan.gathers_dense else "",
        gathered=gathered,
        sums=tuple(of_keys),
        of_sink=of_sink,
        sum_of=_sum_of(learned, of_queries, of_keys) if plan.gathers_sums else "",
        in_wide=plan.gathers_in_wide,
        in_wider=bool(of_keys) and plan.far_in_gluon is None,
        seed=seed,
        early=plan.backward_is_heavy,
        searches=searches if searches != queries.lines else (),
        by_head=by_head,
        fed=tuple(n for n in ("q_len", "k_len", *launch.kernel_arguments) if n in read),
        fed_lines=fed_lines,
        own=tuple(n for n in launch.kernel_arguments if n in wanted),
    )
    return HopperBackwardView(backward)


def _of_sink(learned: LearnedView, sink: Sink, tiles: Tiles) -> SinkSums:
    """What a kernel needs that gives the gradients of what the sink reads."""
    texts = (*sink.sink_lines, sink.sink_text)
    texts += tuple(text for read in learned.sink_reads for text in (*read.sink_lines, read.sink_part))
    before = lines_to(names_in(texts), tiles.program_near)
    names = names_in((*texts, *before))
    names |= {"h"} if "h_kv" in names else set()
    names |= {"kv_heads"} if "h_kv" in names else set()
    place = tuple(line for name, line in PLACE.items() if name in names)
    sizes = (("kv_heads", "k.shape[1]"), ("k_len", "k.shape[2]"))
    return SinkSums(learned.sink_reads, (*place, *before), tuple(s for s in sizes if s[0] in names))


def _sum_of(learned: LearnedView, of_queries: list[str], of_keys: list[str]) -> str:
    """The sums of all reads in their order, from those by query and those by key."""
    if not (of_queries and of_keys):
        return f"{'by_query' if of_queries else 'by_key'}.unbind(2)"
    texts = {name: f"by_query.select(2, {n})" for n, name in enumerate(of_queries)}
    texts |= {name: f"by_key.select(2, {n})" for n, name in enumerate(of_keys)}
    return f"({', '.join(texts[name] for name in learned.row_sums)})"


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
