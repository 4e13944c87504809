"""What the forward kernel is spared at some launches: to look for empty rows, to take a maximum.

mask = causal                 ->   EMPTY_ROWS=q.shape[2] > k.shape[2]
score = softcap(score, cap)   ->   BOUNDED=q.dtype != torch.float16 and abs(cap) <= LARGEST_BOUND
"""

from __future__ import annotations

from attngen.analysis.nonempty import MaybeEmpty, Sizes
from attngen.emit.scope import Scope
from attngen.emit.view import Guards

#: When a call is not as a proof needs it, in the launcher's words.
_BREAKS = {
    Sizes.ANY: "",
    Sizes.SOME_KEYS: "k.shape[2] == 0",
    Sizes.NO_FEWER_KEYS: "q.shape[2] > k.shape[2]",
}


def make_guards(scope: Scope) -> Guards:
    """The launcher's conditions, where there are some."""
    proof = scope.plan.facts.nonempty
    if isinstance(proof, MaybeEmpty):
        has_empty_rows, empty_rows_if = True, ""
    else:
        has_empty_rows, empty_rows_if = proof.sizes is not Sizes.ANY, _BREAKS[proof.sizes]
    bound = scope.plan.launch_bound
    bounded_if = ""
    if bound is not None:
        (text,) = scope.host.results([bound]).results
        bounded_if = f"q.dtype != torch.float16 and {text} <= LARGEST_BOUND"
    return Guards(has_empty_rows, empty_rows_if, bounded_if)
