"""Small calls of five variants, forward and backward, for compute-sanitizer to watch.

    compute-sanitizer --tool memcheck python benchmarks/sanitize.py
    compute-sanitizer --tool racecheck python benchmarks/sanitize.py

Torch's caching allocator hands out slices of large blocks, inside which an access out of bounds goes
unseen: PYTORCH_NO_CUDA_MEMORY_CACHING=1 gives each tensor an allocation of its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")

import torch

import attngen
from attngen.bench.inputs import plausible_inputs, plausible_params

NAMES = ("causal", "gemma2_local", "packed_documents", "relative_table", "gpt_oss")
LENGTHS = ((1, 1), (70, 133))


def call(name: str, q_len: int, k_len: int) -> None:
    variant = attngen.load(name)
    q, k, v = (
        torch.randn(1, heads, length, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for heads, length in ((2, q_len), (1, k_len), (1, k_len))
    )
    named = {**plausible_inputs(variant.ir, q, k, v), **plausible_params(variant.ir)}
    learned = [named[i.name].requires_grad_() for i in variant.ir.inputs if i.grad]
    found = variant(q, k, v, return_lse=variant.ir.is_softmax, **named)
    outputs = list(found) if variant.ir.is_softmax else [found]
    torch.autograd.grad(outputs, [q, k, v, *learned], [torch.randn_like(x) for x in outputs])
    torch.cuda.synchronize()


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        for lengths in LENGTHS:
            call(name, *lengths)
            print(f"{name} {lengths[0]} x {lengths[1]}: ran", flush=True)


if __name__ == "__main__":
    main()
