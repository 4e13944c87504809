"""What a kernel computes outside its loops: lines once a program, a row, a column, and what loops take of it.

score - slopes[h] * abs(dist)   ->   slopes_h_log2 = ... once a program, handed to the loop in its context
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attngen.emit.far import FarUses
from attngen.emit.names import HELPERS, RUNS
from attngen.emit.products import ProductUses
from attngen.emit.reads import names_in
from attngen.emit.runs import streamed_keys, streamed_queries
from attngen.emit.scope import Scope, float_arguments
from attngen.emit.statements import Block
from attngen.emit.view import (
    Context,
    FarView,
    Function,
    LearnedView,
    Maths,
    Picks,
    Ranges,
    Sink,
    Tiles,
    WeightsView,
)
from attngen.plan.base2 import SCALE

_DROPOUT = ("head", "seed", "threshold")
_LOCAL = {"dot", "weights", "k", "column", "k_len", "FAST_TANH"}  # what every loop has by itself
_LOCAL_TRANSPOSED = _LOCAL | {"q", "pos", "q_len"}


def make_tiles(
    scope: Scope,
    maths: Maths,
    weights: WeightsView,
    ranges: Ranges,
    picks: Picks,
    learned: LearnedView,
    far: FarView,
    far_uses: FarUses,
    sink: Sink,
    sink_uses: frozenset[str],
    learned_uses: frozenset[str],
    product_uses: ProductUses,
    held: Iterable[str] = (),
) -> tuple[Tiles, frozenset[str]]:
    """The lines, and the names that they and all functions read from the kernels' arguments and positions.

    ``held`` are names that loops find by themselves.
    """
    plan = scope.plan
    program = scope.program_block()
    score, mask = plan.score_parts, plan.mask_parts
    given = scope.program_values
    row_score, row_mask = row_blocks(scope)
    column_score = scope.kernel.assignments(score.column, given)
    of_columns = [p for p in mask.column if p not in score.column], (*given, *score.column)
    column_mask = scope.kernel.assignments(*of_columns)
    keys_mask = streamed_keys(scope.triton, scope.names, *of_columns)
    of_rows = [p for p in mask.row if p not in score.row], (*given, *score.row)
    queries_mask = streamed_queries(scope.triton, scope.names, *of_rows)
    rows, columns = (row_score, row_mask), (column_score, column_mask)
    blocks = (program, *rows, *columns, keys_mask, queries_mask)

    dropout = _DROPOUT if scope.ir.dropout is not None else ()
    q_corner, k_corner = (("q_first",), ("k_first",)) if dropout else ((), ())
    factor = scope.uniform_names(plan.logits.factor)
    derivative = scope.uniform_names(plan.logits.derivative) if plan.derivative_is_uniform else ()
    keeps = [u for f in maths.functions if f.call in maths.keep_keys for u in f.uses]
    by_function = {f.call: f.uses for f in maths.functions}
    backward = (*by_function[maths.gradient.call], *keeps, *factor, *derivative, *dropout)
    backward += ("kept_scale",) if dropout else ()
    changes = [u for f in weights.weight_functions if f.call in weights.reweighted for u in f.uses]
    backward += tuple(u for f in weights.weight_functions if f.call == weights.weight_slope for u in f.uses)
    scale = (str(SCALE.value),) if scope.scale_by_head else ()

    of_forward = (*_uses(columns), *maths.logits.uses, *keeps, *factor, *changes, *q_corner, *dropout)
    of_dkdv = (*_uses((*columns, *rows)), *k_corner, *backward, *changes, *scale)

    gathered = (*learned.loop_uses, *sorted(far_uses.dq))
    around = (*_uses((program, *rows)), *ranges.key_range.uses)
    products = {scope.names.part(p.node) for p in plan.products}
    local, local_transposed = (names.union(products, held) for names in (_LOCAL, _LOCAL_TRANSPOSED))
    floats = float_arguments(scope)
    functions = (
        *maths.functions,
        *weights.weight_functions,
        *learned.derivative_functions,
        *far.far_functions,
        *ranges.ranges,
        *picks.functions_of_corners,
    )
    uses = {*_uses(blocks), *(u for f in functions for u in f.uses), *factor, *derivative}
    uses |= {"FAST_TANH"} & {*sink_uses, *names_in(line for r in learned.reads for line in r.sink_lines)}
    uses -= {"logit", "FAST_RECIPROCAL"}
    tiles = Tiles(
        program=(*(["seed = tl.load(Seed)"] if dropout else []), *program.lines),
        program_near=(
            *(["seed = tl.load(Seed)"] if dropout else []),
            *scope.program_block(with_far=False).lines,
        ),
        row_score=row_score.lines,
        row_mask=row_mask.lines,
        column_score=column_score.lines,
        column_mask=column_mask.lines,
        keys_mask=keys_mask.lines,
        queries_mask=queries_mask.lines,
        forward=_context(
            (*of_forward, *sorted(far_uses.forward)), (local, columns), (*around, *sink_uses), floats
        ),
        sums=_context((*_uses(columns), *maths.logits.uses, *keeps, *factor), (local, columns), (), floats),
        deltas=_context((*_uses(columns), *q_corner, *backward), (local, columns), around, floats),
        dkdv=_context(
            (
                *of_dkdv,
                *sorted(far_uses.dkdv),
                *product_uses.loops,
                *product_uses.loop_over_queries,
            ),
            (local_transposed, (*columns, *rows)),
            (*program.uses, *ranges.query_range.uses, *product_uses.after),
            floats,
        ),
        fused=_context(
            (*of_dkdv, *(gathered if plan.gathers_sums else sorted(far_uses.dkdv))),
            (local_transposed, (*columns, *rows)),
            (),
            floats,
        ),
        dq=_context(
            (
                *_uses(columns),
                *q_corner,
                *backward,
                *gathered,
                *product_uses.loops,
            ),
            (local, columns),
            (*around, *learned_uses, *product_uses.after),
            floats,
        ),
        helpers=_helpers(
            blocks,
            (*functions, *product_uses.functions),
            [
                *(line for r in learned.reads for line in (*r.lines, r.place, *r.sink_lines, r.sink_part)),
                *sink.sink_lines,
                sink.sink_text,
            ],
        ),
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


def _uses(blocks: Iterable[Block]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(u for b in blocks for u in b.uses))


def _helpers(blocks: Iterable[Block], functions: Iterable[Function], more: list[str]) -> frozenset[str]:
    """Which of the templates' functions the lines call."""
    lines = more + [line for b in blocks for line in b.lines]
    lines += [line for f in functions for line in (*f.lines, f.result) if not line.startswith("#")]
    called = {name for line in lines for name in re.findall(r"(?<![.\w])(\w+)\(", line)}
    return frozenset(called & {*HELPERS, *RUNS})
