"""A kernel of a variant with a tile of one's choice, launched and timed alone.

The emitted launcher does the work: the tile is put into the module's own table, one call runs forward or
backward, and the kernel's launch in it is noted, to be launched again for the clock. Its results are held
against those of the current tile.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any

import torch

from attngen.bench.machine import cuda_goes_on
from attngen.bench.measure import relative_errors, short
from attngen.bench.peers import Case, make_case, variant_of
from attngen.bench.rows import Shape, kept_scores
from attngen.bench.timing import clock_of, race
from attngen.plan.hopper import launcher_row
from attngen.plan.table import KERNELS
from attngen.plan.tile import HopperTile, Tile
from attngen.tune.search import Search

_PRODUCTS = {"forward": 2, "dkdv": 4, "dq": 3}  # matrix products of a kernel, 2·D operations a score each
_COMPILED_LENGTH = 2048
_LARGEST_ERROR = 0.02  # relative to the current tile's results

Results = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Noted:
    """A launch to repeat, what it computed, and the registers that a thread of its kernel spills."""

    launch: Callable[[], object]
    results: Results
    spills: int


@dataclass(frozen=True)
class Compiled:
    """What compiling a candidate found: spills a thread, or why it failed."""

    spills: int
    why: str = ""


Job = tuple[Search, Tile | HopperTile, str]  # a candidate, and the dtype


def compile_one(job: Job) -> tuple[Compiled, bool]:
    """Compile a candidate into Triton's cache by running it; and whether CUDA goes on.

    Shorter sequences need less memory, but fill the card still: for others a launcher may take other tiles.
    """
    search, tile, dtype = job
    shorter = replace(search.shape, length=min(search.shape.length, _COMPILED_LENGTH))
    try:
        found = noted(search, tile, _case(search, shorter, dtype))
        torch.cuda.synchronize()
        return Compiled(found.spills), True
    except Exception as error:
        return Compiled(0, short(error)), cuda_goes_on()


def noted(search: Search, tile: Tile | HopperTile, case: Case) -> Noted:
    """Run the search's kernel once with this tile."""
    gluon = search.key[0] == "gluon"
    variant = variant_of(search.variant, "hopper" if gluon else "triton")
    kernel = getattr(variant.module, f"{'hopper_' if gluon else ''}{search.key[2]}_kernel")
    found: list[tuple[Callable[[], object], Any]] = []
    original = kernel.run

    def run(*arguments: Any, **named: Any) -> Any:
        launch = partial(original, *arguments, **named)
        found.append((launch, launch()))
        return found[-1][1]

    with _tile_in(variant.module, search, tile, case):
        backward = search.key[2] != "forward"
        out: Any = variant(case.q, case.k, case.v, **case.keywords) if backward else None
        kernel.run = run  # what kernel[grid](...) calls
        try:
            if backward:
                leaves = case.leaves
                grads = torch.autograd.grad(out, list(leaves.values()), case.d_out)
                results = dict(zip(leaves, grads, strict=True))
            else:
                with torch.no_grad():
                    out = variant(case.q, case.k, case.v, **case.keywords)
                results = {"out": out}
        finally:
            del kernel.run
    if not found:
        raise RuntimeError(f"the launcher does not run {search.key[2]} at {case.shape}")
    launch, binary = found[0]
    return Noted(launch, results, getattr(binary, "n_spills", 0))  # the interpreter has no binary


@contextlib.contextmanager
def _tile_in(module: ModuleType, search: Search, tile: Tile | HopperTile, case: Case) -> Iterator[None]:
    """The emitted module's table has ``tile`` in the search's row in here."""
    if isinstance(tile, HopperTile):
        rows: dict[int, Any] = module.HOPPER_TILES
    else:
        rows = module.TILES[module.target_of(case.q)]
    limit = next(limit for limit in rows if search.width <= limit)
    before = rows[limit]
    if isinstance(tile, HopperTile):
        rows[limit] = launcher_row(tile, limit)
    else:
        at = KERNELS.index(search.key[2])
        rows[limit] = (*before[:at], astuple(tile), *before[at + 1 :])
    seen = getattr(module, "CALLS", {})  # a call seen before may repeat its launch
    seen.clear()
    try:
        yield
    finally:
        rows[limit] = before
        seen.clear()


def _case(search: Search, shape: Shape, dtype: str) -> Case:
    return make_case(search.variant, shape, getattr(torch, dtype), torch.device("cuda"))


class GpuTimer:
    """Races of tiles on the current GPU. Tensors are of the search's shape, random, and kept for a search."""

    def __init__(self, dtype: str, heat_ms: float = 40.0, final_ms: float = 150.0) -> None:
        self._dtype = dtype
        self._ms = {False: heat_ms, True: final_ms}
        self._clock = clock_of(torch.device("cuda"))
        self._place: tuple[str, Shape] | None = None
        self._held: tuple[Case, float] | None = None

    def race(
        self, search: Search, tiles: Sequence[Tile | HopperTile], *, final: bool
    ) -> Mapping[Tile | HopperTile, float | str]:
        """Milliseconds of each tile, or why it has none. ``tiles`` begins with the current one."""
        case, _ = self._case(search)
        found: dict[Tile | HopperTile, float | str] = {}
        ready: dict[Tile | HopperTile, Noted] = {}
        right: Results | None = None
        for tile in tiles:
            try:
                ready[tile] = noted(search, tile, case)
            except Exception as error:
                found[tile] = short(error)
                continue
            right = right or ready[tile].results
            worst = max(relative_errors(ready[tile].results, right).values())
            if not worst < _LARGEST_ERROR:
                found[tile] = f"wrong: relative error {worst:.2g}"
                del ready[tile]
        calls = {str(n): ready[tile].launch for n, tile in enumerate(tiles) if tile in ready}
        ms = self._ms[final]
        made = race(calls, self._clock, warm_ms=ms / 2, budget_ms=ms, rounds=4 if not final else 8)
        for number, tile in enumerate(tiles):
            if str(number) in made.ms:
                found[tile] = made.ms[str(number)]
            elif str(number) in made.failed:
                found[tile] = short(made.failed[str(number)])
        ready.clear()
        return found

    def work(self, search: Search) -> float:
        """Floating-point operations of the kernel, over the scores that the mask keeps."""
        _, scores = self._case(search)
        return 2.0 * _PRODUCTS[search.key[2]] * search.shape.head_dim * scores

    def _case(self, search: Search) -> tuple[Case, float]:
        place = search.variant.name, search.shape
        if self._held is None or self._place != place:
            self._held = None
            gc.collect()
            torch.cuda.empty_cache()
            case = _case(search, search.shape, self._dtype)
            variant = variant_of(search.variant, "triton")
            scores = kept_scores(variant.ir, case.shape, case.inputs, search.variant.params, case.q.device)
            self._place, self._held = place, (case, float(scores))
        return self._held
