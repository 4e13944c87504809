"""How a program looks at tiles ahead of its loop, where it picks them (see ``plan.picks``)."""

from __future__ import annotations

from collections.abc import Iterable

from attngen.emit.scope import Scope
from attngen.emit.view import Function, Maths, Picker, Picks

_PLACES = {"q_first", "q_last", "k_first", "k_last", "column", "q_len", "k_len"}  # given before the others
_OF_KEYS = {"k"}  # what each function has by itself
_OF_QUERIES = {"k", "q", "pos", "row"}


def make_picks(scope: Scope, maths: Maths) -> Picks:
    """The functions of both directions: keys for a tile of queries, and queries for a tile of keys."""
    chosen = scope.plan.key_loops.picks
    if chosen is None:
        nothing = Picker((), (), "")
        return Picks(False, None, nothing, nothing)
    if chosen.may_keep is None:
        return _by_scores(scope, maths)
    block = scope.kernel.results((chosen.may_keep,), scope.program_values)
    doc = "Whether any query of a tile may keep any key of another; of one of them, a list."
    name = scope.names.function("may_keep")
    may_keep = Function(name, doc, block.lines, block.results[0], scope.parameters(block.uses))
    uses = tuple(u for u in may_keep.uses if u not in _PLACES)
    of_keys = Picker((), ("at", "hi", "q_first", "q_last", "q_len", "k_len", *uses), may_keep.call)
    of_queries = Picker((), ("at", "hi", "k_first", "k_last", "q_len", "k_len", *uses), may_keep.call)
    return Picks(True, may_keep, of_keys, of_queries)


def _by_scores(scope: Scope, maths: Maths) -> Picks:
    parts, given = scope.plan.mask_parts, scope.program_values
    columns = scope.kernel.assignments(parts.column, given)
    rows = scope.kernel.assignments(parts.row, given)
    keeps = [u for f in maths.functions if f.call in maths.keep_keys for u in f.uses]

    def others(names: Iterable[str], own: Iterable[str]) -> tuple[str, ...]:
        left_out = {*own, *_PLACES}
        return scope.parameters(n for n in names if n not in left_out)

    of_keys = others((*columns.uses, *keeps), (*_OF_KEYS, *columns.defines))
    own = (*_OF_QUERIES, *columns.defines, *rows.defines)
    of_queries = others((*columns.uses, *rows.uses, *keeps), own)
    return Picks(
        picks=True,
        may_keep=None,
        of_keys=Picker(columns.lines, ("at", "hi", "q_len", "k_len", *of_keys), maths.keep_keys),
        of_queries=Picker(
            (*columns.lines, *rows.lines),
            ("at", "hi", "column", "q_len", "k_len", *of_queries),
            maths.keep_pairs,
        ),
    )
