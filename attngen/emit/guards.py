"""When the forward kernel must look for rows that kept nothing: always, never, or as the launch's sizes say.

mask = causal   ->   EMPTY_ROWS=q.shape[2] > k.shape[2]
"""

from __future__ import annotations

from attngen.analysis.nonempty import MaybeEmpty, Sizes
from attngen.emit.view import Guards
from attngen.plan.plan import Plan

#: When a call is not as a proof needs it, in the launcher's words.
_BREAKS = {
    Sizes.ANY: "",
    Sizes.SOME_KEYS: "k.shape[2] == 0",
    Sizes.NO_FEWER_KEYS: "q.shape[2] > k.shape[2]",
}


def make_guards(plan: Plan) -> Guards:
    """The launcher's condition, where there is one."""
    proof = plan.facts.nonempty
    if isinstance(proof, MaybeEmpty):
        return Guards(has_empty_rows=True, empty_rows_if="")
    return Guards(has_empty_rows=proof.sizes is not Sizes.ANY, empty_rows_if=_BREAKS[proof.sizes])
