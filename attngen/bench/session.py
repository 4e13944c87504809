"""A whole measurement: compile what is needed in parallel, then every row at every shape, one by one.

What compiles is warmed in processes of its own first, so that a first call of a minute is nobody's time.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial

import torch

from attngen.bench.measure import RowResult, measure, run, short
from attngen.bench.peers import PEERS, Peer, make_case
from attngen.bench.rows import Row, Shape
from attngen.bench.timing import clock_of, race

_COMPILE = ("attngen", "triton", "hopper", "flex")  # the peers whose first call takes long


@dataclass(frozen=True)
class Settings:
    """What is measured and how: ``budget_ms`` is how long a peer's pass is timed, and warmed before that."""

    rows: tuple[Row, ...]
    shapes: tuple[Shape, ...]
    peers: tuple[Peer, ...]
    dtype: torch.dtype
    device: torch.device
    check: bool = True
    budget_ms: float = 150.0

    @property
    def size(self) -> int:
        return len(self.rows) * len(self.shapes)


@dataclass(frozen=True)
class Trouble:
    """A row that gave no result at all, and why."""

    row: Row
    shape: Shape
    reason: str

    def __str__(self) -> str:
        return f"{self.shape} {self.row.title}: {self.reason}"


def warm(settings: Settings, workers: int, progress: Callable[[int, int], None]) -> list[str]:
    """Compile every peer's kernels into the caches on disk, in ``workers`` processes; what went wrong.

    ``progress`` is told how many are done, of how many.
    """
    jobs = [
        (row, shape, peer.name)
        for peer in settings.peers
        if peer.name in _COMPILE
        for shape in settings.shapes
        for row in settings.rows
        if not peer.refuses(row)
    ]
    troubles = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, max(1, len(jobs))), mp_context=context) as pool:
        pending = {pool.submit(_warm_one, *job, settings.dtype, settings.device): job for job in jobs}
        for done, future in enumerate(as_completed(pending), 1):
            row, shape, peer = pending[future]
            try:
                reason = future.result()
            except Exception as error:  # the worker died
                reason = short(error)
            if reason:
                troubles.append(f"{shape} {row.title}: {peer}: {reason}")
            progress(done, len(jobs))
    return troubles


def _warm_one(row: Row, shape: Shape, peer: str, dtype: torch.dtype, device: torch.device) -> str:
    try:
        case = make_case(row, shape, dtype, device)
        run(PEERS[peer].prepare(case), case)
        if device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
    except Exception as error:
        return short(error)
    return ""


def results(settings: Settings) -> Iterator[RowResult | Trouble]:
    """Each row at each shape, measured when it is asked for."""
    clock = clock_of(settings.device)
    budget = settings.budget_ms
    racing = partial(race, clock=clock, warm_ms=budget, budget_ms=budget)
    for shape in settings.shapes:
        for row in settings.rows:
            try:
                yield measure(
                    row,
                    shape,
                    settings.peers,
                    dtype=settings.dtype,
                    device=settings.device,
                    race=racing,
                    check=settings.check,
                )
            except Exception as error:
                yield Trouble(row, shape, short(error))
            torch.compiler.reset()  # FlexAttention's compiled rows: one at a time


def peers_named(names: Sequence[str]) -> tuple[Peer, ...]:
    """Peers by name, attngen's own among them: it is what they are measured against. ValueError names those
    that exist."""
    for name in names:
        if name not in PEERS:
            raise ValueError(f"unknown peer {name!r}: expected {', '.join(PEERS)}")
    own = () if "attngen" in names else ("attngen",)
    return tuple(PEERS[name] for name in (*own, *names))
