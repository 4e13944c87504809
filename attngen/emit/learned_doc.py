"""The module's words about its learned inputs: how each gradient is gathered, and why every order is fixed.

input table: float32[heads, 257] grad   ->   d table: a sum for each distance (table changes only for ...)
"""

from __future__ import annotations

from attngen.analysis.diagonal import Reach
from attngen.emit.prose import folded
from attngen.plan.learned import Learned, Route, Side
from attngen.plan.plan import Plan

_SUMS = "{each}, then torch's sum over what the input does not index."
_DENSE = {
    True: "an element for each score, stored once; where the tensor broadcasts over batch or heads, a "
    "program owns each tile and adds them up in order.",
    False: "an element for each query and key; a program owns each tile of them and adds up the batches "
    "and heads that read it, in order.",
}
_PRODUCTS = {
    Side.ROWS: "dS times the other factor, a further matrix product of the dQ kernel",
    Side.COLUMNS: "dS' times the other factor, a further matrix product of the dK/dV kernel",
}
_PLACES = "whole numbers, which add up to the same in any order: a first pass finds their unit."


def gradients_paragraph(plan: Plan) -> str:
    """How the learned inputs' gradients are gathered, "" where there is none."""
    if not plan.learned:
        return ""
    lines = ["The gradients of the learned inputs have the same bits in every run:", ""]
    for learned in plan.learned:
        lines += [f"    {part}" for part in folded(f"{learned.input.name}: {_how(learned)}", 106)]
    if plan.gathers_sums and any(r.by_score is not None for x in plan.learned for r in x.reads):
        lines += ["", "The fused backward adds up by key what the two kernels add up by query."]
    return "\n".join(lines)


def far_paragraph(plan: Plan) -> str:
    """Which tiles read one number by distance, "" where none do."""
    if plan.far is None or not plan.far.is_split:
        return ""
    names = " and ".join(dict.fromkeys(str(read.load.value) for read in plan.far.reads))
    verb = "changes" if names.count(" and ") == 0 else "change"
    text = (
        f"What is read of {names} {verb} with the distance only where {_within(plan.far.reach)}:\n"
        "tiles farther from the diagonal load one number for all of their scores."
    )
    hopper = plan.backend.hopper
    if hopper is None or not hopper.near_table:
        return text
    more = "kernels the others find theirs in a list by distance, which a kernel of its own fills before."
    return f"{text} In Gluon's\n{more}"


def _how(learned: Learned) -> str:
    if learned.route is Route.NONE:
        return "nothing differentiable reads it; zeros."
    parts = [] if learned.route is Route.PRODUCTS else [_of_elements(learned)]
    parts += [_of_factors(learned)] if learned.factor_of else []
    return " Added to that, ".join(parts)


def _of_factors(learned: Learned) -> str:
    """What the products give whose factor it is."""
    products = "; ".join(_PRODUCTS[side] for side in dict.fromkeys(learned.factor_of))
    return f"{products}; then torch's sum over what the input does not index."


def _of_elements(learned: Learned) -> str:
    """What each element gets that is read alone."""
    if learned.route is Route.SUMS:
        return _SUMS.format(each=_each_query(learned))
    if learned.route is Route.DENSE:
        return _DENSE[learned.reads_once]
    if learned.route is Route.PLACES:
        return _PLACES
    assert learned.reach is not None
    if not (learned.reach.ends_behind or learned.reach.ends_ahead):
        return "a sum for each distance, along the diagonals of tiles."
    within = _within(learned.reach)
    return f"a sum for each distance with {within}, along the diagonals of tiles, and each query's beyond."


def _each_query(learned: Learned) -> str:
    """What a query adds up before torch does. A sink has no keys."""
    over_keys = any(r.by_score is not None or r.by_weight is not None for r in learned.reads)
    if all(r.by_sink is None for r in learned.reads):
        return "each query's sum over its keys"
    return "each query's sum over its keys and its sink" if over_keys else "one number for each query's sink"


def _within(reach: Reach) -> str:
    low = f"{reach.low} < " if reach.ends_ahead else ""
    high = f" < {reach.high}" if reach.ends_behind else ""
    return f"{low}dist{high}"
