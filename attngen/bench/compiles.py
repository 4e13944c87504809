"""How many kernels Triton has compiled for a module: lengths and params must not add to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from triton.runtime.jit import JITFunction

from attngen.bench.inputs import other_params, plausible_inputs, plausible_params
from attngen.ir.types import Scalar
from attngen.runtime.loader import load_module
from attngen.variant import Variant

LENGTHS = (100, 1, 100, 128, 129)


def compiled(module: ModuleType) -> dict[str, int]:
    """The number of binaries that each kernel of a module has in this process."""
    kernels = {name: x for name, x in vars(module).items() if isinstance(x, JITFunction)}
    return {
        name: sum(len(held[0]) for held in kernel.device_caches.values()) for name, kernel in kernels.items()
    }


@dataclass(frozen=True)
class Step:
    """One call, forward and backward, and what it added to the binaries of each kernel."""

    call: str
    added: dict[str, int]


def compiles_over_lengths(
    variant: Variant,
    *,
    lengths: Sequence[int] = LENGTHS,
    head_dim: int = 64,
    dtype: torch.dtype = torch.bfloat16,
    through_lse: bool = True,
) -> list[Step]:
    """Call ``variant`` at each length, then with other params; the first call compiles, the others must not.

    The gradient flows through out and, with ``through_lse``, through the log-sum-exp too. Needs CUDA.
    """
    module = load_module(variant.path)
    params = plausible_params(variant.ir)
    steps = []

    def step(name: str, q_len: int, k_len: int, params: dict[str, Scalar]) -> None:
        before = compiled(module)
        _call(variant, q_len, k_len, head_dim, dtype, params, through_lse)
        after = compiled(module)
        added = {kernel: after[kernel] - before.get(kernel, 0) for kernel in after}
        steps.append(Step(name, {kernel: n for kernel, n in added.items() if n}))

    for length in lengths:
        step(f"length {length}", length, length, params)
    step(f"lengths {lengths[0]} and {lengths[-1]}", lengths[0], lengths[-1], params)
    if changed := other_params(variant.ir, params):
        step(
            ", ".join(f"{name}={value:g}" for name, value in changed.items()), lengths[0], lengths[0], changed
        )
    return steps


def _call(
    variant: Variant,
    q_len: int,
    k_len: int,
    head_dim: int,
    dtype: torch.dtype,
    params: dict[str, Scalar],
    through_lse: bool,
) -> None:
    def leaf(heads: int, length: int) -> torch.Tensor:
        return torch.randn(2, heads, length, head_dim, device="cuda", dtype=dtype, requires_grad=True)

    q, k, v = leaf(4, q_len), leaf(2, k_len), leaf(2, k_len)
    keywords: dict[str, Any] = {**plausible_inputs(variant.ir, q, k, v), **params}
    found: Any = variant(q, k, v, return_lse=variant.ir.is_softmax, **keywords)
    both: list[torch.Tensor] = list(found) if variant.ir.is_softmax else [found]
    outputs = both if through_lse else both[:1]
    torch.autograd.grad(outputs, [q, k, v], [torch.randn_like(x) for x in outputs])
