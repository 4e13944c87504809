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
from attngen.emit.scope import Scope
from attngen.emit.view import HopperBackward, HopperBackwardView, Ranges
from attngen.plan.base2 import ONE, SCALE


def make_hopper_backward(scope: Scope, ranges: Ranges) -> HopperBackwardView:
    """The view of the backward for sm_90; nothing where the plan has no kernels for it."""
    if scope.plan.backend.hopper is None:
        return HopperBackwardView(None)
    queries = ranges.query_range
    searches = tuple(re.sub(r"\bsearch\(", "hopper_search(", line) for line in queries.lines)
    backward = HopperBackward(
        seed=_seed(scope),
        early=scope.plan.backward_is_heavy,
        searches=searches if searches != queries.lines else (),
        by_head=not {"h", "head", *scope.program_block().defines}.isdisjoint(queries.uses),
    )
    return HopperBackwardView(backward)


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
