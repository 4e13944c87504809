"""The tiles of one variant's Triton kernels, by target and head dimension, and what a target's GPU has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from attngen.ir.nodes import AttentionIR
from attngen.plan.base2 import Logits
from attngen.plan.cost_class import reads_by_score, triton_classes
from attngen.plan.shared_memory import shrunk, triton_bytes
from attngen.plan.table import KERNELS, ROW_TARGETS, TileTable, holds
from attngen.plan.tile import Tile


@dataclass(frozen=True)
class Target:
    """What the tiles of one GPU must fit.

    ``shared`` is bytes a program; ``capability`` is CUDA's (major, minor), None on AMD.
    """

    name: str
    shared: int
    capability: tuple[int, int] | None


#: Keyed by what ``attngen compile-check --target`` takes.
TARGETS = {
    "sm_80": Target("sm_80", 163 * 1024, (8, 0)),
    "sm_86": Target("sm_86", 99 * 1024, (8, 6)),
    "sm_89": Target("sm_89", 99 * 1024, (8, 9)),
    "sm_90": Target("sm_90", 227 * 1024, (9, 0)),
    "sm_100": Target("sm_100", 227 * 1024, (10, 0)),
    "sm_120": Target("sm_120", 99 * 1024, (12, 0)),
    "gfx942": Target("gfx942", 64 * 1024, None),
}


def row_target(capability: tuple[int, int] | None) -> str:
    """Which rows of a table hold for 16-bit tensors on a GPU: what ``target_of`` in a module says."""
    if capability is None:
        return "gfx942"
    major, minor = capability
    return {8: "sm_80" if minor == 0 else "small", 9: "sm_90", 10: "sm_100"}.get(major, "small")


_GPUS = tuple(name for name in ROW_TARGETS if name not in ("float32", "interpreter"))

#: target -> largest head dimension -> tiles of (forward, dkdv, dq).
Tiles = dict[str, dict[int, tuple[Tile, ...]]]


def tiles_for(ir: AttentionIR, logits: Logits, table: TileTable) -> Tiles:
    """The tiles of one variant's Triton kernels, for every target.

    A variant that reads inputs at an address for every score holds them in shared memory too: its tiles are
    the table's, made smaller where that is too much. The others are known to fit.
    """
    classes, reads = triton_classes(ir, logits), reads_by_score(ir, logits)
    tiles = {target: _of_target(target, classes, table) for target in ROW_TARGETS}
    if reads:
        for target, rows in tiles.items():
            tiles[target] = {width: _fitting(target, width, held, reads) for width, held in rows.items()}
    return tiles


def _fitting(target: str, width: int, tiles: tuple[Tile, ...], reads: int) -> tuple[Tile, ...]:
    """The tiles of (forward, dkdv, dq), each as it is or the first smaller one that fits."""

    def fits(kernel: str, tile: Tile) -> bool:
        item = 4 if target == "float32" else 2
        return all(
            triton_bytes(way, kernel, tile, width, item, reads) <= most for way, most in limits_of(target)
        )

    return tuple(
        shrunk(kernel, tile, partial(fits, kernel)) for kernel, tile in zip(KERNELS, tiles, strict=True)
    )


def limits_of(target: str) -> tuple[tuple[str, int], ...]:
    """(whose way of using it, bytes) of the shared memory that rows of this target must fit; none on a CPU.

    float32 comes through pointers everywhere, as on the GPUs without a tensor memory accelerator.
    """
    least = {t: min(gpu.shared for gpu in TARGETS.values() if row_target(gpu.capability) == t) for t in _GPUS}
    if target == "float32":
        return ("small", least["small"]), ("gfx942", least["gfx942"])
    return ((target, least[target]),) if target in least else ()


def _of_target(target: str, classes: tuple[str, ...], table: TileTable) -> dict[int, tuple[Tile, ...]]:
    found = [table.found("triton", target, kernel, classes) for kernel in KERNELS]
    tiles: dict[int, tuple[Tile, ...]] = {}
    for width in sorted({width for rows in found for width in rows}):
        held = [holds(rows, width) for rows in found]
        own = tuple(row.tile for row in held if row is not None and isinstance(row.tile, Tile))
        if len(own) == len(KERNELS):
            tiles[width] = own
    return tiles
