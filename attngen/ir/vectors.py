"""Which products of two inputs' rows are matrix products, and so may stand in a score.

dot(a[b, h, q], c[b, h_kv, k])   ->   a's rows are those of a tile's queries, c's those of its keys
dot(a[b, h, q], c[h, dist])      ->   refused: c's row is another for every score

A matrix product A C' takes one row of A for each query and one row of C for each key. Hence the indices are
the words themselves, each at the dimension that it runs over. A row chosen in another way can be gathered
before the call: that takes memory linear in the length, and torch gives its gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from attngen.ir.nodes import RUNS_OVER, Expr, Input, Op, postorder
from attngen.ir.types import DTYPES, Type

#: The words that may index a vector's dimensions, and the dimension that each names the elements of.
AXES: Mapping[str, str] = {word: size for word, size in RUNS_OVER.items() if word != "pos"}

#: The longest vector: what a tile can hold beside the head dimension.
MAX_RANK = 256

_BY_SCORE_HINT = (
    "only a row of the query times a row of the key is a matrix product; multiply before the call, "
    "as in t = a @ c.mT with t: float32[batch, heads, q_len, n], and read t[b, h, q, index]"
)
_GATHER_HINT = "gather the rows before the call, as in x[..., index, :], whose gradient torch takes"


class Misfit(NamedTuple):
    """Why a vector is no row of a matrix product. ``place`` is the index at fault, None for all of it."""

    place: int | None
    message: str
    hint: str | None = None


def vector_misfit(tensor: Input, indices: Sequence[Expr]) -> Misfit | None:
    """What is wrong with the vector ``tensor[indices]``, or None."""
    name, dims = tensor.name, tensor.dims
    if DTYPES[tensor.dtype] is not Type.FLOAT:
        return Misfit(None, f"'dot' takes rows of float inputs; '{name}' is {tensor.dtype}")
    if len(dims) < 2:
        hint = f"give it another dimension, as in {name}: {tensor.dtype}[heads, n]"
        return Misfit(None, f"'{name}' has too few dims to have rows", hint)
    if len(indices) != len(dims) - 1:
        hint = "the last dimension is what 'dot' sums over, and takes no index"
        shape = ", ".join(map(str, dims))
        takes = f"takes {len(dims) - 1} {'index' if len(dims) == 2 else 'indices'} inside 'dot'"
        return Misfit(None, f"'{name}' has the dims [{shape}] and {takes}, not {len(indices)}", hint)
    last = dims[-1]
    if isinstance(last, int) and last > MAX_RANK:
        return Misfit(None, f"'dot' sums over at most {MAX_RANK} elements, and '{name}' has {last}")
    seen: set[str] = set()
    for place, (index, dim) in enumerate(zip(indices, dims[:-1], strict=True)):
        words = {str(n.value) for n in postorder(index) if n.op is Op.WORD}
        if words & {"q", "pos"} and "k" in words:
            return Misfit(place, f"this index of '{name}' depends on both q and k", _BY_SCORE_HINT)
        text = str(index.value) if index.op is Op.WORD else ""
        if AXES.get(text) != dim:
            fitting = next((word for word, size in AXES.items() if size == dim), None)
            message = f"inside 'dot' the dimension {dim} of '{name}' is indexed by '{fitting}' itself"
            if fitting is None:
                known = ", ".join(AXES.values())
                message = f"inside 'dot' an indexed dimension is one of {known}; '{name}' has {dim}"
            return Misfit(place, message, _GATHER_HINT)
        seen.add(text)
    if len(seen) < len(indices) or {"h", "h_kv"} <= seen:
        return Misfit(None, f"'{name}' has two dimensions of heads, of lengths or of batches, and no rows")
    if {"q", "k"} <= seen:
        return Misfit(None, f"'{name}' is indexed by both q and k, and has no rows", _BY_SCORE_HINT)
    return None


def reads_keys(vector: Expr) -> bool:
    """Whether the vector is a row of a key."""
    return any(index.value == "k" for index in vector.args)


def pair_misfit(first: Input, second: Input, vectors: tuple[Expr, Expr]) -> Misfit | None:
    """What is wrong with a product of two sound vectors of these inputs, or None."""
    of_keys = [reads_keys(v) for v in vectors]
    if all(of_keys):
        hint = "without a query it is a number of the key: an input indexed by k"
        return Misfit(None, "both vectors of 'dot' are rows of the key", hint)
    if not any(of_keys):
        hint = "without a key it is a number of the query: an input indexed by q"
        return Misfit(None, "no vector of 'dot' is a row of the key, indexed by k", hint)
    if first.dims[-1] != second.dims[-1]:
        sizes = f"{first.dims[-1]} and {second.dims[-1]}"
        message = f"'dot' sums over the last dimensions of '{first.name}' and '{second.name}', {sizes}"
        return Misfit(None, message, "declare both with the same size")
    return None
