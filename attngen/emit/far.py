"""The loops' lines for tiles far from the diagonal, where what is read by distance is one number.

near = [q_first + offset - 128, q_last + offset + 129)     keys, for a tile of queries
table_far = tl.where(n < near[0], table_behind, table_ahead)
logit = far_logits(dot, scale_log2, table_far)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from attngen.emit.maths import function_of
from attngen.emit.scope import Scope, far_values
from attngen.emit.view import FarView, Function
from attngen.ir.nodes import Expr, Op
from attngen.plan.far import Far
from attngen.plan.hoist import Hoisted
from attngen.plan.learned import Route

_NOWHERE = FarView(
    has_far=False,
    far_functions=(),
    far_logits="",
    far_gradient="",
    far_derivatives="",
    far_key_lines=(),
    far_query_lines=(),
    near_keys=("", ""),
    near_queries=("", ""),
    held_lines=(),
)


@dataclass(frozen=True)
class FarUses:
    """The names that a far tile's lines read in each kernel's loop."""

    forward: frozenset[str] = frozenset()
    dkdv: frozenset[str] = frozenset()
    dq: frozenset[str] = frozenset()

    @property
    def all(self) -> frozenset[str]:
        return self.forward | self.dkdv | self.dq


def make_far(scope: Scope) -> tuple[FarView, FarUses]:
    """The view, and the names that its lines read."""
    plan, far = scope.plan, scope.plan.far
    has_bands = any(x.route is Route.BANDS for x in plan.learned)
    if far is None or not (far.is_split or has_bands):
        return _NOWHERE, FarUses()
    logits = _function(scope, far, "far_logits", "Scores of a far tile.", (plan.logits.tile,))
    both = None
    if not plan.derivative_is_uniform:
        doc = "The same, and the derivative of the score by scale * dot."
        roots = (plan.logits.tile, plan.logits.derivative)
        both = _function(scope, far, "far_logits_and_derivative", doc, roots)
    scores = [r.by_score for x in plan.learned for r in x.reads if r.by_score is not None]
    wanted = [by_score for by_score in scores if by_score.op is not Op.CONST]
    derivatives = None
    if wanted:
        doc = "The derivative of the score by each of these elements, in a far tile."
        derivatives = _function(scope, far, "far_derivatives", doc, tuple(wanted))
    sides = [_names(scope, far, n) for n in range(len(far.reads))]
    functions = tuple(f for f in (logits, both, derivatives) if f is not None)
    own = {name for name, _, _ in sides}
    ends = {name for _, *both_ends in sides for name in both_ends if name} | {"near_lo"}

    def used_by(*called: Function | None) -> frozenset[str]:
        return frozenset(({u for f in called if f is not None for u in f.uses} - own) | ends)

    view = FarView(
        has_far=far.is_split,
        far_functions=functions,
        far_logits=logits.call,
        far_gradient=(both or logits).call,
        far_derivatives=derivatives.call if derivatives else "",
        far_key_lines=tuple(_choice(name, "n", behind, ahead) for name, behind, ahead in sides),
        far_query_lines=tuple(_choice(name, "first", ahead, behind) for name, behind, ahead in sides),
        near_keys=_near_keys(far),
        near_queries=_near_queries(far),
        held_lines=tuple(_held(scope, far)) if has_bands else (),
    )
    gradient = both or logits
    if not far.is_split:
        return view, FarUses()
    return view, FarUses(used_by(logits), used_by(gradient), used_by(gradient, derivatives))


def distance_lines(uses: Iterable[str]) -> tuple[str, ...]:
    """The words of what is read at a distance alone, found as of a key at 0."""
    used = set(uses)
    head = "head % heads"
    lines = {
        "b": "b = head // heads",
        "h": f"h = {head}",
        "h_kv": f"h_kv = {'h' if 'h' in used else head} // (heads // kv_heads)",
        "pos": "pos = distance  # of a key at 0",
        "q": "q = distance - (k_len - q_len)  # of a key at 0",
        "k": "k = distance * 0",
    }
    return tuple(line for word, line in lines.items() if word in used)


def _function(scope: Scope, far: Far, name: str, doc: str, roots: tuple[Expr, ...]) -> Function:
    parts: Hoisted = scope.plan.score_parts
    return function_of(scope, name, doc, "", tuple(far.of(root) for root in roots), parts)


def _held(scope: Scope, far: Far) -> Iterator[str]:
    """Lines that load, for a tile of queries and keys, what its whole diagonal reads by distance."""
    near = [value for value in scope.program_values if value not in far_values(far)]
    for read in far.reads:
        block = scope.kernel.results([read.load], near)
        yield from block.lines
        yield f"{scope.names.own(str(read.stand_in.value))} = {block.results[0]}"


def _names(scope: Scope, far: Far, number: int) -> tuple[str, str, str]:
    read = far.reads[number]
    ends = (read.behind, read.ahead) if far.is_split else (None, None)
    behind, ahead = ("" if e is None else scope.names.part(e) for e in ends)
    return scope.names.own(str(read.stand_in.value)), behind, ahead


def _choice(name: str, place: str, below: str, above: str) -> str:
    """What a far tile reads: one value before the near tiles, another after them."""
    if below and above:
        return f"{name} = tl.where({place} < near_lo, {below}, {above})"
    return f"{name} = {below or above}"


def _near_keys(far: Far) -> tuple[str, str]:
    """Keys that are near some query of q_first..q_first + BLOCK_M - 1, and the nearest beside them."""
    low, high = far.reach.low, far.reach.high
    begin = f"q_first + (k_len - q_len) - {high}" if far.reach.ends_behind else "0"
    end = f"q_first + BLOCK_M + (k_len - q_len) + {-low}" if far.reach.ends_ahead else "k_len"
    return _signed(begin), _signed(end)


def _near_queries(far: Far) -> tuple[str, str]:
    """Queries that are near some key of k_first..k_first + BLOCK_N - 1, and the nearest beside them."""
    low, high = far.reach.low, far.reach.high
    begin = f"k_first - (k_len - q_len) - {-low}" if far.reach.ends_ahead else "0"
    end = f"k_first + BLOCK_N - (k_len - q_len) + {high}" if far.reach.ends_behind else "q_len"
    return _signed(begin), _signed(end)


def _signed(text: str) -> str:
    return text.replace("- -", "+ ").replace("+ -", "- ").removesuffix(" + 0").removesuffix(" - 0")
