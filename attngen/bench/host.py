"""What a call costs the host, and how long a spec that was never built takes from text to result.

A call's host time is what Python, checks and launches take while the GPU is never waited for: it bounds small
calls from below.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from attngen.bench.measure import short
from attngen.bench.peers import Case, Peer, make_case
from attngen.bench.rows import Row, Shape
from attngen.spec_file import find_spec

SHAPE = Shape("host", 1, 16, 512, 64)  # small enough that the GPU is always done first


@dataclass(frozen=True)
class HostTime:
    """Microseconds of a forward under ``torch.no_grad``, a recorded forward, and forward and backward."""

    inference: float
    training: float
    both: float


def host_times(row: Row, peers: tuple[Peer, ...], dtype: torch.dtype) -> dict[str, HostTime | str]:
    """Of each peer, or why not."""
    found: dict[str, HostTime | str] = {}
    device = torch.device("cuda")
    for peer in peers:
        if reason := peer.refuses(row):
            found[peer.name] = reason
            continue
        try:
            case = make_case(row, SHAPE, dtype, device)
            call = peer.prepare(case)
            once = partial(call, case.q, case.k, case.v)
            with torch.no_grad():
                inference = _microseconds(once)
            found[peer.name] = HostTime(
                inference, _microseconds(once), _microseconds(partial(_both, case, once))
            )
        except Exception as error:
            found[peer.name] = short(error)
    return found


def _both(case: Case, forward: Callable[[], Tensor]) -> None:
    torch.autograd.grad(forward(), list(case.leaves.values()), case.d_out)


def _microseconds(call: Callable[[], object], calls: int = 200, rounds: int = 7) -> float:
    for _ in range(20):
        call()
    taken = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(calls):
            call()
        taken.append((time.perf_counter() - started) / calls * 1e6)
    torch.cuda.synchronize()
    return statistics.median(taken)


_FIRST_CALL = """
import json, sys, time
import torch, triton
import attngen
text, backward = sys.stdin.read(), sys.argv[1] == "backward"
q = torch.randn(1, 4, 512, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
(q @ q.mT).sum().item()
kernels = []
def compiled(*, src, times, **more):
    kernels.append((src.name, times.total / 1e6))
triton.knobs.compilation.listener = compiled
started = time.perf_counter()
variant = attngen.compile(text)
built = time.perf_counter()
out = variant(q, q, q)
if backward:
    torch.autograd.grad(out.sum(), q)
torch.cuda.synchronize()
print(json.dumps({"seconds": time.perf_counter() - started, "build": built - started, "kernels": kernels}))
"""


@dataclass(frozen=True)
class FirstCall:
    """Seconds from a spec's text to its first result; of these, to its imported module (``build``), and in
    Triton's compiler for each kernel. The rest is Triton's C compiler, checks and launches."""

    seconds: float
    build: float
    kernels: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        kernels = ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.kernels)
        return f"{self.seconds:.2f} (module {self.build:.2f}; {kernels})"


def first_call(spec: str, *, backward: bool) -> FirstCall:
    """From a spec's text to its first result, with empty caches, in a process that has torch imported."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "ATTNGEN_CACHE_DIR": f"{folder}/attngen", "TRITON_CACHE_DIR": f"{folder}/triton"}
        done = subprocess.run(
            [sys.executable, "-c", _FIRST_CALL, "backward" if backward else "forward"],
            input=find_spec(spec).text,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout.splitlines()[-1])
    return FirstCall(found["seconds"], found["build"], tuple(map(tuple, found["kernels"])))
