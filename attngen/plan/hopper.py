"""The back end: plain Triton for every GPU and, where they gain, kernels for sm_90 in Gluon beside it.

backend="hopper"                      ->   Backend("hopper", reason, Hopper(tiles))
backend="hopper", a list of tiles     ->   Backend("triton", reason, None)
backend="auto", causal                ->   Backend("hopper", reason, Hopper(tiles))
backend="auto", sliding_window        ->   Backend("hopper", reason, Hopper(tiles)), D=64 left to Triton
backend="auto", dense_bias            ->   Backend("triton", reason, None)
backend="triton"                      ->   Backend("triton", reason, None)

Gluon's kernels are warp-specialised: a producer warp feeds consumer warpgroups of 64 rows each. They hold the
same score, mask and dropout as the Triton kernels, which stay beside them for every call that they cannot
take (float32 tensors, strides that TMA does not address, other GPUs). They know the plain softmax, and loops
whose ends are known ahead: a variant that needs more has Triton's kernels alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attngen.analysis.rates import Rate, rates
from attngen.ir.nodes import TRUE, AttentionIR, Op
from attngen.plan.base2 import Logits
from attngen.plan.loops import Loops


@dataclass(frozen=True)
class HopperTile:
    """One program of the forward: ``parts`` consumer warpgroups of 64 queries, BLOCK_N keys a step.

    ``stages`` tiles of keys and of values lie in shared memory. ``registers`` is of a consumer's thread.
    ``turns``: the warpgroups begin their products one after the other. ``late``: a step takes all its
    exponentials before it waits for the product with V. ``programs`` run on a multiprocessor at once.
    """

    parts: int
    block_n: int
    stages: int
    registers: int
    turns: bool
    late: bool
    programs: int = 1


@dataclass(frozen=True)
class Hopper:
    """What the kernels for sm_90 need beside the rest of the plan: the forward's tiles by head dim.

    None leaves the forward of these head dims to Triton.
    """

    tiles: dict[int, HopperTile | None]


@dataclass(frozen=True)
class Backend:
    """Which kernels the module holds, and why. ``hopper`` is None where it holds Triton's alone.

    ``is_refused``: it would hold Gluon's, too, but they lack what the variant needs.
    """

    name: str
    reason: str
    hopper: Hopper | None = None
    is_refused: bool = False


#: From how many operations a score on: what a step holds beside the accumulators, in three classes.
_MEDIUM, _HEAVY = 5, 9

# class -> largest head dimension -> tile. Those of light scores are the fastest of the ones measured (H200);
# the others were sized by compiling the zoo, so that next to nothing spills.
_LIGHT_TILES = {
    64: HopperTile(3, 128, 2, 160, turns=True, late=False),
    128: HopperTile(2, 128, 2, 240, turns=False, late=False),
    256: HopperTile(2, 64, 2, 240, turns=False, late=False),
}
# Two programs of one warpgroup a multiprocessor fill each other's gaps: the longer lines of a score, and the
# beginning and end of a short range (ALiBi 450 TFLOP/s for 428, window 421 for 401, Gemma-2 403 for 359).
_PAIRED = HopperTile(1, 64, 2, 232, turns=False, late=False, programs=2)
# At D=64, too (window 319 TFLOP/s for 257, documents 173 for 109, Gemma-2 255 for 232).
_PAIRED_64 = HopperTile(1, 128, 2, 232, turns=False, late=True, programs=2)
_BANDED_TILES = _LIGHT_TILES | {64: _PAIRED_64, 128: _PAIRED}
_MEDIUM_TILES = _BANDED_TILES
_HEAVY_TILES = {
    64: HopperTile(2, 64, 3, 240, turns=False, late=False),
    128: HopperTile(2, 32, 4, 240, turns=False, late=False),
    256: HopperTile(2, 32, 3, 240, turns=False, late=False),
}

TABLES = (_LIGHT_TILES, _BANDED_TILES, _MEDIUM_TILES, _HEAVY_TILES)


def choose_backend(ir: AttentionIR, logits: Logits, key_loops: Loops, wanted: str) -> Backend:
    """The back end for ``wanted``, which is "auto", "triton" or "hopper"."""
    if wanted == "triton":
        return Backend("triton", "asked for")
    lacks = refusal(ir, key_loops)
    if lacks:
        return Backend("triton", f"Gluon's kernels for sm_90 {lacks}", is_refused=True)
    tiles = _tiles(ir, logits, key_loops)
    others = "calls that its kernels cannot take run Triton's"
    if wanted == "hopper":
        return Backend("hopper", f"asked for; {others}", Hopper(dict(tiles)))
    if _reads_by_score(ir, logits):
        return Backend(
            "triton", "an address for every score: Gluon's kernels were not measured to gain by it"
        )
    return Backend(
        "hopper", f"auto takes what was measured to gain; {others}", Hopper(_gaining(ir, key_loops, tiles))
    )


def _gaining(
    ir: AttentionIR, key_loops: Loops, tiles: Mapping[int, HopperTile]
) -> dict[int, HopperTile | None]:
    """The head dims whose forward is faster than Triton's: 32 and less would pad to 64, and at 64 masks gain
    with three warpgroups alone (causal 404 TFLOP/s for 373, prefix 423 for 380; window 319 for 324)."""
    left = ir.mask is not TRUE and not (tiles is _LIGHT_TILES and key_loops.has_interior)
    return {32: None} | {width: None if left and width == 64 else tile for width, tile in tiles.items()}


def refusal(ir: AttentionIR, key_loops: Loops) -> str:
    """What a variant needs that the kernels for sm_90 do not have, or ""."""
    if not ir.is_softmax:
        return f"know the softmax alone, not normalize = {ir.normalize.value}"
    if ir.weight is not None:
        return "take no weight clause"
    if ir.has_products:
        return "take no products of rows"
    if key_loops.picks is not None:
        return "visit tiles by bounds, not those that a list picks"
    return ""


def _tiles(ir: AttentionIR, logits: Logits, key_loops: Loops) -> Mapping[int, HopperTile]:
    """The tiles of one variant, by what its scores cost and whether its ranges are short."""
    known = rates(logits.tile, ir.mask)
    work = [node for node, rate in known.items() if rate is Rate.TILE and node.args]
    if len(work) >= _HEAVY:
        return _HEAVY_TILES
    if len(work) >= _MEDIUM or _reads_by_score(ir, logits) or ir.dropout is not None:
        return _MEDIUM_TILES
    begins = any(r.possible.lo is not None for r in key_loops.ranges)
    return _BANDED_TILES if begins else _LIGHT_TILES


def _reads_by_score(ir: AttentionIR, logits: Logits) -> bool:
    """Whether some input is read at an address of its own for every score."""
    known = rates(logits.tile, ir.mask)
    return any(rate is Rate.TILE and node.op is Op.LOAD for node, rate in known.items())
