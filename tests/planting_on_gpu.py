"""Plant mutants in the kernels for sm_90 and run each there, in a process of its own, all at once.

    python tests/planting_on_gpu.py -o docs/mutants_on_gpu.md     every mutant, and what the calls said of it
    python tests/planting_on_gpu.py NAME...                       prints what they say of these

A process gets two property calls (``attngen.testing.kinds``: several tiles by several) and one with more
tiles than the card has multiprocessors. Warps that wait for each other for ever are an error that mutants
here have too: the process is killed then, and that counts as caught. The package without a mutant must pass.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutants_on_gpu import GPU_MUTANTS, GPU_SPECS, GpuMutant
from planting import Outcome, environment, planted, spec_text

_RUN = """
import json, pathlib, sys
import torch
import attngen
from attngen.bench.inputs import plausible_inputs
from attngen.testing.compare import assert_matches_reference
from attngen.testing.reach import small_tiles
from attngen.testing.run import run_property_tests
from attngen.testing.tensor import Recipe

folder, spec, width = sys.argv[1], sys.argv[2], int(sys.argv[3])
assert pathlib.Path(attngen.__file__).is_relative_to(folder), attngen.__file__
variant = attngen.compile(spec)
report = run_property_tests(
    variant,
    examples=2,
    device="cuda",
    dtypes=("bfloat16",),
    head_dims=(width,),
    strides=("contiguous",),
    shrink_seconds=0.0,
)
error, failure, call = report.error, report.failure or "", f"call {report.examples}"
if error is None:
    call = "the large call"
    sizes = ((16, 600), (4, 657), (4, 657), (16, 600))
    q, k, v, dout = (
        Recipe((2, h, s, width), "bfloat16", seed=n).build("cuda") for n, (h, s) in enumerate(sizes)
    )
    torch.manual_seed(0)
    inputs = plausible_inputs(variant.ir, q, k, v)
    try:
        with small_tiles(variant):
            assert_matches_reference(variant, q, k, v, dout=dout, seed=1, **inputs)
    except Exception as raised:
        error, failure = raised, str(raised)
kind = "" if error is None else type(error).__name__
print(json.dumps([kind, failure and f"{call}: {failure.splitlines()[0]}"]), flush=True)
"""


def outcome_on_gpu(spec: str, head_dim: int, mutant: GpuMutant | None, seconds: float) -> Outcome:
    """What the calls say; the error is "hang" where they did not come back, "crash" where nothing ran."""
    with planted(mutant) as folder:
        own = environment(folder, interpreted=False)
        command = [sys.executable, "-c", _RUN, str(folder), spec_text(spec, GPU_SPECS), str(head_dim)]
        try:
            done = subprocess.run(
                command, cwd=folder, env=own, capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return Outcome("hang", f"did not come back in {seconds:.0f} s, and was killed")
    if done.returncode:
        return Outcome("crash", done.stderr.strip().split("\n")[-1])
    return Outcome(*json.loads(done.stdout.strip().split("\n")[-1]))


def is_caught(outcome: Outcome) -> bool:
    """By the criterion, by what the kernel did to the card, or because it never ended."""
    return outcome.error in ("AssertionError", "hang") or "CUDA error" in outcome.message


_HEAD = """# Mutants of the kernels for sm_90

As in `mutants.md`, but these run on an H100 or H200 alone: `python tests/planting_on_gpu.py` plants each in a
copy of the package and gives it two property calls, causal and bfloat16 where it does not say otherwise, and
one of more tiles than the card has multiprocessors. Warps that wait for each other for ever never come back:
then the process is killed, and that counts as caught. Without a mutant all calls pass.

| the error | in | run as | says |
| --- | --- | --- | --- |
"""


def row(mutant: GpuMutant) -> str:
    """The columns of the table that the list alone decides."""
    return f"| {mutant.meaning} | `{mutant.file}` | {mutant.spec}, head dim {mutant.head_dim} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=120.0, help="for a process")
    parser.add_argument("-o", "--output", type=Path, help="write the page there")
    options = parser.parse_args()
    chosen = [m for m in GPU_MUTANTS if not options.names or m.name in options.names]
    plain = sorted({(m.spec, m.head_dim) for m in chosen})
    jobs = [(spec, dim, None) for spec, dim in plain] + [(m.spec, m.head_dim, m) for m in chosen]
    started = time.monotonic()

    def run(job: tuple[str, int, GpuMutant | None]) -> Outcome:
        outcome = outcome_on_gpu(*job, options.seconds)
        name = job[2].name if job[2] else f"no mutant ({job[0]}, {job[1]})"
        said = f"{outcome.error}: {outcome.first_line}" if outcome.error else "passed"
        print(f"{time.monotonic() - started:4.0f} s  {name}: {said}", flush=True)
        return outcome

    with ThreadPoolExecutor(options.workers) as pool:
        outcomes = list(pool.map(run, jobs))
    plain_passes = all(not o.error for o in outcomes[: len(plain)])
    caught = {m.name: o for m, o in zip(chosen, outcomes[len(plain) :], strict=True) if is_caught(o)}
    print(
        f"{len(caught)} of {len(chosen)} caught; without a mutant {'all pass' if plain_passes else 'FAILED'}"
    )
    if options.output:
        missed = "survived, or did not run"
        lines = [f"{row(m)} {caught[m.name].first_line if m.name in caught else missed} |" for m in chosen]
        options.output.write_text(_HEAD + "\n".join(lines) + "\n", "utf-8")
    return 0 if plain_passes and len(caught) == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
