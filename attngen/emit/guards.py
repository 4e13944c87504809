"""What the forward kernel is spared: to look for empty rows, to take a maximum.

mask = causal                  ->   if q_len > k_len: ...
score = softcap(score, 30.0)   ->   BOUNDED
"""

from __future__ import annotations

from attngen.analysis.nonempty import MaybeEmpty, Sizes
from attngen.emit.view import Guards
from attngen.plan.plan import Plan

#: When a call is not as a proof needs it, in the kernel's words.
_BREAKS = {Sizes.ANY: "", Sizes.SOME_KEYS: "k_len == 0", Sizes.NO_FEWER_KEYS: "q_len > k_len"}


def make_guards(plan: Plan) -> Guards:
    """The guards that a variant's facts leave."""
    proof = plan.facts.nonempty
    if isinstance(proof, MaybeEmpty):
        return Guards(True, "", plan.takes_no_max)
    return Guards(proof.sizes is not Sizes.ANY, _BREAKS[proof.sizes], plan.takes_no_max)
