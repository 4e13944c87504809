"""What near tiles read by distance, listed for each head before the kernels for sm_90 run.

table[h, t5_bucket(dist, 32, 128)]   ->   Near[head, distance + 113] for -113 <= distance <= 113
                                          table_far = tl.load(near_at + clip(pos - k)) in near tiles

In far tiles the same name stands for one number: both kinds share their maths.
"""

from __future__ import annotations

from dataclasses import replace

from attngen.emit.far import FarUses, distance_lines
from attngen.emit.scope import Scope
from attngen.emit.view import FarView, Maths, NearView


def make_near(scope: Scope) -> NearView | None:
    """The view; None where near tiles find what they read themselves."""
    hopper = scope.plan.backend.hopper
    far = hopper.far if hopper is not None and hopper.near_table else None
    if far is None or far.distances is None:
        return None
    blocks = [scope.kernel.results([read.load]) for read in far.reads]
    return NearView(
        names=tuple(scope.names.own(str(read.stand_in.value)) for read in far.reads),
        values=tuple((block.lines, block.results[0]) for block in blocks),
        words=distance_lines(use for block in blocks for use in block.uses),
        low=far.reach.low,
        high=far.reach.high,
        count=far.distances,
    )


def listed_maths(maths: Maths, far: FarView) -> Maths:
    """The maths of tiles whose values by distance are at hand: that of far tiles."""
    by_call = {function.call: function for function in far.far_functions}
    logits, gradient = by_call[far.far_logits], by_call[far.far_gradient]
    return replace(
        maths,
        functions=(*dict.fromkeys((logits, gradient)), *maths.functions),
        logits=logits,
        gradient=replace(maths.gradient, call=gradient.call),
    )


def listed_uses(near: NearView, uses: FarUses) -> FarUses:
    """What loops take from their kernels for near and far tiles."""
    more = frozenset({"near_at", "pos"})
    return FarUses(uses.forward | more, uses.dkdv | more, uses.dq | more)
