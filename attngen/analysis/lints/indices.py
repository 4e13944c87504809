"""An index of one dimension that counts another: heads by key heads, keys by queries.

input a: float32[kv_heads] ... a[h]  ->  wrong-heads: ... with heads = 4, kv_heads = 2, h = 3 is beyond it
input a: float32[k_len] ... a[q]     ->  wrong-length: ... with q_len = 1, k_len = 4, q = 0 is at pos = 3
input a: int32[batch] ... a[0]       ->  wrong-batch: every b reads the element of b = 0
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attngen.analysis.lints.example import Partial, places
from attngen.analysis.lints.finding import Lint, clauses, index_span, quoted
from attngen.analysis.walk import fresh
from attngen.ir.nodes import POSITIONS, AttentionIR, Expr, Op, load, mentions, word

# What counts a dimension, as a message names it, and words that show that a mapping is meant.
_COUNTS = {
    "batch": ("b", frozenset({"b", "batch"})),
    "heads": ("h", frozenset({"h", "heads", "kv_heads"})),
    "kv_heads": ("h_kv", frozenset({"h_kv", "heads", "kv_heads"})),
    "q_len": ("q", frozenset({"q", "q_len", "k_len"})),
    "k_len": ("pos or k", frozenset({"k", "pos", "q_len", "k_len"})),
}
_IMPLIED = {"q": ("pos",), "h": ("h_kv",)}  # words that follow from one
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
    """table[h] where the dimension is kv_heads; row[q] where it is k_len; lens[0] where it is batch."""
    words: dict[Expr, frozenset[str]] = {}  # that a node computes with
    inputs = {one.name: one for one in ir.inputs}
    for clause, root in clauses(ir):
        for node in fresh(root, words):
            own = {str(node.value)} if node.op is Op.WORD else ()
            words[node] = frozenset(own).union(*(words[a] for a in node.args))
            if node.op is not Op.LOAD:
                continue
            dims = inputs[str(node.value)].dims
            for axis, (index, dim) in enumerate(zip(node.args, dims, strict=True)):
                read = _mismatch(words[index], dim)
                if not read and not (dim == "batch" and index.op is Op.CONST):
                    continue
                code = "wrong-length" if str(dim).endswith("_len") else "wrong-heads"
                code = "wrong-batch" if dim == "batch" else code
                right = _right(node, axis, dims, words)
                span = index_span(ir, node, axis, clause)
                yield Lint(code, _message(ir, node, axis, str(dim), read, right), span)
            words[node] = frozenset()  # an element may name anything


def _message(ir: AttentionIR, node: Expr, axis: int, dim: str, read: str | None, right: Expr | None) -> str:
    index = node.args[axis]
    text = quoted(right, ir, "")[1:-1] if right is not None else ""
    shown = str(index.value) if not index.args and index.op is not Op.LOAD else quoted(index, ir, str(read))
    example = _example(ir, index, dim, read)
    instead = f": write {text}" if text else ""
    return (
        f"dimension {axis} of input '{node.value}', {dim}, is indexed by {shown}; "
        f"{_COUNTS[dim][0]} runs over it{instead}{f' ({example})' if example else ''}"
    )


def _example(ir: AttentionIR, index: Expr, dim: str, read: str | None) -> str:
    """What goes wrong, with numbers; "" where only a call knows."""
    if read is None:
        return f"with batch = 2, b = 0 and b = 1 read the same, element {index.value}"
    if index.op is Op.WORD or (dim, read) == ("k_len", "q"):
        return _EXAMPLES.get((dim, read), f"with {dim} = 1, {read} = 1 is beyond its one element")
    value = Partial(index, ir)
    for place in places(index):
        found, count = value.at(place), place.words[dim]
        if found is None or 0 <= found < count:
            continue
        where = {"q": place.q, "k": place.k, "b": 0, "h": place.h}
        named = [f"{w} = {where[w]}" for w in where if mentions(index, w, *_IMPLIED.get(w, ()))]
        held = "its one element" if count == 1 else f"its {count} elements"
        sizes = place.sizes if dim.endswith("_len") or mentions(index, "pos") else f"{dim} = {count}"
        side = "beyond" if found > 0 else "before"
        return f"with {sizes}, at {' and '.join(named)} it is {found}, {side} {held}"
    return ""


def _right(
    node: Expr, axis: int, dims: tuple[int | str, ...], words: Mapping[Expr, frozenset[str]]
) -> Expr | None:
    """The same element with the right index: a word in place of a word, or two indices exchanged."""
    index, dim = node.args[axis], dims[axis]
    for other, instead in enumerate(node.args):
        if other != axis and words[instead] & _COUNTS[str(dim)][1] and _may_count(words[index], dims[other]):
            moved = {axis: instead, other: index}
            indices = (moved.get(n, arg) for n, arg in enumerate(node.args))
            return load(str(node.value), node.type, tuple(indices))
    if index.op not in (Op.WORD, Op.CONST):
        return None
    right = {"kv_heads": "h_kv", "k_len": "pos" if index.value == "q" else "k"}.get(
        str(dim), _COUNTS[str(dim)][0]
    )
    return load(str(node.value), node.type, (*node.args[:axis], word(right), *node.args[axis + 1 :]))


def _may_count(read: frozenset[str], dim: int | str) -> bool:
    """Whether an index that computes with these words may run over ``dim``."""
    return _mismatch(read, dim) is None and (dim not in _COUNTS or bool(read))


def _mismatch(read: frozenset[str], dim: int | str) -> str | None:
    """The word of an index that counts another dimension than ``dim``, where none counts that."""
    if dim not in _COUNTS:
        return None
    positions = [w for w in ("h", "h_kv", "b", "pos", "k", "q") if w in read & frozenset(POSITIONS)]
    return positions[0] if positions and not read & _COUNTS[str(dim)][1] else None
