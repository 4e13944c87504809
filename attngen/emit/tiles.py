"""What a kernel computes outside its loops: lines once a program, a row, a column, and what loops take of it.

score - slopes[h] * abs(dist)   ->   slopes_h_log2 = ... once a program, handed to the loop in its context
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attngen.emit.names import HELPERS
from attngen.emit.scope import Scope
from attngen.emit.statements import Block
from attngen.emit.view import Context, Function, LearnedView, Maths, Ranges, Tiles
from attngen.ir.types import Type
from attngen.plan.base2 import SCALE

_DROPOUT = ("head", "seed", "threshold")
_LOCAL = {"dot", "k", "column", "k_len", "FAST_TANH"}  # what every loop has by itself
_LOCAL_TRANSPOSED = _LOCAL | {"q", "pos", "q_len"}


def make_tiles(
    scope: Scope,
    maths: Maths,
    ranges: Ranges,
    learned: LearnedView,
    sink_uses: frozenset[str],
    learned_uses: frozenset[str],
) -> tuple[Tiles, frozenset[str]]:
    """The lines, and the names that they and all functions read from the kernels' arguments and positions."""
    plan = scope.plan
    program = scope.program_block()
    score, mask = plan.score_parts, plan.mask_parts
    given = scope.program_values
    row_score, row_mask = row_blocks(scope)
    column_score = scope.kernel.assignments(score.column, given)
    column_mask = scope.kernel.assignments(
        [p for p in mask.column if p not in score.column], (*given, *score.column)
    )
    rows, columns = (row_score, row_mask), (column_score, column_mask)
    blocks = (program, *rows, *columns)

    dropout = _DROPOUT if scope.ir.dropout is not None else ()
    q_corner, k_corner = (("q_first",), ("k_first",)) if dropout else ((), ())
    factor = scope.uniform_names(plan.logits.factor)
    derivative = scope.uniform_names(plan.logits.derivative) if plan.derivative_is_uniform else ()
    keeps = [u for f in maths.functions if f.call in maths.keep_keys for u in f.uses]
    by_function = {f.call: f.uses for f in maths.functions}
    backward = (*by_function[maths.gradient.call], *keeps, *factor, *derivative, *dropout)
    backward += ("kept_scale",) if dropout else ()
    scale = (str(SCALE.value),) if scope.scale_by_head else ()

    around = (*_uses((program, *rows)), *ranges.key_range.uses)
    floats = _float_arguments(scope)
    functions = (*maths.functions, *learned.derivative_functions, *ranges.ranges)
    uses = {*_uses(blocks), *(u for f in functions for u in f.uses), *factor, *derivative}
    tiles = Tiles(
        program=(*(["seed = tl.load(Seed)"] if dropout else []), *program.lines),
        row_score=row_score.lines,
        row_mask=row_mask.lines,
        column_score=column_score.lines,
        column_mask=column_mask.lines,
        forward=_context(
            (*_uses(columns), *maths.logits.uses, *keeps, *factor, *q_corner, *dropout),
            (_LOCAL, columns),
            (*around, *sink_uses),
            floats,
        ),
        dkdv=_context(
            (*_uses((*columns, *rows)), *k_corner, *backward, *scale),
            (_LOCAL_TRANSPOSED, (*columns, *rows)),
            (*program.uses, *ranges.query_range.uses),
            floats,
        ),
        dq=_context(
            (*_uses(columns), *q_corner, *backward, *learned.loop_uses),
            (_LOCAL, columns),
            (*around, *learned_uses),
            floats,
        ),
        helpers=_helpers(blocks, functions, [line for r in learned.reads for line in (*r.lines, r.place)]),
        uses_q="q" in uses or "pos" in uses,
        uses_k="k" in uses,
        uses_pos="pos" in uses,
        uses_tanh="FAST_TANH" in uses,
    )
    return tiles, frozenset(uses.difference(*(b.defines for b in blocks)))


def row_blocks(scope: Scope) -> tuple[Block, Block]:
    """The lines once a row: those of the score, and what the mask needs beside them."""
    score, mask, given = scope.plan.score_parts, scope.plan.mask_parts, scope.program_values
    row_score = scope.kernel.assignments(score.row, given)
    row_mask = scope.kernel.assignments([p for p in mask.row if p not in score.row], (*given, *score.row))
    return row_score, row_mask


def _context(
    names: Iterable[str],
    own: tuple[set[str], Iterable[Block]],
    around: Iterable[str],
    floats: Iterable[str],
) -> Context:
    """The names that a loop neither has by itself nor computes in its own lines: ``own`` is both.

    ``around`` are names that the kernel reads outside the loop, ``floats`` all kernels' float arguments.
    """
    local, blocks = own
    inside = local.union(*(b.defines for b in blocks))
    context = tuple(n for n in dict.fromkeys(names) if n not in inside)
    read = {*context, *around}
    return Context(context, tuple(f for f in floats if f in read))


def _float_arguments(scope: Scope) -> tuple[str, ...]:
    """The float params, and the scale where the launcher computes it."""
    params = [scope.names.own(p.name) for p in scope.ir.params if p.type is Type.FLOAT]
    on_host = scope.plan.scale_on_host and not scope.plan.scale_is_const
    return (*params, *([str(SCALE.value)] if on_host else []))


def _uses(blocks: Iterable[Block]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(u for b in blocks for u in b.uses))


def _helpers(blocks: Iterable[Block], functions: Iterable[Function], more: list[str]) -> frozenset[str]:
    """Which of the templates' functions the lines call."""
    lines = more + [line for b in blocks for line in b.lines]
    lines += [line for f in functions for line in (*f.lines, f.result) if not line.startswith("#")]
    called = {name for line in lines for name in re.findall(r"(?<![.\w])(\w+)\(", line)}
    return frozenset(called & set(HELPERS))
