"""attngen beside FlexAttention, SDPA (cuDNN, FlashAttention-2) and standard attention: checked, then timed.

    python benchmarks/peers.py --shapes d128,d64 --warm 14 -o out

Prints a table a shape, milliseconds and TFLOP/s over the scores that the mask keeps, and writes them to
peers.json and peers.md in the output folder.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from attngen.bench.machine import machine, one_line
from attngen.bench.measure import RowResult, measure, run, short
from attngen.bench.peers import PEERS, Peer, make_case
from attngen.bench.rows import ROWS, SHAPES, Row, Shape
from attngen.bench.table import checks_table, peers_table, reasons
from attngen.bench.timing import clock_of, race

Job = tuple[str, Shape, str]  # row, shape, peer


def warm(job: Job, dtype: torch.dtype, device: torch.device) -> str:
    """Compile what a peer needs for a row, into the caches on disk; says what went wrong."""
    row, shape, peer = job
    try:
        case = make_case(ROWS[row], shape, dtype, device)
        run(PEERS[peer].prepare(case), case)
        if device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
    except Exception as error:
        return short(error)
    return ""


def warm_all(jobs: list[Job], workers: int, dtype: torch.dtype, device: torch.device) -> None:
    started = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        pending = {pool.submit(warm, job, dtype, device): job for job in jobs}
        for done in as_completed(pending):
            try:
                trouble = done.result()
            except Exception as error:  # the worker died
                trouble = short(error)
            if trouble:
                print("warming", *pending[done], trouble, flush=True)
    print(f"warmed {len(jobs)} in {time.perf_counter() - started:.0f} s", flush=True)


def chosen(text: str, known: dict[str, object], what: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise SystemExit(f"unknown {what} {name!r}: expected {', '.join(known)}")
    return names


def progress(result: RowResult) -> str:
    times = [
        f"{name} {o.forward_ms:.2f}/{o.backward_ms:.2f}"
        for name, o in result.outcomes.items()
        if o.forward_ms is not None and o.backward_ms is not None
    ]
    check = f"; worst error {result.worst_error:.1e}" if result.errors else ""
    return f"{result.shape} {result.row}: ms fwd/bwd {', '.join(times)}{check}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="d128,d64", help=", ".join(SHAPES))
    parser.add_argument("--rows", default=",".join(ROWS), help=", ".join(ROWS))
    parser.add_argument("--peers", default=",".join(PEERS), help=", ".join(PEERS))
    parser.add_argument("--only-attngen", action="store_true", help="no other peer; checked by the reference")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--length", type=int, help="another sequence length")
    parser.add_argument("--warm", type=int, default=0, metavar="N", help="compile first, in N processes")
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument(
        "--budget-ms", type=float, default=150.0, help="timed for so long, each peer and pass"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder for peers.json and peers.md")
    options = parser.parse_args()

    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    rows: list[Row] = [ROWS[name] for name in chosen(options.rows, dict(ROWS), "row")]
    for name in list(SHAPES):
        if options.length:
            SHAPES[name] = Shape(**{**vars(SHAPES[name]), "length": options.length})
    shapes = [SHAPES[name] for name in chosen(options.shapes, dict(SHAPES), "shape")]
    names = ["attngen"] if options.only_attngen else chosen(options.peers, dict(PEERS), "peer")
    peers: list[Peer] = [PEERS[name] for name in names]

    started = time.perf_counter()
    if options.warm:
        compiled = [peer for peer in peers if peer.name in ("flex", "attngen")]
        jobs = [(r.name, s, p.name) for p in compiled for s in shapes for r in rows if not p.refuses(r)]
        warm_all(jobs, options.warm, dtype, device)

    clock = clock_of(device)
    racing = partial(race, clock=clock, warm_ms=options.budget_ms, budget_ms=options.budget_ms)
    results: list[RowResult] = []
    for shape in shapes:
        for row in rows:
            try:
                result = measure(
                    row, shape, peers, dtype=dtype, device=device, race=racing, check=not options.no_check
                )
            except Exception as error:
                print(f"{shape.name} {row.name}: {short(error)}", flush=True)
                continue
            results.append(result)
            print(progress(result), flush=True)
            torch.compiler.reset()  # FlexAttention's compiled rows: one at a time

    where = one_line(machine())
    text = [f"{where}; {options.dtype}", ""]
    text += [
        "Milliseconds (TFLOP/s over unmasked scores); the last columns say how many times faster attngen is.",
        "",
    ]
    titles = [(peer.name, peer.title) for peer in peers]
    for shape in shapes:
        here = [r for r in results if r.shape == shape.name]
        if here:
            text += [f"## {shape}", "", peers_table(here, titles), ""]
            if not options.no_check:
                text += ["Largest relative error (out, dq, dk, dv) against:", "", checks_table(here), ""]
    known = {peer.refuses(row) for peer in peers for row in rows}
    failures = reasons(results, but=sorted(known))
    text += ["Did not run:", "", *(f"- {line}" for line in failures), ""] if failures else []
    print("\n" + "\n".join(text))
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        record = {"machine": machine(), "dtype": options.dtype, "results": [r.as_dict() for r in results]}
        (options.output / "peers.json").write_text(json.dumps(record, indent=1) + "\n")
        (options.output / "peers.md").write_text("\n".join(text))
    print(f"total {time.perf_counter() - started:.0f} s")
    wrong = [r for r in results if not options.no_check and not r.agrees]
    return 1 if wrong or len(results) < len(rows) * len(shapes) else 0


if __name__ == "__main__":
    sys.exit(main())
