"""A check of many specs on a GPU, each in a process of its own, which ends after a while.

A kernel whose warps wait for each other would never come back, and a bad address spoils its whole process. A
script that calls ``main`` checks one spec as ``SCRIPT one SPEC HEAD_DIM V_DIM DTYPE``, and many as ``SCRIPT
check``, a line each, which begins with ok or BAD.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from attngen.spec_file import zoo_names

Check = Callable[[str, int, int, torch.dtype], str]  # a spec at one head dimension, v_dim and dtype: its line


def main(doc: str, one: Check, *, dims: str, limit: float) -> None:
    """The command line; ``dims`` and ``limit``, seconds a process, are defaults. Exits with 1 for a BAD."""
    if sys.argv[1:2] == ["one"]:
        spec, head_dim, v_dim, dtype = sys.argv[2:]
        print(one(spec, int(head_dim), int(v_dim), getattr(torch, dtype)))
        return
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    checked = parser.add_subparsers(dest="command", required=True).add_parser("check")
    checked.add_argument("--specs", default="all")
    checked.add_argument("--dims", default=dims, help="head_dim or head_dim:v_dim, comma-separated")
    checked.add_argument("--dtypes", default="bfloat16")
    checked.add_argument("--limit", type=float, default=limit, help="seconds a process may take")
    checked.add_argument("--workers", type=int, default=8)
    options = parser.parse_args()
    specs = zoo_names() if options.specs == "all" else options.specs.split(",")
    pairs = [(int(d.split(":")[0]), int(d.split(":")[-1])) for d in options.dims.split(",")]
    jobs = [(s, *pair, dtype) for s in specs for pair in pairs for dtype in options.dtypes.split(",")]
    sys.exit(bool(_failed(jobs, options.limit, options.workers)))


def _failed(jobs: Sequence[tuple[str, int, int, str]], limit: float, workers: int) -> int:
    """Check each in its own process; how many failed."""

    def run(job: tuple[str, int, int, str]) -> str:
        command = [sys.executable, sys.argv[0], "one", *map(str, job)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return f"BAD not done after {limit:.0f} s"
        if done.returncode:
            lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
            return f"BAD {lines[-1][:300] if lines else f'exit status {done.returncode}'}"
        return done.stdout.strip().splitlines()[-1]

    failed = 0
    with ThreadPoolExecutor(workers) as pool:
        for (spec, head_dim, v_dim, dtype), line in zip(jobs, pool.map(run, jobs), strict=True):
            failed += not line.startswith("ok")
            print(f"{spec:20} D{head_dim:<3} Dv{v_dim:<3} {dtype:8} {line}", flush=True)
    print(f"{len(jobs) - failed} of {len(jobs)} good", flush=True)
    return failed
