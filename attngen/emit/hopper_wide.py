"""What the backward of wide heads for sm_90 needs beyond the views of the forward and of the fused backward.

Its dK and dV stand transposed and hold the lines of the fused backward, its dQ stands as the forward does:

score = score - slopes[h] * abs(dist)   ->   context ("slopes_h", ...) of the loop over keys, own the same
"""

from __future__ import annotations

from attngen.emit.hopper import with_length
from attngen.emit.reads import names_in
from attngen.emit.scope import Scope
from attngen.emit.tiles import row_blocks
from attngen.emit.view import HopperView, HopperWide, HopperWideView, Maths, Ranges, Tiles

# What a consumer of dQ has by itself.
_LOCAL = {"q", "pos", "row", "b", "h", "head", "q_first", "q_len", "k_len", "FAST_TANH"}


def make_hopper_wide(
    scope: Scope, maths: Maths, tiles: Tiles, ranges: Ranges, forward: HopperView
) -> HopperWideView:
    """The view of those kernels; nothing where the plan leaves wide heads to Triton."""
    hopper = scope.plan.backend.hopper
    if hopper is None or forward.hopper is None or not hopper.wide_backward:
        return HopperWideView(None)
    rows = row_blocks(scope)
    local = _LOCAL.union(*(block.defines for block in rows))
    wanted = (
        *tiles.deltas.context,
        *(u for b in rows for u in b.uses),
        *sorted(names_in([maths.scale_after])),
    )
    own = tuple(n for n in dict.fromkeys(wanted) if n not in local)
    of_keys = {*names_in(tiles.program_near), *tiles.dkdv.context, *ranges.query_range.uses}
    loop = (*tiles.column_score, *tiles.column_mask, maths.gradient.call, maths.gain, forward.hopper.keep)
    context = with_length(tiles.deltas.context, loop, reads_by_key=forward.hopper.reads_by_key)
    return HopperWideView(HopperWide(context, own, bool({"h", "head"} & of_keys)))
