"""Making short calls reach every part of a kernel: small tiles in the interpreter, small consts in the spec.

A loop over tiles is only tested by sequences of several tiles, and a window of 4096 by more than 4096 keys.
The interpreter is far too slow for either; but tile sizes are data there, and consts can be overridden. So is
the length from which the forward for sm_90 is taken.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

from attngen.ir.nodes import AttentionIR
from attngen.ir.types import Scalar

# (BLOCK_M, BLOCK_N, ...) of forward, dK/dV and dQ: another shape for each. What a loop streams is the short
# side, since it takes three steps to see that the first is still right after the second. Products of rows
# count as parts of a head: up to 512.
_TILES = {512: ((32, 16, 1, 1), (16, 32, 1, 1), (16, 16, 1, 1))}

_LARGE, _WIDEST = 64, 32


@contextmanager
def small_tiles(variant: Any) -> Iterator[None]:
    """In here the interpreted kernels of ``variant`` have tiles of 16 and 32, and on sm_90 the shortest
    forwards are Gluon's, too, as long ones are; nothing else changes."""
    module = getattr(variant, "module", None)
    tiles, filled, calls = _tiles_of(variant), getattr(module, "FILLED", {}), getattr(module, "CALLS", {})
    usual = tiles["interpreter"], dict(filled)
    tiles["interpreter"] = _TILES
    filled.update(dict.fromkeys(filled, -1))
    calls.clear()  # what was seen before goes on as before
    try:
        yield
    finally:
        tiles["interpreter"] = usual[0]
        filled.update(usual[1])
        calls.clear()


def has_small_tiles(variant: Any) -> bool:
    """Whether ``variant`` runs within ``small_tiles``: what a failure must say to be seen again."""
    return _tiles_of(variant)["interpreter"] is _TILES


def _tiles_of(variant: Any) -> dict[str, Any]:
    tiles: dict[str, Any] = getattr(getattr(variant, "module", None), "TILES", {"interpreter": {}})
    return tiles


def small_consts(ir: AttentionIR, except_for: Container[str] = ()) -> dict[str, Scalar]:
    """Smaller values for the int consts (windows, chunks, sides) that are near or beyond what tests draw.

    Powers of two, since some of a spec's consts are multiples of others, and near the square root: 64 gives
    8, 256 gives 16, and a window of 1024 or more is 32 wide, a tile or two of ``small_tiles``.
    """
    return {
        name: min(_WIDEST, 2 ** math.ceil(math.log2(value) / 2))
        for name, value in ir.consts
        if isinstance(value, int)
        and not isinstance(value, bool)
        and value >= _LARGE
        and name not in except_for
    }
