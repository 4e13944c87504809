"""The forward for sm_90 on a GPU, beside the Triton kernel and the reference.

    python benchmarks/hopper_check.py check --specs all --dims 64,128,256

Outputs begin as NaN. A line a spec says the largest errors of out (relative, in the norm) and lse against the
reference in float32, and the same of the Triton kernel beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from calls import CALLS, Sizes, keywords, queries_and_keys, relative
from in_processes import main

from attngen.pipeline import compile_spec
from attngen.spec_file import find_spec
from attngen.testing.reach import small_tiles
from attngen.variant import build_variant

MANY_HEADS = Sizes(2, 48, 4, 420, 650)

OUT_LIMIT, LSE_LIMIT = 8e-3, 4e-3


def distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """The largest difference of two log-sum-exps; infinite where only one of them is."""
    same = (x == y) | (x.isfinite() & y.isfinite())
    return float(torch.where(x == y, 0.0, (x - y).abs()).max()) if bool(same.all()) else float("inf")


def one(spec: str, head_dim: int, v_dim: int, dtype: torch.dtype) -> str:
    """Check one spec at one head dimension; the line to print."""
    backend = compile_spec(find_spec(spec), backend="hopper").plan.backend
    if backend.is_refused:
        return f"ok  {backend.reason}"
    torch.use_deterministic_algorithms(True)  # and with it, torch.empty is filled with NaN
    hopper, plain = (build_variant(find_spec(spec), overrides={}, backend=b) for b in ("hopper", "triton"))
    worst = {name: [0.0, 0.0] for name in ("hopper", "triton")}
    again = True
    for number, sizes in enumerate([MANY_HEADS, *CALLS]):
        torch.manual_seed(number)
        q, k, v = queries_and_keys(sizes, head_dim, v_dim, dtype)
        named = keywords(hopper, q, k, v)
        assert hopper.module.takes_hopper(q, k, v), "the forward for sm_90 is not taken"
        with small_tiles(hopper):  # short calls would be Triton's
            out, lse = hopper(q, k, v, return_lse=True, **named)
            others = [hopper(q, k, v, return_lse=True, **named) for _ in range(3)]
        again &= all(torch.equal(out, o) and torch.equal(lse, other) for o, other in others)
        expected = hopper.reference(q, k, v, return_lse=True, dtype=torch.float32, **named)
        for name, got in (("hopper", (out, lse)), ("triton", plain(q, k, v, return_lse=True, **named))):
            errors = relative(got[0], expected[0]), distance(got[1], expected[1])
            worst[name] = [max(pair) for pair in zip(worst[name], errors, strict=True)]
    good = worst["hopper"][0] < OUT_LIMIT and worst["hopper"][1] < LSE_LIMIT and again
    numbers = "  ".join(f"{n} out {a:.1e} lse {b:.1e}" for n, (a, b) in worst.items())
    return f"{'ok ' if good else 'BAD'} {numbers}{'' if again else '  DIFFERS FROM CALL TO CALL'}"


if __name__ == "__main__":
    main(__doc__ or "", one, dims="64,128,256", limit=90.0)
