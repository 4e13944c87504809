"""What each IR op means, as torch tensors over (batch, heads, rows, columns): one table row an op.

The oracle (``reference``) and the CPU path (``blockwise``) evaluate a spec's expressions with this table.
Gradients are torch's own; the only additions are guards, so that a position whose result nobody uses
(a masked score, the branch that a conditional does not take) cannot turn its zero gradient into NaN.
Anything under ``int()``, ``floor``, a comparison or an index is float32 whatever the working dtype is,
rounded at each op as in a kernel, so that no bucket and no mask flips between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attngen.ir.nodes import SIZES, Expr, Op, postorder
from attngen.ir.types import Scalar, Type

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class Grid:
    """The positions that an evaluation covers: all of them, but query rows ``first_row <= q < last_row``."""

    batch: int
    heads: int
    kv_heads: int
    q_len: int
    k_len: int
    head_dim: int
    v_dim: int
    first_row: int
    last_row: int
    device: torch.device

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.batch, self.heads, self.last_row - self.first_row, self.k_len)

    @property
    def sizes(self) -> dict[str, int]:
        """The words that are one number for the whole call."""
        return {name: getattr(self, name) for name in SIZES}

    def word(self, name: str) -> Tensor:
        """A word's values, int64, broadcastable to ``shape``."""
        if name in SIZES:
            return torch.tensor(self.sizes[name], device=self.device)
        if name == "b":
            return self._along(0, 0, self.batch)
        if name == "h":
            return self._along(1, 0, self.heads)
        if name == "h_kv":
            group = max(1, self.heads // max(1, self.kv_heads))
            return self._along(1, 0, self.heads) // group
        if name == "q":
            return self._along(2, self.first_row, self.last_row)
        if name == "k":
            return self._along(3, 0, self.k_len)
        if name == "pos":
            shift = self.k_len - self.q_len
            return self._along(2, self.first_row + shift, self.last_row + shift)
        raise ValueError(f"{name!r} has no meaning outside a kernel's tile")

    def _along(self, dim: int, start: int, stop: int) -> Tensor:
        shape = [1, 1, 1, 1]
        shape[dim] = -1
        return torch.arange(start, stop, device=self.device).view(shape)


@dataclass(frozen=True)
class Environment:
    """All that an expression can read. ``score`` and ``weight`` are the leaves of their names in the working
    dtype, where there are any. ``lengths`` is how long the rows of each input are, to which a last dim of
    size 1 broadcasts; the tensor's own where it says nothing.

    ``nudge`` maps LOAD and DOT nodes to tensors that are added to them: zeros whose gradients tell what each
    position contributes to an input's gradient (``reference.contributions``). ``rounded_to`` is the dtype
    that the vectors of a product, and the product, are rounded to: the tensors' own, in the baseline.
    """

    grid: Grid
    inputs: Mapping[str, Tensor]
    params: Mapping[str, Scalar]
    sizes: Mapping[str, int]
    score: Tensor | None = None
    weight: Tensor | None = None
    nudge: Mapping[Expr, Tensor] = field(default_factory=dict)
    rounded_to: torch.dtype | None = None
    lengths: Mapping[str, int] = field(default_factory=dict)

    def rows(self, name: str, tensor: Tensor, indices: Sequence[Tensor]) -> Tensor:
        """Rows of ``tensor``, which stands for the input ``name``: the indices' shape, and the row."""
        read = gather_rows(tensor, indices)
        return read.expand(*read.shape[:-1], self.lengths.get(name, read.shape[-1]))


def evaluate(root: Expr, env: Environment, dtype: torch.dtype) -> Tensor:
    """The value of ``root``, broadcastable to ``env.grid.shape``.

    ``dtype`` (float32 or float64) is the working dtype of floats. Ints are int64, bools torch.bool.
    """
    order = postorder(root)
    wanted = _precisions(root, order, dtype)
    values: dict[tuple[Expr, torch.dtype], Tensor] = {}
    for node in order:
        for precision in wanted[node]:
            args = [values[a, _precision_of(node, a, precision)] for a in node.args]
            values[node, precision] = _value(node, args, env, precision, dtype)
    return values[root, next(iter(wanted[root]))]


_FLOAT32_OPERANDS = {Op.TO_INT, Op.FLOOR, Op.LT, Op.LE, Op.EQ, Op.NE}


def _precision_of(user: Expr, operand: Expr, precision: torch.dtype) -> torch.dtype:
    """The dtype in which ``user``, computed in ``precision``, wants its operand."""
    if operand.type is Type.INT:
        return torch.int64
    if operand.type is Type.BOOL:
        return torch.bool
    return torch.float32 if user.op in _FLOAT32_OPERANDS else precision


def _precisions(root: Expr, order: Sequence[Expr], dtype: torch.dtype) -> dict[Expr, dict[torch.dtype, None]]:
    """The dtypes in which each node is wanted: a float can be wanted in the working dtype and in float32."""
    wanted: dict[Expr, dict[torch.dtype, None]] = {node: {} for node in order}
    own = {Type.INT: torch.int64, Type.BOOL: torch.bool, Type.FLOAT: dtype, Type.VECTOR: dtype}
    wanted[root][own[root.type]] = None
    for node in reversed(order):
        for precision in wanted[node]:
            for arg in node.args:
                wanted[arg][_precision_of(node, arg, precision)] = None
    return wanted


def _value(
    node: Expr, args: list[Tensor], env: Environment, precision: torch.dtype, dtype: torch.dtype
) -> Tensor:
    device = env.grid.device
    if node.op is Op.CONST:
        return torch.tensor(node.value, dtype=precision, device=device)
    if node.op is Op.WORD:
        return env.grid.word(str(node.value))
    if node.op is Op.SIZE:
        return torch.tensor(env.sizes[str(node.value)], device=device)
    if node.op is Op.PARAM:
        return torch.tensor(env.params[str(node.value)], dtype=precision, device=device)
    if node.op in (Op.SCORE, Op.WEIGHT):
        leaf = env.score if node.op is Op.SCORE else env.weight
        if leaf is None:
            raise ValueError(f"this clause cannot read the {node.op.value}")
        return leaf if precision == dtype else leaf.detach().to(precision)
    if node.op is Op.LOAD:
        read = gather(env.inputs[str(node.value)], args)
        if precision.is_floating_point and precision != dtype:
            return read.detach().to(precision)
        read = read.to(precision)
        return read + env.nudge[node] if node in env.nudge else read
    if node.op is Op.VECTOR:
        name = str(node.value)
        read = env.rows(name, env.inputs[name], args).to(precision)
        return rounded(read, env.rounded_to)
    if node.op is Op.DOT:
        product = rounded(torch.einsum("bhqkr,bhqkr->bhqk", *args), env.rounded_to)
        if precision != dtype:
            return product.detach()
        return product + env.nudge[node] if node in env.nudge else product
    if node.op is Op.TO_FLOAT:
        return args[0].to(precision)
    if node.op is Op.FLOOR:
        return torch.floor(args[0].detach()).to(precision)
    return (FLOAT_OPS if _works_on_floats(node) else INT_OPS)[node.op](*args)


def _works_on_floats(node: Expr) -> bool:
    return node.args[-1].type is Type.FLOAT


def gather(tensor: Tensor, indices: Sequence[Tensor]) -> Tensor:
    """The elements of ``tensor`` at broadcast ``indices``; an index outside reads the nearest element."""
    if tensor.numel() == 0:  # nothing to read: only a degenerate size gets here
        index = sum(indices, torch.zeros((), dtype=torch.int64, device=tensor.device))
        return tensor.new_zeros(index.shape)
    if not indices:
        return tensor
    last = [n - 1 for n in tensor.shape]  # a dim of size 1 broadcasts: every index reads element 0
    return tensor[tuple(i.clamp(0, n) for i, n in zip(indices, last, strict=True))]


def gather_rows(tensor: Tensor, indices: Sequence[Tensor]) -> Tensor:
    """The rows (along the last dim) of ``tensor`` at broadcast ``indices``: their shape, and the last dim."""
    if tensor.numel() == 0:
        index = sum(indices, torch.zeros((), dtype=torch.int64, device=tensor.device))
        return tensor.new_zeros(*index.shape, tensor.shape[-1])
    last = [n - 1 for n in tensor.shape]
    return tensor[tuple(i.clamp(0, n) for i, n in zip(indices, last, strict=False))]


def rounded(x: Tensor, to: torch.dtype | None) -> Tensor:
    """``x`` rounded to ``to`` and widened again, unless that would overflow (the baseline is finite)."""
    if to is None or (x.isfinite() & ~x.to(to).isfinite()).any():
        return x
    return x.to(to).to(x.dtype)


class _Guarded(torch.autograd.Function):
    """``f(*args)`` elementwise, whose gradient (torch's own) is 0 wherever the incoming gradient is 0."""

    @staticmethod
    def forward(ctx: Any, f: Callable[..., Tensor], *args: Tensor) -> Tensor:
        ctx.f = f
        ctx.save_for_backward(*args)
        return f(*args)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        args = ctx.saved_tensors
        again = torch.is_grad_enabled()  # the gradient is to be differentiated in its turn
        with torch.enable_grad():
            own = [a if again and a.requires_grad else a.detach().requires_grad_() for a in args]
            operands = [a.expand(grad.shape) for a in own]
            grads = torch.autograd.grad(ctx.f(*operands), operands, grad, create_graph=again)
        unused = grad == 0
        return (
            None,
            *(g.masked_fill(unused, 0).sum_to_size(a.shape) for g, a in zip(grads, args, strict=True)),
        )


def _guarded(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def guarded(*args: Tensor) -> Tensor:
        if torch.is_grad_enabled() and any(a.requires_grad for a in args):
            return _Guarded.apply(f, *args)  # type: ignore[no-any-return,no-untyped-call]
        return f(*args)

    return guarded


def _floor_divide(x: Tensor, y: Tensor) -> Tensor:
    # The machine traps on x / 0 and on -2**63 / -1, so neither may reach the division.
    safe = torch.where((y == 0) | (y == -1), 1, y)
    quotient = torch.div(x, safe, rounding_mode="floor")
    return torch.where(y == 0, 0, torch.where(y == -1, -x, quotient))


def _modulo(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(y == 0, 0, x - _floor_divide(x, y) * y)


def _to_int(x: Tensor) -> Tensor:
    exact = x.detach().double().nan_to_num(nan=0.0, posinf=float("inf"), neginf=-float("inf"))
    return exact.trunc().clamp(INT32_MIN, INT32_MAX).long()


def _clamp(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.clamp(x, low, high)


#: float -> float or bool. torch's rules already give ties of min and max one half each, abs'(0) = 0, and 1
#: to a clamp at its bounds; adding, choosing and clamping never multiply a gradient, so need no guard.
FLOAT_OPS: dict[Op, Callable[..., Tensor]] = {
    Op.ADD: torch.add,
    Op.SUB: torch.sub,
    Op.NEG: torch.neg,
    Op.MUL: _guarded(torch.mul),
    Op.DIV: _guarded(torch.div),
    Op.ABS: _guarded(torch.abs),
    Op.EXP: _guarded(torch.exp),
    Op.LOG: _guarded(torch.log),
    Op.SQRT: _guarded(torch.sqrt),
    Op.RSQRT: _guarded(torch.rsqrt),
    Op.TANH: _guarded(torch.tanh),
    Op.SIGMOID: _guarded(torch.sigmoid),
    Op.SIN: _guarded(torch.sin),
    Op.COS: _guarded(torch.cos),
    Op.MIN: torch.minimum,
    Op.MAX: torch.maximum,
    Op.CLAMP: _clamp,
    Op.WHERE: torch.where,
    Op.LT: torch.lt,
    Op.LE: torch.le,
    Op.EQ: torch.eq,
    Op.NE: torch.ne,
    Op.TO_INT: _to_int,
}

#: int or bool -> int or bool; ints are int64.
INT_OPS: dict[Op, Callable[..., Tensor]] = {
    Op.ADD: torch.add,
    Op.SUB: torch.sub,
    Op.NEG: torch.neg,
    Op.MUL: torch.mul,
    Op.ABS: torch.abs,
    Op.FLOORDIV: _floor_divide,
    Op.MOD: _modulo,
    Op.MIN: torch.minimum,
    Op.MAX: torch.maximum,
    Op.CLAMP: _clamp,
    Op.WHERE: torch.where,
    Op.LT: torch.lt,
    Op.LE: torch.le,
    Op.EQ: torch.eq,
    Op.NE: torch.ne,
    Op.AND: torch.logical_and,
    Op.OR: torch.logical_or,
    Op.NOT: torch.logical_not,
}
