"""When a kernel's result is right: the criterion of FlashAttention's tests, repaired.

``ref`` is the reference in float64, ``base`` the dense maths as PyTorch runs it in the tensors' dtype:

    max|x - ref|  <= f * max|base - ref| + floor           f = 2, or 3 (see below)
    mean|x - ref| <= F * mean|base - ref| + floor / 4      F = 1.5 for 16-bit tensors of 4096 elements, else 3
    floor = 2 * max|(ref + 0.3 - 0.3) - ref| in that dtype + (2**-21 + 2**-23 * max|s|) * A + W

f is 3 where the score amplifies errors, and for fewer than 16 elements, whose mean is held to the first
bound too: there the baseline's error is a matter of luck. A is the size of what was summed. Without it a
correct kernel fails where the true value is 0 and the baseline exact; in float32 the baseline is as good as
any kernel. The weights are exp(s - lse) of float32 scores, so their relative error grows with the largest
kept score. W is what the rounding of ``out`` alone may do to a gradient: a kernel that keeps only out and
lse takes delta = rowsum(dO * O) from the rounded out. The baseline does so too, but where a gradient has
few elements its error may be 0 by luck. In float32, where the score amplifies errors, W is also what the
rounding of q and k's products may do: one score on a softcap's slope, among others that are all capped,
decides the largest error, and the baseline's may be rounded well by luck. NaN never passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attngen.analysis.homogeneous import degree_of
from attngen.ir.nodes import AttentionIR, Expr, Op, leaves, postorder
from attngen.ir.types import Type

_LARGE = 4096  # elements from which a mean is steady enough for the tighter factor
_FEW = 16  # elements below which a largest error is not
_INF = float("inf")


@dataclass(frozen=True)
class Verdict:
    """How one tensor fared. ``ratio`` is error over bound, the worse of max and mean; 1 is the limit.

    ``unknown`` elements are NaN in the reference itself.
    """

    name: str
    ratio: float
    error: float
    bound: float
    mean_error: float
    mean_bound: float
    worst: tuple[int, ...]  # the index of the largest error
    got: float
    expected: float
    unknown: int = 0

    @property
    def passed(self) -> bool:
        return self.ratio <= 1.0  # False for NaN


def compare(
    name: str,
    x: Tensor,
    ref: Tensor,
    base: Tensor,
    dtype: torch.dtype,
    size: float,
    scores: float,
    amplified: bool,
    rounding: float = 0.0,
) -> Verdict:
    """Judge ``x`` against ``ref`` (float64), of ``dtype``.

    ``size`` is A, ``scores`` max|s| and ``rounding`` W.
    """
    ref, base, got = ref.detach().double(), base.detach().double(), x.detach().double()
    rounded = ref.to(dtype)
    wobble = _largest(((rounded + 0.3 - 0.3) - rounded).double().abs().nan_to_num(0.0, 0.0, 0.0))
    floor = 2 * wobble + (2.0**-21 + 2.0**-23 * scores) * size + rounding
    # A true value beyond the dtype's range may come back as infinity: both sides stop at its largest number.
    top = torch.finfo(dtype).max
    ref, base, stopped = (t.clamp(-top, top) for t in (ref, base, got))
    error = (stopped - ref).abs()
    # Where the baseline itself is not finite it grants nothing.
    base_error = (base - ref).abs().nan_to_num(0.0, 0.0, 0.0)
    mean_factor = 1.5 if dtype.itemsize == 2 and ref.numel() >= _LARGE else 3.0
    factor = 3.0 if amplified or ref.numel() < _FEW else 2.0
    bound = factor * _largest(base_error) + floor
    mean_bound = bound if ref.numel() < _FEW else mean_factor * _mean(base_error) + floor / 4
    return _verdict(name, error, bound, mean_bound, got, ref)


def compare_lse(name: str, x: Tensor, ref: Tensor, scores: float, approximate_tanh: bool) -> Verdict:
    """Judge a log-sum-exp; ``scores`` is the largest absolute kept score. -inf must be met exactly."""
    got, ref = x.detach().double(), ref.detach().double()
    bound = 3e-3 + 2.0**-20 * scores + (2.0**-11 * scores if approximate_tanh else 0.0)
    error = torch.where(got == ref, 0.0, (got - ref).abs())  # inf - inf would be NaN
    return _verdict(name, error, bound, bound, got, ref)


def compare_zero(name: str, x: Tensor, where: Tensor) -> Verdict:
    """Judge that ``x`` (..., R, D) is exactly 0 in the rows that keep nothing: ``where`` (..., R) is True."""
    got = x.detach().double()
    error = torch.where(where[..., None] & (got != 0), _INF, 0.0)
    return _verdict(name, error, 1.0, 1.0, got, torch.zeros_like(got))


def _verdict(name: str, error: Tensor, bound: float, mean_bound: float, got: Tensor, ref: Tensor) -> Verdict:
    if error.numel() == 0:
        return Verdict(name, 0.0, 0.0, bound, 0.0, mean_bound, (), 0.0, 0.0)
    error = error.nan_to_num(nan=_INF, posinf=_INF)
    largest, mean = _largest(error), _mean(error)
    flat = int(error.argmax())
    worst = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), error.shape))
    ratio = max(_ratio(largest, bound), _ratio(mean, mean_bound))
    return Verdict(
        name,
        ratio,
        largest,
        bound,
        mean,
        mean_bound,
        worst,
        got.reshape(-1)[flat].item(),
        ref.reshape(-1)[flat].item(),
        int(ref.isnan().sum()),
    )


def _ratio(error: float, bound: float) -> float:
    if error == 0.0:
        return 0.0
    return error / bound if bound > 0.0 else _INF


def _largest(x: Tensor) -> float:
    return float(x.max()) if x.numel() else 0.0


def _mean(x: Tensor) -> float:
    return float(x.mean()) if x.numel() else 0.0


# Ops that pass an error on as it is, or less: anything else done to the score may enlarge it.
_FAITHFUL = {Op.ADD, Op.SUB, Op.NEG, Op.ABS, Op.MIN, Op.MAX, Op.CLAMP, Op.WHERE}


def amplifies(ir: AttentionIR) -> bool:
    """Whether the score bends the dot product (softcap, a square), rather than scale and shift it; or the
    weight clause the weights."""
    if ir.weight is not None and degree_of(ir.weight) != 1:
        return True
    of_score: set[Expr] = set()
    for node in postorder(ir.final_score):
        touched = [arg in of_score for arg in node.args]
        if node.op in (Op.SCORE, Op.DOT) or any(touched):
            of_score.add(node)
        if not any(touched) or node.type is not Type.FLOAT or node.op in _FAITHFUL:
            continue
        scaled = (node.op is Op.MUL and touched.count(True) == 1) or (node.op is Op.DIV and not touched[1])
        if not scaled:
            return True
    return False


def has_tanh(ir: AttentionIR) -> bool:
    return any(True for _ in leaves(ir.final_score, op=Op.TANH))
