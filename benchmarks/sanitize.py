"""Small calls of a few variants, forward and backward, for compute-sanitizer to watch.

    compute-sanitizer --tool memcheck python benchmarks/sanitize.py
    compute-sanitizer --tool racecheck python benchmarks/sanitize.py

Torch's caching allocator hands out slices of large blocks, inside which an access out of bounds goes
unseen: PYTORCH_NO_CUDA_MEMORY_CACHING=1 gives each tensor an allocation of its own. On sm_90 every forward
here is Gluon's where the variant has one, and so is a backward of both kinds, deterministic or not. Each call
comes twice: the second repeats the first one's launches.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")

import torch

import attngen
from attngen.bench.inputs import plausible_inputs, plausible_params
from attngen.testing.reach import small_tiles

NAMES = ("causal", "gemma2_local", "packed_documents", "relative_table", "gpt_oss", "dropped", "dense_bias")
# Heads and lengths; of the last, an H200 takes fewer tiles of queries at once than there are.
SIZES = ((2, 1, 1), (2, 70, 133), (2, 300, 257), (48, 420, 257))


def call(name: str, head_dim: int, heads: int, q_len: int, k_len: int, deterministic: bool) -> None:
    variant = attngen.load(name)
    q, k, v = (
        torch.randn(1, n, length, head_dim, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for n, length in ((heads, q_len), (1, k_len), (1, k_len))
    )
    named = {**plausible_inputs(variant.ir, q, k, v), **plausible_params(variant.ir)}
    learned = [named[i.name].requires_grad_() for i in variant.ir.inputs if i.grad]
    with small_tiles(variant):
        for _ in range(2):
            found = variant(q, k, v, return_lse=variant.ir.is_softmax, deterministic=deterministic, **named)
            outputs = list(found) if variant.ir.is_softmax else [found]
            torch.autograd.grad(outputs, [q, k, v, *learned], [torch.randn_like(x) for x in outputs])
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("specs", nargs="*", default=NAMES)
    parser.add_argument("--head-dim", type=int, default=64)
    options = parser.parse_args()
    for name in options.specs:
        for sizes in SIZES:
            for deterministic in (False, True):
                call(name, options.head_dim, *sizes, deterministic)
            print(f"{name} D{options.head_dim} H{sizes[0]} {sizes[1]} x {sizes[2]}: ran", flush=True)


if __name__ == "__main__":
    main()
