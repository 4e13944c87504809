"""The back end: plain Triton for every GPU and, where they gain, kernels for sm_90 in Gluon beside it.

backend="hopper"                      ->   Backend("hopper", reason, Hopper(tiles))
backend="hopper", a list of tiles     ->   Backend("triton", reason, None)
backend="auto", causal                ->   Backend("hopper", reason, Hopper(tiles)), D=64 left to Triton
backend="auto", dense_bias            ->   Backend("hopper", reason, Hopper(tiles, dense)), 65 to 128 alone
backend="auto", relative_table        ->   Backend("triton", reason, None)
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
from attngen.plan.dense import Dense, dense_input
from attngen.plan.loops import Loops


@dataclass(frozen=True)
class HopperTile:
    """One program of the forward: ``parts`` consumer warpgroups of 64 queries, BLOCK_N keys a step.

    ``stages`` tiles of keys and of values lie in shared memory. ``registers`` is of a consumer's thread.
    ``turns``: the warpgroups begin their products one after the other. ``late``: a step takes all its
    exponentials before it waits for the product with V. ``programs`` run on a multiprocessor at once.
    ``dense`` tiles of an input that each score reads at its own place lie there for each warpgroup.
    """

    parts: int
    block_n: int
    stages: int
    registers: int
    turns: bool
    late: bool
    programs: int = 1
    dense: int = 0


@dataclass(frozen=True)
class Hopper:
    """What the kernels for sm_90 need beside the rest of the plan: the forward's tiles by head dim.

    None leaves the forward of these head dims to Triton. ``dense`` is the input that comes in tiles.
    """

    tiles: dict[int, HopperTile | None]
    dense: Dense | None = None


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
    128: HopperTile(2, 128, 2, 240, turns=False, late=True),
    256: HopperTile(2, 64, 2, 240, turns=False, late=False),
}
# Two programs of one warpgroup a multiprocessor fill each other's gaps: the longer lines of a score, and the
# beginning and end of a short range (ALiBi 450 TFLOP/s for 428, window 421 for 401, Gemma-2 403 for 359).
_PAIRED = HopperTile(1, 64, 2, 232, turns=False, late=False, programs=2)
_BANDED_TILES = _LIGHT_TILES | {128: _PAIRED}
_MEDIUM_TILES = _LIGHT_TILES | {64: HopperTile(2, 128, 2, 240, turns=True, late=True), 128: _PAIRED}
_HEAVY_TILES = {
    64: HopperTile(2, 64, 3, 240, turns=False, late=False),
    128: HopperTile(2, 32, 4, 240, turns=False, late=False),
    256: HopperTile(2, 32, 3, 240, turns=False, late=False),
}

# Beside tiles of a dense input, of which there is room for one a warpgroup: 128 was the fastest of seven (417
# TFLOP/s; without turns 389, 64 keys a step 329, three warpgroups 361, two programs 376), the others fit.
_DENSE_TILES = {
    64: HopperTile(2, 128, 2, 240, turns=False, late=False, dense=1),
    128: HopperTile(2, 128, 2, 240, turns=True, late=False, dense=1),
    256: HopperTile(2, 64, 2, 240, turns=False, late=False, dense=1),
}

TABLES = (_LIGHT_TILES, _BANDED_TILES, _MEDIUM_TILES, _HEAVY_TILES, _DENSE_TILES)


def choose_backend(ir: AttentionIR, logits: Logits, key_loops: Loops, wanted: str) -> Backend:
    """The back end for ``wanted``, which is "auto", "triton" or "hopper"."""
    if wanted == "triton":
        return Backend("triton", "asked for")
    lacks = refusal(ir, key_loops)
    if lacks:
        return Backend("triton", f"Gluon's kernels for sm_90 {lacks}", is_refused=True)
    dense = _dense(ir, logits)
    tiles = _DENSE_TILES if dense is not None else _tiles(ir, logits, key_loops)
    others = "calls that its kernels cannot take run Triton's"
    if wanted == "hopper":
        return Backend("hopper", f"asked for; {others}", Hopper(dict(tiles), dense))
    if _reads_by_score(ir, logits, beside=dense):
        return Backend(
            "triton", "an address for every score: Gluon's kernels were not measured to gain by it"
        )
    return Backend(
        "hopper",
        f"auto takes what was measured to gain; {others}",
        Hopper(_gaining(ir, tiles, dense), dense),
    )


def _gaining(
    ir: AttentionIR, tiles: Mapping[int, HopperTile], dense: Dense | None
) -> dict[int, HopperTile | None]:
    """The head dims whose forward is faster than Triton's: 32 and less would pad to 64, and at 64 the
    masked loops lose (causal 332 TFLOP/s for 396). With a dense input, 128 alone was measured."""
    if dense is not None:
        return {64: None, 128: tiles[128], 256: None}
    masked = ir.mask is not TRUE
    return {32: None} | {width: None if masked and width == 64 else tile for width, tile in tiles.items()}


def _dense(ir: AttentionIR, logits: Logits) -> Dense | None:
    """The input that comes in tiles: only beside what leaves it registers."""
    return dense_input(ir) if _operations(ir, logits) < _HEAVY and ir.dropout is None else None


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
    work = _operations(ir, logits)
    if work >= _HEAVY:
        return _HEAVY_TILES
    if work >= _MEDIUM or _reads_by_score(ir, logits) or ir.dropout is not None:
        return _MEDIUM_TILES
    begins = any(r.possible.lo is not None for r in key_loops.ranges)
    return _BANDED_TILES if begins else _LIGHT_TILES


def _operations(ir: AttentionIR, logits: Logits) -> int:
    """How many operations a score and its mask take for each score."""
    known = rates(logits.tile, ir.mask)
    return sum(rate is Rate.TILE and bool(node.args) for node, rate in known.items())


def _reads_by_score(ir: AttentionIR, logits: Logits, beside: Dense | None = None) -> bool:
    """Whether some input, but for the one that comes in tiles, is read at its own address for every score."""
    known = rates(logits.tile, ir.mask)
    tile = beside.load if beside is not None else None
    return any(rate is Rate.TILE and node.op is Op.LOAD and node is not tile for node, rate in known.items())
