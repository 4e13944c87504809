"""A spec's score and mask as functions of index tensors, which FlexAttention and standard attention take.

``score(score, b, h, q, k)`` and ``mask(b, h, q, k)`` run the IR as straight-line code, one torch operation a
node: no loop over dictionaries or classes that ``torch.compile`` could trip over. Constants, params and sizes
stay Python numbers. The rows of ``rows.ROWS`` have formulas by hand instead (``formulas``), so that a wrong
one of these would be seen.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from attngen.bench.formulas import Formula, Mask, Score, Sink
from attngen.ir.nodes import TRUE, AttentionIR, Expr, Op, leaves, mentions, postorder
from attngen.ir.types import Scalar

Value = Any  # a tensor, or a Python number

_INDICES = ("b", "h", "q", "k")


def _elementwise(f: Callable[[Tensor], Tensor]) -> Callable[[Value], Value]:
    def of(x: Value) -> Value:
        return f(x) if isinstance(x, Tensor) else f(torch.tensor(x, dtype=torch.float32)).item()

    return of


def _extreme(
    tensors: Callable[..., Tensor], numbers: Callable[..., Scalar], bound: str
) -> Callable[..., Value]:
    def of(x: Value, y: Value) -> Value:
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            return tensors(x, y)
        if not isinstance(x, Tensor) and not isinstance(y, Tensor):
            return numbers(x, y)
        tensor, number = (x, y) if isinstance(x, Tensor) else (y, x)
        return torch.clamp(tensor, **{bound: number})

    return of


_least = _extreme(torch.minimum, min, "max")
_greatest = _extreme(torch.maximum, max, "min")


def _clamp(x: Value, low: Value, high: Value) -> Value:
    return _least(_greatest(x, low), high)


def _where(condition: Value, chosen: Value, other: Value) -> Value:
    return (
        torch.where(condition, chosen, other)
        if isinstance(condition, Tensor)
        else chosen
        if condition
        else other
    )


def _not(x: Value) -> Value:
    return ~x if isinstance(x, Tensor) else not x


def _to_int(x: Value) -> Value:
    return x.to(torch.int32) if isinstance(x, Tensor) else int(x)


def _to_float(x: Value) -> Value:
    return x.to(torch.float32) if isinstance(x, Tensor) else float(x)


_OPS: dict[Op, Callable[..., Value]] = {
    Op.ADD: operator.add,
    Op.SUB: operator.sub,
    Op.MUL: operator.mul,
    Op.DIV: operator.truediv,
    Op.NEG: operator.neg,
    Op.ABS: operator.abs,
    Op.MIN: _least,
    Op.MAX: _greatest,
    Op.CLAMP: _clamp,
    Op.FLOORDIV: operator.floordiv,
    Op.MOD: operator.mod,
    Op.EXP: _elementwise(torch.exp),
    Op.LOG: _elementwise(torch.log),
    Op.SQRT: _elementwise(torch.sqrt),
    Op.RSQRT: _elementwise(torch.rsqrt),
    Op.TANH: _elementwise(torch.tanh),
    Op.SIGMOID: _elementwise(torch.sigmoid),
    Op.SIN: _elementwise(torch.sin),
    Op.COS: _elementwise(torch.cos),
    Op.FLOOR: _elementwise(torch.floor),
    Op.LT: operator.lt,
    Op.LE: operator.le,
    Op.EQ: operator.eq,
    Op.NE: operator.ne,
    Op.AND: operator.and_,
    Op.OR: operator.or_,
    Op.NOT: _not,
    Op.WHERE: _where,
    Op.TO_FLOAT: _to_float,
    Op.TO_INT: _to_int,
}


def formula(ir: AttentionIR, params: Mapping[str, Scalar], sizes: Mapping[str, int]) -> Formula:
    """A spec's functions at a call's ``params`` and ``sizes`` (the words of sizes, and the free ones)."""

    def score(inputs: Mapping[str, Tensor]) -> Score:
        program = _Program(ir.final_score, inputs, params, sizes)

        def changed(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return program(score, b, h, q, k)

        return changed

    def mask(inputs: Mapping[str, Tensor]) -> Mask:
        program = _Program(ir.mask, inputs, params, sizes)

        def kept(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return program(None, b, h, q, k)

        return kept

    def sink(inputs: Mapping[str, Tensor]) -> Sink:
        assert ir.sink is not None
        program = _Program(ir.sink, inputs, params, sizes)

        def logit(b: Tensor, h: Tensor, q: Tensor) -> Tensor:
            return program(None, b, h, q, torch.zeros_like(q))  # no sink reads a key

        return logit

    return Formula(
        score=score if ir.score else None,
        mask=mask if ir.mask is not TRUE else None,
        mask_reads_batch=mentions(ir.mask, "b"),
        mask_reads_heads=mentions(ir.mask, "h", "h_kv"),
        sink=None if ir.sink is None else sink,
    )


class _Program:
    """One expression as a list of operations on numbered values."""

    def __init__(
        self, root: Expr, inputs: Mapping[str, Tensor], params: Mapping[str, Scalar], sizes: Mapping[str, int]
    ) -> None:
        order = postorder(root)
        place = {node: i for i, node in enumerate(order)}
        self.steps: list[tuple[Callable[..., Value], tuple[int, ...]]] = [
            (_operation(node, inputs, params, sizes), tuple(place[a] for a in node.args)) for node in order
        ]

    def __call__(self, score: Tensor | None, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        words = (b, h, q, k, score)
        values: list[Value] = []
        for operation, operands in self.steps:
            values.append(operation(words, *[values[i] for i in operands]))
        result = values[-1]
        if isinstance(result, Tensor):
            return result
        dtype = torch.bool if isinstance(result, bool) else torch.float32
        return torch.full_like(q + k, result, dtype=dtype)


def _operation(
    node: Expr, inputs: Mapping[str, Tensor], params: Mapping[str, Scalar], sizes: Mapping[str, int]
) -> Callable[..., Value]:
    if node.op is Op.CONST:
        return _always(node.value)
    if node.op is Op.PARAM:
        return _always(params[str(node.value)])
    if node.op is Op.SIZE:
        return _always(sizes[str(node.value)])
    if node.op is Op.SCORE:
        return lambda words: words[4]
    if node.op is Op.WORD:
        return _word(str(node.value), sizes)
    if node.op is Op.LOAD:
        return _read(inputs[str(node.value)], node)
    f = _OPS[node.op]
    return lambda words, *operands: f(*operands)


def _always(value: object) -> Callable[..., Value]:
    return lambda words: value


def _word(name: str, sizes: Mapping[str, int]) -> Callable[..., Value]:
    if name in _INDICES:
        place = _INDICES.index(name)
        return lambda words: words[place]
    if name == "pos":
        shift = sizes["k_len"] - sizes["q_len"]
        return (lambda words: words[2] + shift) if shift else (lambda words: words[2])
    if name == "h_kv":
        group = sizes["heads"] // sizes["kv_heads"]
        return (lambda words: words[1] // group) if group > 1 else (lambda words: words[1])
    return _always(sizes[name])


def _read(tensor: Tensor, node: Expr) -> Callable[..., Value]:
    """The element at the indices, kept inside the tensor; a bare index word already is."""
    lasts = [n - 1 for n in tensor.shape]
    inside = [n > 1 and index.op is Op.WORD for index, n in zip(node.args, tensor.shape, strict=True)]
    widen = tensor.is_floating_point() and tensor.dtype != torch.float32

    def read(words: tuple[Tensor, ...], *indices: Value) -> Tensor:
        if not indices:
            found = tensor
        else:
            kept = [
                i if safe else 0 if last == 0 else _clamp(i, 0, last)
                for i, safe, last in zip(indices, inside, lasts, strict=True)
            ]
            found = tensor[tuple(kept)]
        return found.to(torch.float32) if widen else found

    return read


def refusal(ir: AttentionIR) -> str:
    """Why FlexAttention cannot express a spec, or nothing."""
    if ir.dropout is not None:
        return "no dropout"
    return beyond_softmax(ir)


def beyond_softmax(ir: AttentionIR) -> str:
    """Why a spec is no softmax of a score, a mask and a sink with one scale, or nothing."""
    if not ir.is_softmax:
        return f"no normalize = {ir.normalize.value}"
    if ir.weight is not None:
        return "no weight clause"
    if ir.has_products:
        return "no product of rows"
    if any(leaves(ir.scale, op=Op.LOAD)):
        return "one scale for all heads"
    return ""
