"""Tile shapes by kernel, target and head dimension: what was measured, and what fits elsewhere.

The rows of sm_90 were measured on an H200 (docs/performance.md). The others were sized by compiling the zoo
with ``attngen compile-check``: the largest tiles that keep within the target's shared memory and, but for a
few bytes, within its registers. Eight warps hold what four would spill. float32 products go through the
registers whole, which at a head dimension of 256 are too few for any tile.
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.analysis.rates import Rate, rate_of
from attngen.ir.nodes import AttentionIR, Expr, Op, leaves

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
        64: (Tile(64, 64, 4, 3), Tile(64, 64, 4, 2), Tile(64, 64, 4, 3)),
        128: (Tile(64, 64, 4, 3), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
        256: (Tile(128, 64, 8, 2), Tile(64, 64, 8, 2), Tile(64, 64, 4, 2)),
    },
    "sm_100": {
        64: (Tile(128, 64, 4, 3), Tile(64, 128, 8, 1), Tile(128, 64, 8, 2)),
        128: (Tile(128, 64, 4, 3), Tile(64, 128, 8, 1), Tile(128, 64, 8, 2)),
        256: (Tile(128, 32, 8, 2), Tile(32, 64, 8, 1), Tile(128, 64, 8, 1)),
    },
    "sm_80": {
        64: (Tile(128, 64, 8, 3), Tile(32, 128, 8, 2), Tile(128, 64, 8, 2)),
        128: (Tile(128, 32, 8, 3), Tile(32, 64, 8, 2), Tile(64, 64, 8, 2)),
        256: (Tile(64, 32, 8, 2), Tile(32, 32, 8, 1), Tile(64, 32, 8, 2)),
    },
    "small": {
        64: (Tile(128, 64, 8, 2), Tile(32, 128, 8, 2), Tile(128, 64, 8, 2)),
        128: (Tile(128, 32, 8, 2), Tile(32, 64, 8, 2), Tile(64, 64, 8, 2)),
        256: (Tile(64, 32, 8, 2), Tile(16, 32, 8, 2), Tile(64, 16, 8, 2)),
    },
    "gfx942": {
        64: (Tile(128, 32, 4, 1), Tile(32, 128, 4, 1), Tile(128, 32, 4, 1)),
        128: (Tile(128, 64, 8, 1), Tile(32, 64, 8, 1), Tile(128, 32, 8, 1)),
        256: (Tile(64, 32, 4, 1), Tile(16, 64, 8, 1), Tile(64, 16, 8, 1)),
    },
    "float32": {
        64: (Tile(64, 32, 8, 1), Tile(32, 32, 8, 1), Tile(32, 32, 8, 1)),
        128: (Tile(32, 32, 8, 1), Tile(16, 16, 8, 1), Tile(16, 16, 8, 1)),
        256: (Tile(32, 16, 8, 1), Tile(16, 16, 8, 1), Tile(16, 16, 8, 1)),
    },
    "interpreter": {
        256: (Tile(128, 128, 1, 1), Tile(128, 128, 1, 1), Tile(128, 128, 1, 1)),
    },
}

# Beside Philox's words, where the tiles above would leave them no registers.
_WITH_DROPOUT: dict[str, dict[int, dict[str, Tile]]] = {
    "sm_90": {128: {"dkdv": Tile(32, 64, 4, 3)}},
    "sm_100": {
        64: {"forward": Tile(128, 64, 8, 3)},
        128: {"forward": Tile(128, 32, 8, 3)},
        256: {"dq": Tile(64, 64, 8, 1)},
    },
    "sm_80": {128: {"dkdv": Tile(32, 32, 8, 2)}, 256: {"dkdv": Tile(16, 32, 8, 2)}},
}

# Beside the weights that meet V, where the softmax's own are still needed; sized by compiling.
_WITH_WEIGHT: dict[str, dict[int, dict[str, Tile]]] = {
    "sm_90": {128: {"dkdv": Tile(32, 64, 4, 3)}},
}

# Beside an address for every score of a table by distance: 128 is measured, 256 sized by compiling.
_WITH_READS: dict[str, dict[int, dict[str, Tile]]] = {
    "sm_90": {
        128: {"forward": Tile(64, 32, 4, 3)},
        256: {"forward": Tile(128, 32, 8, 2), "dkdv": Tile(32, 64, 8, 2), "dq": Tile(64, 32, 8, 2)},
    },
}

# Beside a tile of a dense bias, which comes in whole rows; 128 is measured.
_WITH_PAIRS: dict[str, dict[int, dict[str, Tile]]] = {
    "sm_90": {128: {"forward": Tile(64, 64, 4, 2)}, 256: _WITH_READS["sm_90"][256]},
}


# Beside further matrix products: the padded ranks of their rows add to the padded head dimension. The row of
# sm_90 at 192 (a head of 128 beside a rank of 64) was measured, the others were sized by compiling.
_WITH_PRODUCTS: Table = {
    "sm_90": {
        64: TILES["sm_90"][64],
        128: TILES["sm_90"][128],
        192: (Tile(128, 64, 8, 3), Tile(32, 64, 4, 3), Tile(64, 64, 4, 3)),
        256: (Tile(128, 64, 8, 2), Tile(64, 64, 8, 2), Tile(64, 64, 8, 2)),
        384: (Tile(128, 32, 8, 2), Tile(32, 64, 8, 2), Tile(64, 32, 8, 2)),
        512: (Tile(64, 32, 8, 2), Tile(32, 64, 8, 2), Tile(64, 16, 8, 2)),
    },
    "sm_100": {
        64: TILES["sm_100"][64],
        128: TILES["sm_100"][128],
        256: (Tile(128, 32, 8, 2), Tile(32, 64, 8, 1), Tile(64, 64, 8, 1)),
        384: (Tile(64, 32, 8, 1), Tile(32, 32, 8, 1), Tile(64, 32, 8, 1)),
        512: (Tile(64, 32, 8, 1), Tile(32, 32, 8, 1), Tile(32, 32, 8, 1)),
    },
    "sm_80": {
        64: TILES["sm_80"][64],
        128: (Tile(128, 64, 8, 2), Tile(32, 64, 8, 2), Tile(64, 64, 8, 2)),
        192: (Tile(128, 32, 8, 2), Tile(32, 64, 8, 2), Tile(64, 64, 8, 2)),
        256: (Tile(128, 32, 8, 2), Tile(32, 32, 8, 2), Tile(64, 64, 8, 2)),
        512: (Tile(64, 32, 8, 2), Tile(16, 32, 8, 1), Tile(64, 32, 8, 2)),
    },
    "small": {
        64: TILES["small"][64],
        128: (Tile(128, 32, 8, 2), Tile(32, 64, 8, 2), Tile(64, 64, 8, 2)),
        192: (Tile(128, 32, 8, 2), Tile(32, 64, 8, 2), Tile(64, 64, 8, 2)),
        256: (Tile(128, 32, 8, 2), Tile(32, 32, 8, 2), Tile(64, 32, 8, 2)),
        512: (Tile(64, 16, 8, 1), Tile(16, 16, 8, 1), Tile(32, 16, 8, 1)),
    },
    "gfx942": {
        64: TILES["gfx942"][64],
        128: (Tile(128, 32, 8, 1), Tile(32, 64, 8, 1), Tile(128, 32, 8, 1)),
        256: (Tile(64, 32, 8, 1), Tile(16, 32, 8, 1), Tile(64, 16, 8, 1)),
        512: (Tile(32, 16, 4, 1), Tile(16, 16, 4, 1), Tile(16, 16, 4, 1)),
    },
    "float32": {**TILES["float32"], 512: (Tile(16, 16, 8, 1), Tile(16, 16, 8, 1), Tile(16, 16, 8, 1))},
    "interpreter": {512: TILES["interpreter"][256]},
}


def tiles_for(ir: AttentionIR) -> Table:
    """The tiles of one variant: TILES, but for kernels that hold more than the score beside it.

    The rows of a product of rows count as parts of the head: their table goes by the sum of both.
    """
    table = _WITH_PRODUCTS if ir.has_products else TILES
    if ir.dropout is not None:
        table = _replaced(table, _WITH_DROPOUT)
    if ir.weight is not None and ir.is_softmax:
        table = _replaced(table, _WITH_WEIGHT)
    reads = [n for n in leaves(ir.final_score, ir.mask, op=Op.LOAD) if rate_of(n) is Rate.TILE]
    if reads:
        table = _replaced(table, _WITH_PAIRS if all(map(reads_pairs, reads)) else _WITH_READS)
    return table


def reads_pairs(node: Expr) -> bool:
    """Whether a load's queries and keys run along dimensions of their own."""
    return {Rate.ROW, Rate.COLUMN} <= {rate_of(index) for index in node.args}


def _replaced(table: Table, others: dict[str, dict[int, dict[str, Tile]]]) -> Table:
    new: Table = {}
    for target, rows in table.items():
        new[target] = {}
        for width, tiles in rows.items():
            own = others.get(target, {}).get(width, {})
            forward, dkdv, dq = (own.get(kernel, tile) for kernel, tile in zip(KERNELS, tiles, strict=True))
            new[target][width] = forward, dkdv, dq
    return new
