"""Property tests of the whole zoo, spread over processes and GPUs: variant, dtype, examples, worst ratio.

    python benchmarks/property_run.py --examples 200 --workers 16 --time-limit 420 -o out

Most of the time goes to Triton's compiler, which makes another binary for each dtype, head dim and alignment
of strides. So a spec's examples come in cells of one dtype and head dim, some laid out as usual and some in
one odd way; a tenth of them draw dtype, dims and every tensor's layout at random. The binaries of the cells
are built first, in parallel. Past the time limit no further cell is started.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from attngen.bench.machine import cuda_goes_on, machine, one_line
from attngen.bench.measure import short
from attngen.bench.table import columns
from attngen.spec_file import find_spec, zoo_names
from attngen.testing.builds import small_build
from attngen.testing.run import run_property_tests
from attngen.testing.tensor import STRIDES
from attngen.tune.workers import Workers
from attngen.variant import Variant, build_variant

DTYPES = ("bfloat16", "float16", "float32")
HEAD_DIMS = (16, 64, 80, 96, 128, 256)
USUAL = ("contiguous", "transposed")  # one binary serves both
ODD = tuple(kind for kind in STRIDES if kind not in USUAL)
RANDOM_SHARE, RANDOM_CELL = 0.1, 5
BUILD_SHARE = 0.6  # of the time limit
LONGEST = 300.0  # seconds for one cell


@dataclass(frozen=True)
class Cell:
    """Some examples of one spec."""

    spec: str
    dtypes: tuple[str, ...]
    head_dims: tuple[int, ...]
    strides: tuple[str, ...]
    examples: int
    seed: int
    small: bool  # whether long windows, chunks and the like are made small
    backend: str = "auto"

    @property
    def cost(self) -> float:
        """What it may cost, relative to others: wide float32 kernels compile longest."""
        wide = max(self.head_dims) * (2.0 if "float32" in self.dtypes else 1.0)
        return wide * len(self.dtypes) * len(self.strides)


@dataclass
class Outcome:
    """What a cell found: the worst ratio and its tensor by dtype, or the counter-example."""

    cell: Cell
    examples: dict[str, int] = field(default_factory=dict)
    worst: dict[str, tuple[float, str]] = field(default_factory=dict)
    failure: str = ""


def cells_of(
    spec: str,
    number: int,
    examples: int,
    dtypes: Sequence[str],
    head_dims: Sequence[int],
    backend: str = "auto",
) -> list[Cell]:
    """The cells of the ``number``-th spec: ``examples`` in all, or a few more."""
    pairs = [(dtype, dim) for dtype in dtypes for dim in head_dims]
    random = round(examples * RANDOM_SHARE)
    each = -(-(examples - random) // len(pairs))
    usual = -(-each * 3 // 5)
    cells = []
    for at, (dtype, dim) in enumerate(pairs):
        seed = 1000 * number + 2 * at
        other = head_dims[(head_dims.index(dim) + 1) % len(head_dims)]
        dims = (dim,) if at % 3 else (dim, other)  # v_dim may differ in every third
        odd = ODD[(number + at) % len(ODD)]
        cells.append(Cell(spec, (dtype,), dims, USUAL, usual, seed, False, backend))
        if each > usual:
            cells.append(Cell(spec, (dtype,), (dim,), (odd,), each - usual, seed + 1, True, backend))
    for at in range(0, random, RANDOM_CELL):
        share = min(RANDOM_CELL, random - at)
        mixed = (tuple(dtypes), tuple(head_dims), STRIDES, share, 1000 * number + 500 + at)
        cells.append(Cell(spec, *mixed, at % 2 == 1, backend))
    return cells


def variant_of(cell: Cell) -> Variant:
    source = find_spec(cell.spec)
    found = small_build(source, overrides={}, backend=cell.backend) if cell.small else None
    return found[0] if found else build_variant(source, overrides={}, backend=cell.backend)


def build(cell: Cell, device: str) -> str:
    """Compile a cell's kernels into Triton's cache on disk, by two examples; says what went wrong.

    The first has another v_dim than head_dim, where a cell has two, the second has not.
    """
    outcome = judge(replace(cell, examples=min(2, cell.examples)), device)
    return outcome.failure and f"{cell.spec} {cell.dtypes[0]} {cell.head_dims[0]} {cell.strides[0]}: failed"


def judge(cell: Cell, device: str) -> Outcome:
    """Run a cell's examples."""
    outcome = Outcome(cell)
    try:
        variant = variant_of(cell)
        report = run_property_tests(
            variant,
            examples=cell.examples,
            device=device,
            dtypes=cell.dtypes,
            head_dims=cell.head_dims,
            strides=cell.strides,
            seed=cell.seed,
        )
    except Exception as error:
        outcome.failure = short(error)
        return outcome
    outcome.failure = "" if report.passed else (report.failure or short(report.error or Exception()))
    outcome.examples = {"+".join(cell.dtypes): report.examples}
    for (dtype, tensor), verdict in report.worst.items():
        if dtype not in outcome.worst or verdict.ratio > outcome.worst[dtype][0]:
            outcome.worst[dtype] = (verdict.ratio, tensor)
    return outcome


def in_parallel(
    work: Callable[[Cell, str], Any],
    cells: Sequence[Cell],
    devices: Sequence[str],
    workers: int,
    until: float,
) -> tuple[list[Any], int]:
    """What ``work`` returned for the cells begun before ``until``, and how many were left out.

    A cell that has begun may take a minute more, and LONGEST in all; then it counts as left out too.
    """
    # Costly ones first, but what is drawn at random last: each of its examples compiles.
    ordered = sorted(cells, key=lambda cell: (len(cell.dtypes) > 1, -cell.cost))
    jobs = list(zip(ordered, cycle(devices)))
    crew: Workers[tuple[Cell, str], Any] = Workers(partial(answer, work), workers, None, LONGEST)
    found = []
    for (cell, _), result in crew.results(jobs, until, grace=60):
        if result is None:
            print(f"lost: its process died, or it took too long: {cell}", flush=True)
        else:
            found.append(result)
    return found, len(cells) - len(found)


def answer(work: Callable[[Cell, str], Any], job: tuple[Cell, str]) -> tuple[Any, bool]:
    """What ``work`` makes of a cell, and whether the process can go on."""
    if job[1] == "cpu":
        return work(*job), True
    torch.cuda.set_device(job[1])  # which is the one to be synchronised with
    return work(*job), cuda_goes_on()


def table(outcomes: Sequence[Outcome]) -> str:
    cells = [["variant", "dtype", "examples", "worst ratio", "of", "result"]]
    for spec in sorted({o.cell.spec for o in outcomes}):
        mine = [o for o in outcomes if o.cell.spec == spec]
        counts: dict[str, int] = {}
        worst: dict[str, tuple[float, str]] = {}
        for outcome in mine:
            for dtypes, count in outcome.examples.items():
                counts[dtypes] = counts.get(dtypes, 0) + count
            for dtype, found in outcome.worst.items():
                worst[dtype] = max(worst.get(dtype, (0.0, "")), found)
        for dtypes, count in sorted(counts.items(), key=lambda item: ("+" in item[0], item[0])):
            mixed = "+" in dtypes
            ratio, tensor = (None, "") if mixed else worst.get(dtypes, (None, ""))
            failed = any(o.failure for o in mine if "+".join(o.cell.dtypes) == dtypes)
            shown = "-" if ratio is None else f"{ratio:.2f}"
            result = "FAILED" if failed else "passed"
            cells.append([spec, "mixed" if mixed else dtypes, str(count), shown, tensor, result])
    return columns(cells, left=2)


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--examples", type=int, default=200, help="of each spec")
    parser.add_argument("--specs", default=",".join(zoo_names()))
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--head-dims", default=",".join(map(str, HEAD_DIMS)))
    parser.add_argument("--backend", choices=("auto", "triton", "hopper"), default="auto")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--time-limit", type=float, default=480.0, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-build", action="store_true", help="compile as the examples need it")
    parser.add_argument("-o", "--output", type=Path, help="folder for property.json, .md and failures.txt")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device")

    count = torch.cuda.device_count()
    devices = [f"cuda:{n}" for n in range(count)] if options.device == "cuda" else [options.device]
    started = time.monotonic()
    until, most = started + options.time_limit, started + BUILD_SHARE * options.time_limit
    dtypes = options.dtypes.split(",")
    head_dims = [int(dim) for dim in options.head_dims.split(",")]
    cells = [
        cell
        for number, spec in enumerate(options.specs.split(","))
        for cell in cells_of(
            spec, number + 100 * options.seed, options.examples, dtypes, head_dims, options.backend
        )
    ]
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # the processes are many, the tensors small
    if not options.no_build:
        fixed = [cell for cell in cells if len(cell.dtypes) == 1]
        troubles, missed = in_parallel(build, fixed, devices, options.workers, most)
        print("\n".join(t for t in troubles if t))
        took = time.monotonic() - started
        print(f"built for {len(fixed) - missed} of {len(fixed)} cells in {took:.0f} s", flush=True)
    outcomes, missed = in_parallel(judge, cells, devices, options.workers, until)

    took = time.monotonic() - started
    failed = [o for o in outcomes if o.failure]
    for o in failed:
        print(f"\n--- {o.cell}\n{o.failure}")
    text = f"{one_line(machine())}; {took:.0f} s\n\n{table(outcomes)}\n"
    if missed:
        text += f"\n{missed} of {len(cells)} cells were left out: the time limit\n"
    print("\n" + text, flush=True)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        results = [
            {
                "cell": vars(o.cell),
                "examples": o.examples,
                "worst": o.worst,
                "failed": bool(o.failure),
            }
            for o in outcomes
        ]
        record = {"machine": machine(), "seconds": took, "left_out": missed, "cells": results}
        (options.output / "property.json").write_text(json.dumps(record) + "\n")
        (options.output / "property.md").write_text(text)
        failures = "\n\n".join(f"--- {o.cell}\n{o.failure}" for o in failed)
        (options.output / "failures.txt").write_text(failures + "\n" if failures else "")
    return 1 if failed or missed else 0


if __name__ == "__main__":
    sys.exit(main())
