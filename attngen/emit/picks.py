"""How a program lists the tiles to visit, where it picks them (see ``plan.picks``)."""

from __future__ import annotations

import re

from attngen.emit.scope import Scope, float_arguments
from attngen.emit.statements import Block
from attngen.emit.view import Function, Look, Maths, Picker, Picks
from attngen.ir.nodes import mentions

_PLACES = {"q_first", "q_last", "k_first", "k_last", "q_len", "k_len"}  # given before the others
_OF_TABLE = ("b", "h", "q_len", "k_len", "kept_ptr", "kept_stride_b", "kept_stride_h")


def make_picks(scope: Scope, maths: Maths) -> Picks:
    """The functions of both directions: keys for a tile of queries, and queries for a tile of keys."""
    chosen = scope.plan.key_loops.picks
    if chosen is None:
        return Picks(False, None, None, Picker((), ""), Picker((), ""))
    if chosen.may_keep is None:
        of_keys = Picker(("at", "hi", "q_first", *_OF_TABLE), "")
        return Picks(
            True, None, _look(scope, maths), of_keys, Picker(("at", "hi", "k_first", *_OF_TABLE), "")
        )
    block = scope.kernel.results((chosen.may_keep,), scope.program_values)
    doc = "Whether any query of a tile may keep any key of another; of one of them, a list."
    name = scope.names.function("may_keep")
    may_keep = Function(name, doc, block.lines, block.results[0], scope.parameters(block.uses))
    uses = tuple(u for u in may_keep.uses if u not in _PLACES)
    lengths = {"q_len", "k_len"} & {*may_keep.uses}
    of_keys, of_queries = (
        Picker(
            ("at", "hi", f"{tiled}_first", f"{tiled}_last", *sorted({f"{streamed}_len", *lengths}), *uses),
            may_keep.call,
        )
        for tiled, streamed in (("q", "k"), ("k", "q"))
    )
    return Picks(True, may_keep, None, of_keys, of_queries)


def _look(scope: Scope, maths: Maths) -> Look:
    """The kernel that evaluates the mask once for all programs."""
    parts, given = scope.plan.mask_parts, scope.program_values
    rows, columns = scope.kernel.assignments(parts.row, given), scope.kernel.assignments(parts.column, given)
    keeps = [u for f in maths.functions if f.call in maths.keep_keys for u in f.uses]
    program = _read_lines(scope.program_block(), {*rows.uses, *columns.uses, *keeps})
    read = {*rows.uses, *columns.uses, *keeps, *re.findall(r"\w+", " ".join(program))}
    mask = scope.ir.mask
    return Look(
        lines=(*program, *rows.lines, *columns.lines),
        floats=tuple(f for f in float_arguments(scope) if f in read),
        by_batch=mentions(mask, "b"),
        by_head=mentions(mask, "h", "h_kv"),
        by_key_head=mentions(mask, "h_kv"),
    )


def _read_lines(block: Block, read: set[str]) -> tuple[str, ...]:
    """The assignments of a block whose names are read, by others of them or from outside."""
    kept = []
    for line in reversed(block.lines):
        name, _, text = line.partition(" = ")
        if name in read:
            kept.append(line)
            read = {*read, *re.findall(r"\w+", text)}
    return tuple(reversed(kept))
