"""Small calls of a few variants, forward and backward, for compute-sanitizer to watch.

    python benchmarks/sanitize.py --tool memcheck
    python benchmarks/sanitize.py --tool racecheck

Without --tool the calls run as they are. With racecheck, what it reports of two hand-overs is told from all
else (benchmarks/hazards.py says which, and why): any other hazard fails the run.

Torch's caching allocator hands out slices of large blocks, inside which an access out of bounds goes
unseen: PYTORCH_NO_CUDA_MEMORY_CACHING=1 gives each tensor an allocation of its own. On sm_90 every forward
here is Gluon's where the variant has one, and so is a backward of both kinds, deterministic or not. Each call
comes twice: the second repeats the first one's launches.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")

import torch
from hazards import Cut, function_at, handed_over, hazards_in, order_of

import attngen
from attngen.bench.inputs import plausible_inputs, plausible_params
from attngen.testing.reach import small_tiles

NAMES = ("causal", "gemma2_local", "packed_documents", "relative_table", "gpt_oss", "dropped", "dense_bias")
# Heads, queries and keys; of the last, an H200 takes fewer tiles of queries at once than there are.
SIZES = "2x1x1,2x70x133,2x300x257,48x420x257"
FIRST = 8  # hazards printed in full


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


def watched(tool: str, specs: list[str], options: list[str]) -> int:
    """The calls under compute-sanitizer, in a process of their own; what it exits with."""
    with tempfile.TemporaryDirectory(prefix="attngen-") as folder:
        log = Path(folder, "log")
        command = ["compute-sanitizer", "--tool", tool, "--log-file", str(log)]
        if tool == "racecheck":
            command += ["--racecheck-report", "hazard", "--print-limit", "0", "--show-backtrace", "no"]
        command += [sys.executable, __file__, *specs, *options]
        code = subprocess.run(command, env={**os.environ, "TRITON_CACHE_DIR": folder}, check=False).returncode
        text = log.read_text() if log.exists() else ""
        if code:
            print(text[-4000:])
            return code
        if tool != "racecheck":
            print(text)
            return int("ERROR SUMMARY: 0 errors" not in text)
        return judged(text, specs, Path(folder))


def judged(log: str, specs: list[str], cache: Path) -> int:
    """Prints how many of a log's hazards are of which order, and those of none; 1 where there are any."""
    modules = [Path(attngen.load(name).path) for name in specs]
    sources = {path.name: path.read_text() for path in modules}
    areas: dict[str, list[range]] = {}
    for path in cache.rglob("*.ptx"):
        areas.setdefault(path.stem, []).extend(handed_over(path.read_text()))
    try:
        found = hazards_in(log)
    except Cut as error:
        print(f"racecheck: {error}")
        return 1
    places = {(a.file, a.line) for h in found for a in (h.first, h.second)}
    functions = {at: function_at(sources[at[0]], at[1]) if at[0] in sources else "" for at in places}
    orders = [(order_of(h, areas, lambda file, line: functions[file, line]), h) for h in found]
    others = [h for order, h in orders if order is None]
    for (kernel, order), count in sorted(Counter((h.first.kernel, o) for o, h in orders if o).items()):
        print(f"{kernel}: {count} hazards of {order}, which are ordered")
    for hazard in others[:FIRST]:
        print(hazard)
    print(
        f"racecheck: {len(others)} hazards of unknown order, {len(found) - len(others)} known to be ordered"
    )
    return int(bool(others))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("specs", nargs="*", default=NAMES)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--sizes", default=SIZES, help="of calls, as the default: %(default)s")
    parser.add_argument("--tool", choices=("memcheck", "racecheck"), help="run under compute-sanitizer's")
    options = parser.parse_args()
    if options.tool:
        own = ["--head-dim", str(options.head_dim), "--sizes", options.sizes]
        sys.exit(watched(options.tool, list(options.specs), own))
    for name in options.specs:
        for sizes in ([int(n) for n in text.split("x")] for text in options.sizes.split(",")):
            for deterministic in (False, True):
                call(name, options.head_dim, *sizes, deterministic)
            print(f"{name} D{options.head_dim} H{sizes[0]} {sizes[1]} x {sizes[2]}: ran", flush=True)


if __name__ == "__main__":
    main()
