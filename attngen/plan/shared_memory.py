"""How much shared memory a program needs: what stays, what streams through the stages, and scratch.

    forward   Q stays, K and V stream        dkdv   K and V stay, Q and dO stream
    dq        Q and dO stay, K and V stream

Bytes, as a bound from above: the compilers for Ampere and AMD keep some operands in registers. Held against
what Triton allocates for the zoo in tests/test_shared_memory.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from attngen.plan.tile import HopperTile, Tile

_MARKS = 2048  # barriers of the stages, what is read by row and column, and alignment


def triton_bytes(
    target: str, kernel: str, tile: Tile, head_dim: int, item: int = 2, reads: int = 0, wide: int = 0
) -> int:
    """Bytes for a program of ``kernel`` with q, k and v of ``head_dim`` numbers of ``item`` bytes.

    ``reads`` inputs are read at an address for every score, each 4 bytes a score in every stage.
    ``wide`` is how many numbers the rows of further products add to those of q and k.
    """
    m, n = tile.block_m, tile.block_n
    width = _padded(head_dim)
    row = (2 * width + wide) * item  # of q and dO, or of k and v
    score = 4 * m * n
    stays, streams = {
        "forward": (m * (width + wide) * item, n * row),
        "dkdv": (n * row, m * row),
        "dq": (m * row, n * row),
    }[kernel]
    if target == "gfx942":  # operands pass through shared memory one after the other, into registers
        return max(m, n) * (width + wide) * item + reads * score
    step = streams + reads * score
    # Blackwell's scores pass from tensor memory through it; Ampere's operands change their layout in it.
    scratch = {"sm_90": 0, "sm_100": score}.get(target, max(score, min(m, n) * width * item))
    return stays + tile.stages * step + scratch + _MARKS


def shrunk(kernel: str, tile: Tile, fits: Callable[[Tile], bool]) -> Tile:
    """The tile, or the first of smaller ones that fits; the smallest of all where none does.

    Stages go first, down to two, since they cost least; then what streams, the last stage, and what stays.
    """
    streamed, owned = ("block_m", "block_n") if kernel == "dkdv" else ("block_n", "block_m")
    while not fits(tile):
        if tile.stages > 2:
            tile = replace(tile, stages=tile.stages - 1)
        elif (size := getattr(tile, streamed)) > 16:
            tile = replace(tile, **{streamed: size // 2})
        elif tile.stages > 1:
            tile = replace(tile, stages=1)
        elif (size := getattr(tile, owned)) > 16:
            tile = replace(tile, **{owned: size // 2})
        else:
            break
    return tile


def gluon_bytes(tile: HopperTile, head_dim: int, has_output: bool = False) -> int:
    """Bytes that the programs of a multiprocessor need together, for the forward for sm_90.

    ``has_output``: the output, which may come where the queries were, or the next queries have a place of
    their own.
    """
    width = max(64, _padded(head_dim))
    queries, keys = 64 * tile.parts, 2 * tile.block_n
    dense = 4 * tile.dense * queries * tile.block_n
    rows = queries * (2 if has_output else 1) + tile.stages * keys
    return tile.programs * (2 * width * rows + dense + _MARKS)


def _padded(width: int) -> int:
    return max(16, 1 << (width - 1).bit_length())
