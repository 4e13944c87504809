"""Which input comes to the kernels in tiles, as q, k and v do: one that each score reads at its own place.

score = score + bias[b, h, q, k]   ->   Dense(bias[b, h, q, k], ...): a tile of the bias beside each of scores

A thread that loads what its scores need waits for memory once a step. A tile can be brought to shared memory
ahead of time, by the hardware that copies tiles of tensors, if queries and keys are its last two dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.ir.nodes import AttentionIR, Expr, Input, Op, leaves

#: What may lie in such tiles: as many bits as the copies swizzle, and a number once it is in a register.
_DTYPES = {"float32", "float16", "bfloat16"}
_PROGRAM_WORDS = {"b", "h", "h_kv"}
_LARGEST_RANK = 4


@dataclass(frozen=True)
class Dense:
    """A read of ``input`` by query and key; its other dimensions are indexed by the same for a program."""

    load: Expr
    input: Input

    @property
    def batch_axis(self) -> int | None:
        """The dimension that the batch indexes, if one is."""
        return next((n for n, index in enumerate(self.load.args) if index.value == "b"), None)


def dense_input(ir: AttentionIR) -> Dense | None:
    """The first read of the score that can come in tiles; None where none can, or where the mask reads it."""
    inputs = {item.name: item for item in ir.inputs}
    masked = set(leaves(ir.mask, op=Op.LOAD))
    for load in leaves(ir.final_score, op=Op.LOAD):
        item = inputs[str(load.value)]
        *_, q, k = ("", "", *(str(index.value) for index in load.args))
        is_tile = (q, k) == ("q", "k") and item.dims[-2:] == ("q_len", "k_len")
        is_uniform = all(i.op is Op.WORD and i.value in _PROGRAM_WORDS for i in load.args[:-2])
        fits = item.dtype in _DTYPES and len(item.dims) <= _LARGEST_RANK
        if is_tile and is_uniform and fits and load not in masked:
            return Dense(load, item)
    return None
