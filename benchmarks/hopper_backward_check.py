"""The fused backward for sm_90 on a GPU: beside the two Triton kernels and the reference, then timed.

    python benchmarks/hopper_backward_check.py check --specs all --dims 64,128
    python benchmarks/hopper_backward_check.py time --rows full,causal,softcap --peers triton,cudnn

``check`` runs each spec in a process of its own and ends it after ``--limit`` seconds: a kernel whose warps
wait for each other would never come back. What no kernel has written yet is NaN. A line a spec says the
largest relative errors (in the norm) of dq, dk and dv against the reference, of both backwards.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from attngen.bench.inputs import plausible_inputs, plausible_params
from attngen.bench.peers import PEERS, Case, make_case
from attngen.bench.rows import ROWS, SHAPES, Row, Shape, kept_scores
from attngen.bench.timing import clock_of, race
from attngen.pipeline import compile_spec
from attngen.spec_file import find_spec, zoo_names
from attngen.variant import Variant, build_variant

# batch, heads, key heads, q_len, k_len
CALLS = [
    (2, 4, 2, 1000, 1000),
    (1, 6, 1, 517, 1303),
    (3, 2, 2, 130, 77),
    (1, 2, 1, 1, 2000),
    (1, 2, 1, 4096, 4096),
]

LIMIT = 1.2e-2  # of a gradient's error, over its norm, in bfloat16


def relative(x: Tensor, y: Tensor) -> float:
    """|x - y| / |y| in the norm; infinite for NaN."""
    error = float((x.double() - y.double()).norm() / y.double().norm().clamp_min(1e-20))
    return error if error == error else float("inf")


def gradients(call: Any, q: Tensor, k: Tensor, v: Tensor, d_out: Tensor, d_lse: Tensor) -> tuple[Tensor, ...]:
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    out, lse = call(q, k, v, return_lse=True)
    return torch.autograd.grad((out, lse), (q, k, v), (d_out.to(out.dtype), d_lse.to(lse.dtype)))


def one(spec: str, head_dim: int, v_dim: int, dtype: torch.dtype) -> str:
    """Check one spec at one head dimension; the line to print."""
    backend = compile_spec(find_spec(spec), backend="hopper").plan.backend
    if backend.is_refused:
        return f"ok  {backend.reason}"
    torch.use_deterministic_algorithms(True)  # and with it, torch.empty is filled with NaN
    variant = build_variant(find_spec(spec), overrides={}, backend="hopper")
    taken, able = count_fused(variant), 0
    worst = {"fused": [0.0] * 3, "two kernels": [0.0] * 3}
    for number, (batch, heads, kv_heads, q_len, k_len) in enumerate(CALLS):
        torch.manual_seed(number)

        def drawn(n: int, length: int, width: int, batch: int = batch) -> Tensor:
            return torch.randn(batch, length, n, width, device="cuda", dtype=dtype).transpose(1, 2)

        q, d_out = drawn(heads, q_len, head_dim), drawn(heads, q_len, v_dim)
        k, v = drawn(kv_heads, k_len, head_dim), drawn(kv_heads, k_len, v_dim)
        d_lse = torch.randn(batch, heads, q_len, device="cuda")
        named: dict[str, Any] = {**plausible_inputs(variant.ir, q, k, v), **plausible_params(variant.ir)}
        named |= {"seed": 7} if variant.ir.dropout is not None else {}
        given = q, k, v, d_out, d_lse
        dense = backend.hopper.dense if backend.hopper else None
        beside = dense is None or variant.module.takes_dense(named[dense.input.name], q, k)
        able += bool(beside and variant.module.takes_hopper_backward(q, k, v, d_out, q, k, v))
        ways = {"fused": False, "two kernels": True}
        found = {n: gradients(partial(variant, deterministic=d, **named), *given) for n, d in ways.items()}
        reference = partial(variant.reference, dtype=torch.float64, **named)
        expected = gradients(reference, *(x.double() for x in given))
        for name, got in found.items():
            errors = map(relative, got, expected)
            worst[name] = [max(pair) for pair in zip(worst[name], errors, strict=True)]
    good = max(worst["fused"]) < max(LIMIT, 1.5 * max(worst["two kernels"])) and len(taken) == able
    numbers = "  ".join(f"{n} {' '.join(f'{e:.1e}' for e in errors)}" for n, errors in worst.items())
    return f"{'ok ' if good else 'BAD'} {numbers}  fused {len(taken)} of {len(CALLS)}"


def count_fused(variant: Variant) -> list[None]:
    """Grows by an item at every launch of the fused backward."""
    taken: list[None] = []
    module: Any = variant.module
    launch = module.launch_hopper_backward

    def counted(*arguments: Any) -> None:
        taken.append(None)
        launch(*arguments)

    module.launch_hopper_backward = counted
    return taken


def check(
    specs: list[str], dims: list[tuple[int, int]], dtypes: list[str], limit: float, workers: int
) -> int:
    """Check each in its own process; how many failed."""

    def run(job: tuple[str, tuple[int, int], str]) -> tuple[str, str]:
        spec, (head_dim, v_dim), dtype = job
        name = f"{spec:20} D{head_dim:<3} Dv{v_dim:<3} {dtype:8}"
        command = [sys.executable, __file__, "one", spec, str(head_dim), str(v_dim), dtype]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return name, f"BAD not done after {limit:.0f} s"
        if done.returncode:
            lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
            return name, f"BAD {lines[-1][:300] if lines else f'exit status {done.returncode}'}"
        return name, done.stdout.strip().splitlines()[-1]

    jobs = [(s, d, t) for s in specs for d in dims for t in dtypes]
    failed = 0
    with ThreadPoolExecutor(workers) as pool:
        for name, line in pool.map(run, jobs):
            failed += not line.startswith("ok")
            print(name, line, flush=True)
    print(f"{len(jobs) - failed} of {len(jobs)} good", flush=True)
    return failed


def prepared(row: Row, shape: Shape, peers: list[str]) -> tuple[Variant, Case, dict[str, Any]]:
    """The row's variant and tensors, and the backward of each peer, whose forward has run."""
    case = make_case(row, shape, torch.bfloat16, torch.device("cuda"))
    variant = build_variant(find_spec(row.spec), overrides=dict(row.consts), backend="hopper")
    calls: dict[str, Any] = {"fused": partial(variant, **case.keywords)}
    for peer in peers:
        if peer == "triton":
            calls[peer] = partial(variant, deterministic=True, **case.keywords)
        elif not PEERS[peer].refuses(row):
            calls[peer] = PEERS[peer].prepare(case)
    tensors = (case.q, case.k, case.v)
    grad = torch.autograd.grad
    outs = {name: call(*tensors) for name, call in calls.items()}
    backward = {n: partial(grad, out, tensors, case.d_out, retain_graph=True) for n, out in outs.items()}
    return variant, case, backward


def warm(rows: list[str], shapes: list[str], peers: list[str]) -> None:
    """Compile what will be timed, into the caches, many at a time."""

    def run(job: tuple[str, str]) -> None:
        command = [sys.executable, __file__, "warm", *job, ",".join(peers)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            print(*job, done.stderr.strip().splitlines()[-1][:300], flush=True)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(run, [(row, shape) for row in rows for shape in shapes]))


def time_rows(rows: list[str], shapes: list[str], peers: list[str]) -> None:
    """Backward times, taking turns: TFLOP/s of five products over the scores that the mask keeps."""
    warm(rows, shapes, [p for p in peers if p != "cudnn"])
    device = torch.device("cuda")
    for shape in (SHAPES[name] for name in shapes):
        for row in (ROWS[name] for name in rows):
            variant, case, backward = prepared(row, shape, peers)
            scores = kept_scores(variant.ir, case.shape, case.inputs, row.params, device)
            made = race(backward, clock_of(device))
            cells = [f"{n} {10 * scores * shape.head_dim / ms * 1e-9:4.0f}" for n, ms in made.ms.items()]
            cells += [f"{name} {type(error).__name__}" for name, error in made.failed.items()]
            print(f"{shape.name:5} {row.name:10} " + "  ".join(cells), flush=True)


def main() -> None:
    if sys.argv[1:2] == ["one"]:
        spec, head_dim, v_dim, dtype = sys.argv[2:]
        print(one(spec, int(head_dim), int(v_dim), getattr(torch, dtype)))
        return
    if sys.argv[1:2] == ["warm"]:
        row, shape, peers = sys.argv[2:]
        for call in prepared(ROWS[row], SHAPES[shape], [p for p in peers.split(",") if p])[2].values():
            call()
        torch.cuda.synchronize()
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    checked = commands.add_parser("check")
    checked.add_argument("--specs", default="all")
    checked.add_argument("--dims", default="64,128", help="head_dim or head_dim:v_dim, comma-separated")
    checked.add_argument("--dtypes", default="bfloat16")
    checked.add_argument("--limit", type=float, default=120.0, help="seconds a process may take")
    checked.add_argument("--workers", type=int, default=8)
    timed = commands.add_parser("time")
    timed.add_argument("--rows", default="full,causal")
    timed.add_argument("--shapes", default="d128,d64")
    timed.add_argument("--peers", default="triton,cudnn")
    options = parser.parse_args()
    if options.command == "check":
        specs = zoo_names() if options.specs == "all" else options.specs.split(",")
        dims = [(int(d.split(":")[0]), int(d.split(":")[-1])) for d in options.dims.split(",")]
        sys.exit(bool(check(list(specs), dims, options.dtypes.split(","), options.limit, options.workers)))
    time_rows(options.rows.split(","), options.shapes.split(","), options.peers.split(","))


if __name__ == "__main__":
    main()
