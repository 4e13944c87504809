"""The forward for sm_90 on a GPU: beside the Triton kernel and the reference, then timed beside its peers.

    python benchmarks/hopper_check.py check --specs all --dims 64,128,256
    python benchmarks/hopper_check.py time --rows full,causal,softcap --shapes d128 --peers triton,cudnn

``check`` runs each spec in a process of its own and ends it after ``--limit`` seconds: a kernel whose warps
wait for each other would never come back. Outputs begin as NaN. A line a spec says the largest errors of out
(relative, in the norm) and lse against the reference in float32, and the same of the Triton kernel beside it.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from attngen.bench.inputs import plausible_inputs, plausible_params
from attngen.bench.peers import PEERS, Case, make_case
from attngen.bench.rows import ROWS, SHAPES, Row, Shape, forward_work, kept_scores
from attngen.bench.timing import clock_of, race
from attngen.pipeline import compile_spec
from attngen.spec_file import find_spec, zoo_names
from attngen.variant import build_variant

# batch, heads, key heads, q_len, k_len
CALLS = [(2, 4, 2, 1000, 1000), (1, 6, 1, 517, 1303), (3, 2, 2, 130, 77), (1, 2, 1, 1, 2000)]
LONG = (1, 2, 1, 4096, 4096)

OUT_LIMIT, LSE_LIMIT = 8e-3, 4e-3


def relative(x: torch.Tensor, y: torch.Tensor) -> float:
    """|x - y| / |y| in the norm."""
    return float((x.float() - y.float()).norm() / y.float().norm().clamp_min(1e-20))


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
    for number, (batch, heads, kv_heads, q_len, k_len) in enumerate([*CALLS, LONG]):
        torch.manual_seed(number)

        def drawn(n: int, length: int, width: int, batch: int = batch) -> torch.Tensor:
            return torch.randn(batch, length, n, width, device="cuda", dtype=dtype).transpose(1, 2)

        q, k, v = (
            drawn(heads, q_len, head_dim),
            drawn(kv_heads, k_len, head_dim),
            drawn(kv_heads, k_len, v_dim),
        )
        seed = {"seed": 7} if hopper.ir.dropout is not None else {}
        named: dict[str, Any] = {
            **plausible_inputs(hopper.ir, q, k, v),
            **plausible_params(hopper.ir),
            **seed,
        }
        assert hopper.module.takes_hopper(q, k, v), "the forward for sm_90 is not taken"
        out, lse = hopper(q, k, v, return_lse=True, **named)
        others = [hopper(q, k, v, return_lse=True, **named) for _ in range(3)]
        again &= all(torch.equal(out, o) and torch.equal(lse, other) for o, other in others)
        expected = hopper.reference(q, k, v, return_lse=True, dtype=torch.float32, **named)
        for name, got in (("hopper", (out, lse)), ("triton", plain(q, k, v, return_lse=True, **named))):
            errors = relative(got[0], expected[0]), distance(got[1], expected[1])
            worst[name] = [
                max(a, b) if b == b else float("inf") for a, b in zip(worst[name], errors, strict=True)
            ]
    good = worst["hopper"][0] < OUT_LIMIT and worst["hopper"][1] < LSE_LIMIT and again
    numbers = "  ".join(f"{n} out {a:.1e} lse {b:.1e}" for n, (a, b) in worst.items())
    return f"{'ok ' if good else 'BAD'} {numbers}{'' if again else '  DIFFERS FROM CALL TO CALL'}"


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


def row_of(name: str) -> Row:
    """The bench's row of this name, or the zoo's spec as it stands, with plausible inputs."""

    def inputs(shape: Shape, device: torch.device) -> dict[str, torch.Tensor]:
        q, k = (torch.empty(sizes, device=device, dtype=torch.bfloat16) for sizes in (shape.q, shape.k))
        return plausible_inputs(build_variant(find_spec(name), overrides={}).ir, q, k, k)

    return ROWS.get(name) or Row(name, name, name, inputs=inputs)


def hopper_call(row: Row, shape: Shape, tiles: dict[int, tuple[Any, ...]]) -> tuple[Case, Any]:
    """The row's tensors, and its call with these tiles in place of the table's."""
    case = make_case(row, shape, torch.bfloat16, torch.device("cuda"))
    variant = build_variant(find_spec(row.spec), overrides=dict(row.consts), backend="hopper")
    table = variant.module.HOPPER_TILES

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        before = dict(table)
        table.update(tiles)
        try:
            return variant(q, k, v, **case.keywords)
        finally:
            table.update(before)

    return case, call


def warm(rows: list[str], shapes: list[str], tables: list[dict[int, tuple[Any, ...]]]) -> None:
    """Compile what will be timed, into Triton's cache, many at a time."""

    def run(job: tuple[str, str, dict[int, tuple[Any, ...]]]) -> None:
        row, shape, tiles = job
        command = [sys.executable, __file__, "warm", row, shape, repr(tiles)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            print(row, shape, tiles, done.stderr.strip().splitlines()[-1][:300], flush=True)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(run, [(r, s, t) for r in rows for s in shapes for t in tables]))


def time(
    rows: list[str], shapes: list[str], peers: list[str], tables: list[dict[int, tuple[Any, ...]]]
) -> None:
    """Forward times, taking turns: TFLOP/s over the scores that the mask keeps."""
    warm(rows, shapes, tables)
    device = torch.device("cuda")
    for shape in (SHAPES[name] for name in shapes):
        for row in map(row_of, rows):
            calls: dict[str, Any] = {}
            for number, tiles in enumerate(tables):
                case, calls[f"hopper{number or ''}"] = hopper_call(row, shape, tiles)
            plain = build_variant(find_spec(row.spec), overrides=dict(row.consts), backend="triton")
            for peer in peers:
                if peer == "triton":
                    calls[peer] = partial(plain, **case.keywords)
                elif not PEERS[peer].refuses(row):
                    calls[peer] = PEERS[peer].prepare(case)
            scores = kept_scores(plain.ir, case.shape, case.inputs, row.params, device)
            work = forward_work(scores, shape.head_dim)
            q, k, v = (x.detach() for x in (case.q, case.k, case.v))
            with torch.no_grad():
                made = race({name: partial(call, q, k, v) for name, call in calls.items()}, clock_of(device))
            cells = [f"{name} {work / ms * 1e-9:4.0f}" for name, ms in made.ms.items()]
            cells += [f"{name} {type(error).__name__}" for name, error in made.failed.items()]
            print(f"{shape.name:5} {row.name:10} " + "  ".join(cells), flush=True)


def main() -> None:
    if sys.argv[1:2] == ["one"]:
        spec, head_dim, v_dim, dtype = sys.argv[2:]
        print(one(spec, int(head_dim), int(v_dim), getattr(torch, dtype)))
        return
    if sys.argv[1:2] == ["warm"]:
        row, shape, tiles = sys.argv[2:]
        case, call = hopper_call(row_of(row), SHAPES[shape], ast.literal_eval(tiles))
        call(case.q.detach(), case.k.detach(), case.v.detach())
        torch.cuda.synchronize()
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    checked = commands.add_parser("check")
    checked.add_argument("--specs", default="all")
    checked.add_argument("--dims", default="64,128,256", help="head_dim or head_dim:v_dim, comma-separated")
    checked.add_argument("--dtypes", default="bfloat16")
    checked.add_argument("--limit", type=float, default=90.0, help="seconds a process may take")
    checked.add_argument("--workers", type=int, default=8)
    timed = commands.add_parser("time")
    timed.add_argument("--rows", default="full,causal")
    timed.add_argument("--shapes", default="d128,d64,d256")
    timed.add_argument("--peers", default="triton,cudnn")
    timed.add_argument("--tiles", nargs="*", default=["{}"], help="Python dicts to put into HOPPER_TILES")
    options = parser.parse_args()
    if options.command == "check":
        specs = zoo_names() if options.specs == "all" else options.specs.split(",")
        dims = [(int(d.split(":")[0]), int(d.split(":")[-1])) for d in options.dims.split(",")]
        sys.exit(bool(check(list(specs), dims, options.dtypes.split(","), options.limit, options.workers)))
    tables = [ast.literal_eval(text) for text in options.tiles]
    time(options.rows.split(","), options.shapes.split(","), options.peers.split(","), tables)


if __name__ == "__main__":
    main()
