"""The backward for sm_90 on a GPU (fused, or of wide heads), beside the two Triton kernels and the reference.

    python benchmarks/hopper_backward_check.py check --specs all --dims 64,128

What no kernel has written yet is NaN. A line a spec says the largest relative errors (in the norm) of dq, dk
and dv against the reference, of both backwards, and of the learned inputs whose gradients come with them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from calls import CALLS, drawn, keywords, queries_and_keys, relative
from in_processes import main
from torch import Tensor

from attngen.pipeline import compile_spec
from attngen.spec_file import find_spec
from attngen.variant import Variant, build_variant

LIMIT = 1.2e-2  # of a gradient's error, over its norm, in bfloat16
MOST = 3.0  # times the two kernels' error: of a learned input's few numbers both are out's rounding, as noise


def gradients(
    call: Any, rows: Sequence[Tensor], learned: Mapping[str, Tensor], d_out: Tensor, d_lse: Tensor
) -> tuple[Tensor, ...]:
    """Those of q, k and v, the ``rows``, and of the learned inputs."""
    given = [x.detach().requires_grad_() for x in (*rows, *learned.values())]
    out, lse = call(*given[:3], return_lse=True, **dict(zip(learned, given[3:], strict=True)))
    return torch.autograd.grad((out, lse), given, (d_out.to(out.dtype), d_lse.to(lse.dtype)))


def one(spec: str, head_dim: int, v_dim: int, dtype: torch.dtype) -> str:
    """Check one spec at one head dimension; the line to print."""
    plan = compile_spec(find_spec(spec), backend="hopper").plan
    backend = plan.backend
    if backend.is_refused:
        return f"ok  {backend.reason}"
    torch.use_deterministic_algorithms(True)  # and with it, torch.empty is filled with NaN
    variant = build_variant(find_spec(spec), overrides={}, backend="hopper")
    without = build_variant(find_spec(spec), overrides={}, backend="triton")
    kind = "wide" if max(head_dim, v_dim) > 128 else "hopper"
    takes = getattr(variant.module, f"takes_{kind}_backward", None)  # wide heads may have Triton's alone
    taken, able = count_launches(variant, f"launch_{kind}_backward") if takes else [], 0
    gathers = plan.gathers_sums if kind == "hopper" else plan.gathers_in_wide
    learns = [x.input.name for x in plan.learned] if gathers else []
    asked = [bool(learns)] if takes and "learned" in inspect.signature(takes).parameters else []
    worst = {way: [0.0] * (3 + len(learns)) for way in ("gluon", "two kernels")}
    for number, sizes in enumerate(CALLS):
        torch.manual_seed(number)
        q, k, v = queries_and_keys(sizes, head_dim, v_dim, dtype)
        d_out = drawn(sizes.batch, sizes.heads, sizes.q_len, v_dim, dtype)
        d_lse = torch.randn(sizes.batch, sizes.heads, sizes.q_len, device="cuda")
        named = keywords(variant, q, k, v)
        learned = {name: named.pop(name) for name in learns}
        dense = backend.hopper.dense if backend.hopper else None
        beside = dense is None or variant.module.takes_dense(named[dense.input.name], q, k)
        able += bool(beside and takes and takes(q, k, v, d_out, q, k, v, *asked))
        ways = {"gluon": partial(variant, deterministic=False), "two kernels": without}
        found = {
            n: gradients(partial(way, **named), (q, k, v), learned, d_out, d_lse) for n, way in ways.items()
        }
        reference = partial(variant.reference, dtype=torch.float64, **named)
        expected = gradients(reference, [x.double() for x in (q, k, v)], learned, d_out, d_lse)
        for name, got in found.items():
            errors = map(relative, got, expected)
            worst[name] = [max(pair) for pair in zip(worst[name], errors, strict=True)]
    good = max(worst["gluon"][:3]) < max(LIMIT, 1.5 * max(worst["two kernels"][:3])) and len(taken) == able
    few = zip(worst["gluon"][3:], worst["two kernels"][3:], strict=True)
    good &= all(ours < max(LIMIT, MOST * theirs) for ours, theirs in few)
    numbers = "  ".join(f"{n} {' '.join(f'{e:.1e}' for e in errors)}" for n, errors in worst.items())
    return f"{'ok ' if good else 'BAD'} {numbers}  gluon {len(taken)} of {len(CALLS)}"


def count_launches(variant: Variant, name: str) -> list[None]:
    """Grows by an item at every call of this launcher of the module."""
    taken: list[None] = []
    module: Any = variant.module
    launch = getattr(module, name)

    def counted(*arguments: Any) -> None:
        taken.append(None)
        launch(*arguments)

    setattr(module, name, counted)
    return taken


if __name__ == "__main__":
    main(__doc__ or "", one, dims="64,128", limit=120.0)
