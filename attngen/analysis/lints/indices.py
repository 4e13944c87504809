"""An index of one dimension that counts another: heads by key heads, keys by queries.

input a: float32[kv_heads] ... a[h]  ->  wrong-heads: ... with heads = 4, kv_heads = 2, h = 3 is beyond it
input a: float32[k_len] ... a[q]     ->  wrong-length: ... with q_len = 1, k_len = 4, q = 0 is at pos = 3
"""

from __future__ import annotations

from collections.abc import Iterator

from attngen.analysis.lints.finding import Lint, clauses, quoted
from attngen.analysis.walk import fresh
from attngen.ir.nodes import POSITIONS, AttentionIR, Expr, Op, load, word

# What counts a dimension, as a message names it, and words that show that a mapping is meant.
_COUNTS = {
    "batch": ("b", frozenset({"b", "batch"})),
    "heads": ("h", frozenset({"h", "heads", "kv_heads"})),
    "kv_heads": ("h_kv", frozenset({"h_kv", "heads", "kv_heads"})),
    "q_len": ("q", frozenset({"q", "q_len", "k_len"})),
    "k_len": ("pos or k", frozenset({"k", "pos", "q_len", "k_len"})),
}
_EXAMPLES = {
    ("kv_heads", "h"): "with heads = 4 and kv_heads = 2, h = 3 is beyond its 2 elements",
    (
        "heads",
        "h_kv",
    ): "with heads = 4 and kv_heads = 2, h = 0 and h = 1 read one element, and 2 and 3 are unread",
    ("k_len", "q"): "with q_len = 1 and k_len = 4, q = 0 stands at pos = 3",
    ("q_len", "k"): "with q_len = 1 and k_len = 4, k = 3 is beyond its one element",
    ("q_len", "pos"): "with q_len = 1 and k_len = 4, q = 0 has pos = 3, beyond its one element",
}


def wrong_index(ir: AttentionIR) -> Iterator[Lint]:
    """table[h] where the dimension is kv_heads; row[q] where it is k_len; and their like."""
    words: dict[Expr, frozenset[str]] = {}  # that a node computes with
    inputs = {one.name: one for one in ir.inputs}
    for clause, root in clauses(ir):
        for node in fresh(root, words):
            own = {str(node.value)} if node.op is Op.WORD else ()
            words[node] = frozenset(own).union(*(words[a] for a in node.args))
            if node.op is not Op.LOAD:
                continue
            for axis, (index, dim) in enumerate(zip(node.args, inputs[str(node.value)].dims, strict=True)):
                read = _mismatch(words[index], dim)
                if read:
                    message = _message(ir, node, axis, str(dim), read)
                    code = "wrong-length" if str(dim).endswith("_len") else "wrong-heads"
                    code = "wrong-batch" if dim == "batch" else code
                    yield Lint(code, message, ir.reads.get(node) or ir.spans.get(clause))
            words[node] = frozenset()  # an element may name anything


def _message(ir: AttentionIR, node: Expr, axis: int, dim: str, read: str) -> str:
    example = _EXAMPLES.get((dim, read), f"with {dim} = 1, {read} = 1 is beyond its one element")
    return (
        f"dimension {axis} of input '{node.value}', {dim}, is indexed by {read}; {_COUNTS[dim][0]} runs over "
        f"it{_instead(ir, node, axis, dim)} ({example})"
    )


def _instead(ir: AttentionIR, node: Expr, axis: int, dim: str) -> str:
    """ ": write len[b]": the same element with the right word, where a word alone is the index."""
    index = node.args[axis]
    if index.op is not Op.WORD:
        return ""
    right = {"kv_heads": "h_kv", "k_len": "pos" if index.value == "q" else "k"}.get(dim, _COUNTS[dim][0])
    indices = (*node.args[:axis], word(right), *node.args[axis + 1 :])
    text = quoted(load(str(node.value), node.type, indices), ir, "")
    return f": write {text[1:-1]}" if text else ""


def _mismatch(read: frozenset[str], dim: int | str) -> str | None:
    """The word of an index that counts another dimension than ``dim``, where none counts that."""
    if dim not in _COUNTS:
        return None
    positions = [w for w in ("h", "h_kv", "b", "pos", "k", "q") if w in read & frozenset(POSITIONS)]
    return positions[0] if positions and not read & _COUNTS[str(dim)][1] else None
