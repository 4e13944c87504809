"""Tile shapes by kernel, target and head dimension: what was measured, and what fits elsewhere.

The rows of sm_90 were measured on an H200 (docs/performance.md); the others are sized for the target's shared
memory and registers and checked by ``attngen compile-check``.
"""

from __future__ import annotations

from dataclasses import dataclass

KERNELS = ("forward", "dkdv", "dq")


@dataclass(frozen=True)
class Tile:
    """One program's tile: query rows, key rows, warps, and the pipeline's stages."""

    block_m: int
    block_n: int
    warps: int
    stages: int


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

#: target -> largest head dimension -> tiles of (forward, dkdv, dq). "float32" holds for every GPU.
Table = dict[str, dict[int, tuple[Tile, Tile, Tile]]]

TILES: Table = {
    "sm_90": {
        64: (Tile(64, 64, 4, 3), Tile(64, 64, 4, 2), Tile(128, 64, 8, 3)),
        128: (Tile(64, 64, 4, 3), Tile(64, 64, 4, 2), Tile(128, 64, 8, 3)),
        256: (Tile(128, 64, 8, 2), Tile(64, 64, 8, 2), Tile(64, 64, 4, 2)),
    },
    "sm_100": {
        64: (Tile(128, 64, 4, 3), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
        128: (Tile(128, 64, 4, 3), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
        256: (Tile(128, 64, 8, 2), Tile(64, 32, 8, 1), Tile(64, 32, 8, 1)),
    },
    "sm_80": {
        64: (Tile(128, 64, 4, 3), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
        128: (Tile(128, 64, 8, 3), Tile(32, 64, 4, 2), Tile(64, 64, 8, 2)),
        256: (Tile(64, 32, 8, 2), Tile(32, 32, 8, 1), Tile(64, 32, 8, 1)),
    },
    "small": {
        64: (Tile(64, 64, 4, 2), Tile(32, 64, 4, 2), Tile(64, 32, 4, 2)),
        128: (Tile(64, 32, 4, 2), Tile(32, 64, 4, 1), Tile(64, 32, 4, 1)),
        256: (Tile(32, 32, 4, 1), Tile(16, 32, 4, 1), Tile(32, 16, 4, 1)),
    },
    "gfx942": {
        64: (Tile(128, 64, 4, 1), Tile(64, 64, 4, 1), Tile(64, 64, 4, 1)),
        128: (Tile(128, 64, 4, 1), Tile(32, 64, 4, 1), Tile(64, 32, 4, 1)),
        256: (Tile(64, 32, 4, 1), Tile(16, 32, 4, 1), Tile(32, 16, 4, 1)),
    },
    "float32": {
        64: (Tile(32, 32, 4, 1), Tile(32, 32, 4, 1), Tile(32, 32, 4, 1)),
        128: (Tile(32, 16, 4, 1), Tile(16, 32, 4, 1), Tile(32, 16, 4, 1)),
        256: (Tile(16, 16, 4, 1), Tile(16, 16, 4, 1), Tile(16, 16, 4, 1)),
    },
    "interpreter": {
        256: (Tile(128, 128, 1, 1), Tile(128, 128, 1, 1), Tile(128, 128, 1, 1)),
    },
}
