"""What the kernels for sm_90 need beyond the view that they share with Triton's.

A consumer warpgroup computes the lines of its tile and of its rows itself. ``own`` are the arguments that it
takes from its kernel for them and for its loop, ``fed`` those of which the producer finds where tiles lie.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attngen.emit.reads import lines_to, names_in
from attngen.emit.scope import Scope
from attngen.emit.tiles import row_blocks
from attngen.emit.view import (
    DenseView,
    HopperForward,
    HopperView,
    Launch,
    Maths,
    NearView,
    RangeFunction,
    Ranges,
    Sink,
    Tiles,
)
from attngen.ir.nodes import Op, leaves, mentions
from attngen.plan.hopper import launcher_row
from attngen.plan.loops import Loops
from attngen.plan.short import FILLED
from attngen.plan.tile import HopperTile

PLACE = {"b": "b = head // heads", "h": "h = head % heads", "h_kv": "h_kv = h // (heads // kv_heads)"}


def make_hopper(
    scope: Scope,
    maths: Maths,
    tiles: Tiles,
    ranges: Ranges,
    launch: Launch,
    sink: Sink,
    dense: DenseView | None,
    near: NearView | None,
) -> HopperView:
    """The view of the kernels for sm_90; nothing where the plan has none.

    ``maths`` and ``tiles`` are theirs: they may get an input in tiles that Triton's kernels load.
    """
    hopper = scope.plan.backend.hopper
    if hopper is None:
        return HopperView(None)
    program = tiles.program_near if hopper.far is None else tiles.program
    own = names_in((*program, *sink.sink_lines, sink.sink_text))
    own |= {*tiles.forward.context, *(use for block in row_blocks(scope) for use in block.uses)}
    own |= {"h"} if "h_kv" in own else set()
    own |= {"kept_scale"} if scope.ir.dropout is not None else set()
    fed_lines = lines_to(ranges.key_range.uses, program)
    fed = {*ranges.key_range.uses, *names_in(fed_lines)}
    searches = tuple(re.sub(r"\bsearch\(", "hopper_search(", line) for line in ranges.key_range.lines)
    searches_rows = any("hopper_search(" in line for line in searches)
    in_tiles = hopper.dense.load if hopper.dense else None
    loads = [n for n in leaves(scope.ir.final_score, scope.ir.mask, op=Op.LOAD) if n is not in_tiles]
    reads_by_key = any(mentions(n, "k") for n in loads)
    own_range = "" if searches_rows or dense else _own_range(ranges.key_range, scope.plan.key_loops)
    # Then k stops at the last key, and so does the mask; a tile past it has no run of its own.
    mask_lines = tiles.column_mask if reads_by_key else tiles.keys_mask
    keep = maths.keep_whole if scope.plan.mask_ends_keys and not reads_by_key else maths.keep_keys
    loop = (*tiles.column_score, *mask_lines, maths.logits.call, keep)
    forward = HopperForward(
        logits=maths.logits.call,
        context=with_length(tiles.forward.context, loop, reads_by_key=reads_by_key),
        positions=tiles.positions,
        dense=dense,
        has_far=hopper.far is not None,
        near=near,
        program=program,
        own=tuple(n for n in launch.kernel_arguments if n in own),
        place=tuple(line for name, line in PLACE.items() if name in own),
        reads_head=near is not None or bool({"b", "h", "head"} & own),
        reads_h_kv="h_kv" in own,
        fed=tuple(n for n in launch.kernel_arguments if n in fed),
        fed_lines=fed_lines,
        keep=keep,
        reads_by_key=reads_by_key,
        searches=searches if searches_rows else (),
        tiles=tuple((width, _tile_text(tile, width)) for width, tile in hopper.tiles.items()),
        own_range=own_range,
        deals=bool(own_range) or (dense is None and not {"q_first", "q_last"} & {*ranges.key_range.uses}),
        filled=tuple(FILLED.items()),
    )
    return HopperView(forward)


def with_length(context: Sequence[str], loop: Sequence[str], *, reads_by_key: bool) -> tuple[str, ...]:
    """What a loop over keys takes, their number too where its lines or the place of a read need that."""
    return ("k_len", *context) if reads_by_key or "k_len" in names_in(loop) else tuple(context)


def _own_range(keys: RangeFunction, loops: Loops) -> str:
    """The call that gives the keys of own_first..own_last, where they are the first of those of
    q_first..q_last: the loops begin at the first key of all, and the queries say where they end."""
    first = loops.ranges[0]
    begins_later = first.possible.lo is not None
    if not loops.has_interior or loops.has_gaps or begins_later or "q_last" not in keys.uses:
        return ""
    return re.sub(r"\bq_(first|last)\b", r"own_\1", keys.call)


def _tile_text(tile: HopperTile | None, width: int) -> str:
    """A row of the table, as the launcher takes it apart."""
    if tile is None:
        return "None"
    return repr(launcher_row(tile, width))
