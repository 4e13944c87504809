"""The tiles of one variant's Triton kernels, by target and head dimension, and what a target's GPU has."""

from __future__ import annotations

from dataclasses import dataclass

from attngen.ir.nodes import AttentionIR
from attngen.plan.base2 import Logits
from attngen.plan.cost_class import triton_classes
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


#: target -> largest head dimension -> tiles of (forward, dkdv, dq).
Tiles = dict[str, dict[int, tuple[Tile, ...]]]


def tiles_for(ir: AttentionIR, logits: Logits, table: TileTable) -> Tiles:
    """The tiles of one variant's Triton kernels, for every target."""
    classes = triton_classes(ir, logits)
    return {target: _of_target(target, classes, table) for target in ROW_TARGETS}


def _of_target(target: str, classes: tuple[str, ...], table: TileTable) -> dict[int, tuple[Tile, ...]]:
    found = [table.found("triton", target, kernel, classes) for kernel in KERNELS]
    tiles: dict[int, tuple[Tile, ...]] = {}
    for width in sorted({width for rows in found for width in rows}):
        held = [holds(rows, width) for rows in found]
        own = tuple(row.tile for row in held if row is not None and isinstance(row.tile, Tile))
        if len(own) == len(KERNELS):
            tiles[width] = own
    return tiles
