"""A dimension of a new name, which is bound to whatever size is given, where a size of the call is meant.

input a: float32[head] ... a[h]     ->  free-size: ... h runs over heads: write heads
input a: int32[seq_len] ... a[k]    ->  free-size: ... k runs over k_len: write k_len
input a: float32[max_len] ... a[k]  ->  nothing: a table may be longer than the keys
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher

from attngen.analysis.lints.finding import Lint, clauses, index_span
from attngen.analysis.walk import fresh
from attngen.ir.nodes import RUNS_OVER, SIZES, AttentionIR, Expr, Op, postorder

# Names of lengths in other tools and papers, beside those that are nearly a size's.
_LENGTHS = frozenset(
    {"s", "l", "n", "t", "sq", "sk", "lq", "lk", "len_q", "len_k", "seqlen", "seq", "tokens"}
)
_NEAR = 0.8  # of difflib's ratio: seq_len and kv_len are near a size's name, max_len is not


def free_sizes(ir: AttentionIR) -> Iterator[Lint]:
    """slopes[h] of float32[head]: a tensor of any size fits, and heads beyond it read its last element."""
    inputs = {one.name: one for one in ir.inputs}
    asked = {str(node.value) for node in postorder(*ir.clauses) if node.op is Op.SIZE}
    seen: set[Expr] = set()
    for clause, root in clauses(ir):
        for node in fresh(root, seen):
            seen.add(node)
            if node.op is not Op.LOAD:
                continue
            for axis, (index, dim) in enumerate(zip(node.args, inputs[str(node.value)].dims, strict=True)):
                meant = RUNS_OVER.get(str(index.value)) if index.op is Op.WORD else None
                if meant is None or not isinstance(dim, str) or dim in SIZES or dim in asked:
                    continue
                if meant.endswith("_len") and not _is_a_length(dim):
                    continue
                message = (
                    f"dimension {axis} of input '{node.value}', {dim}, is a new name, bound to whatever size "
                    f"is given; {index.value} runs over {meant}: write {meant} (with {meant} = 4, "
                    f"{index.value} = 3 reads the last element of a tensor of 2)"
                )
                span = index_span(ir, node, axis, clause)
                yield Lint("free-size", message, span)


def _is_a_length(name: str) -> bool:
    """Whether a dimension of this name is more likely a length of the call than a table's own."""
    low = name.lower()
    sizes = ("q_len", "k_len", "q_length", "k_length")
    near = (SequenceMatcher(None, low, size).ratio() >= _NEAR for size in sizes)
    return low in _LENGTHS or any(near)
