"""The back end: plain Triton for every GPU and, where they gain, kernels for sm_90 in Gluon beside it.

backend="hopper"                      ->   Backend("hopper", reason, Hopper(tiles))
backend="hopper", a list of tiles     ->   Backend("triton", reason, None)
backend="auto", causal                ->   Backend("hopper", reason, Hopper(tiles))
backend="auto", swin_window_bias      ->   Backend("triton", reason, None)
backend="triton"                      ->   Backend("triton", reason, None)

Gluon's kernels are warp-specialised: a producer warp feeds consumer warpgroups of 64 rows each. They hold the
same score, mask and dropout as the Triton kernels, which stay beside them for every call that they cannot
take (float32 tensors, strides that TMA does not address, other GPUs). They know the plain softmax, and loops
whose ends are known ahead: a variant that needs more has Triton's kernels alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

from attngen.ir.nodes import AttentionIR
from attngen.plan.base2 import Logits
from attngen.plan.cost_class import dense_in_tiles, gluon_classes, lines, reads_by_score
from attngen.plan.dense import Dense, dense_input
from attngen.plan.far import Far
from attngen.plan.loops import Loops
from attngen.plan.shared_memory import gluon_bytes
from attngen.plan.table import TileTable, holds
from attngen.plan.tile import HopperTile
from attngen.plan.tiles import TARGETS


@dataclass(frozen=True)
class Hopper:
    """What the kernels for sm_90 need beside the rest of the plan: the forward's tiles by head dim.

    None leaves the forward of these head dims to Triton. ``dense`` is the input that comes in tiles, ``far``
    says what tiles far from the diagonal do without, where they have loops of their own. ``near_table``: what
    the others read by distance is listed by distance before, where finding it would cost a score much.
    ``wide_backward``: beside the fused backward, for head dims to 128, there is one for those above.
    """

    tiles: dict[int, HopperTile | None]
    dense: Dense | None = None
    far: Far | None = None
    near_table: bool = False
    wide_backward: bool = False

    @property
    def fused_from(self) -> int:
        """The least head dimension of the fused backward, which goes up to 128: below, it would pad too much;
        and what comes in tiles gains beside wide rows alone."""
        return 33 if self.dense is None else 65


@dataclass(frozen=True)
class Backend:
    """Which kernels the module holds, and why. ``hopper`` is None where it holds Triton's alone.

    ``is_refused``: it would hold Gluon's, too, but they lack what the variant needs.
    """

    name: str
    reason: str
    hopper: Hopper | None = None
    is_refused: bool = False


def choose_backend(
    ir: AttentionIR, logits: Logits, key_loops: Loops, far: Far | None, wanted: str, table: TileTable
) -> Backend:
    """The back end for ``wanted``, which is "auto", "triton" or "hopper"."""
    if wanted == "triton":
        return Backend("triton", "asked for")
    lacks = refusal(ir, key_loops)
    if lacks:
        return Backend("triton", f"Gluon's kernels for sm_90 {lacks}", is_refused=True)
    far, near_table = far_in_gluon(ir, logits, far), lines(ir, logits) == "heavy"
    near_table &= far is not None
    logits = logits if far is None else far.logits(logits)  # of most tiles: what the others cost, few pay
    classes, dense = gluon_classes(ir, logits, key_loops), dense_in_tiles(ir, logits)
    tiles = _tiles(classes, table, dense is not None)
    others = "calls that its kernels cannot take run Triton's"
    reads = reads_by_score(ir, logits)
    wide = reads == 0 and far is None  # rows of 256 leave no room for a tile of an input, nor registers
    if wanted == "hopper":
        return Backend("hopper", f"asked for; {others}", Hopper({**tiles}, dense, far, near_table, wide))
    if reads > (dense is not None):
        return Backend(
            "triton", "an address for every score: Gluon's kernels were not measured to gain by it"
        )
    # Wide heads compute a score's lines three times, where Triton's kernels do it twice.
    wide = wide and "heavy" not in classes
    hopper = Hopper(_gaining(tiles, classes, table), dense, far, near_table, wide)
    return Backend("hopper", f"auto takes what was measured to gain; {others}", hopper)


def far_in_gluon(ir: AttentionIR, logits: Logits, far: Far | None) -> Far | None:
    """What tiles far from the diagonal do without, where they have loops of their own in Gluon's kernels.

    Not beside an input that comes in tiles, which all of them read; nor where of a call of some thousand keys
    most tiles may be near; nor where these compute so much for a score, though what they read by distance be
    listed before, that the registers of what runs beside them would go through memory.
    """
    if far is None or not far.is_split or dense_input(ir) is not None:
        return None
    if far.distances is None or far.distances > _FEW_DISTANCES:
        return None
    listed = far.logits(logits) if far.reads_floats else logits
    return None if lines(ir, listed) == "heavy" else far


_FEW_DISTANCES = 1025  # within 512 of the diagonal


def launcher_row(tile: HopperTile, head_dim: int) -> tuple[int | bool, ...]:
    """The tile as a module's launcher takes it apart, with what follows from it.

    Where there is room for it, a tile's output or the queries of the next tile have a place of their own:
    then these come before that has left.
    """
    *sizes, dense = astuple(tile)
    is_apart = gluon_bytes(tile, head_dim, has_output=True) <= TARGETS["sm_90"].shared
    return (*sizes, is_apart, dense) if dense else (*sizes, is_apart)


def _tiles(classes: Sequence[str], table: TileTable, has_dense: bool) -> dict[int, HopperTile]:
    """The forward's tiles by largest head dimension: those that have room for a dense input, where there is
    one, else those that leave none."""
    found = table.found("gluon", "sm_90", "forward", classes)
    tiles = {width: row.tile for width, row in found.items() if isinstance(row.tile, HopperTile)}
    return {width: tile for width, tile in tiles.items() if (tile.dense > 0) == has_dense}


def _gaining(
    tiles: Mapping[int, HopperTile], classes: Sequence[str], table: TileTable
) -> dict[int, HopperTile | None]:
    """The same, but None where Triton's forward is the faster one."""
    found = table.found("auto", "sm_90", "forward", classes)
    chosen: dict[int, HopperTile | None] = {}
    for width in sorted({*tiles, *found}):
        row = holds(found, width)
        gains = row is None or row.tile == "gluon"
        chosen[width] = next((tile for limit, tile in tiles.items() if gains and width <= limit), None)
    return chosen


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
