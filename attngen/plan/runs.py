"""Runs: quotients and remainders of a streamed place, which a tile may lie within one of.

    abs(q // 128 - k // 128) <= 6, tiles of 64 keys   ->   k // 128 is one number for the whole tile

A tile begins at a multiple of its size. Where that divides the divisor, no tile crosses a multiple of the
divisor: the quotient is the first place's, and the remainder counts on from its. Of a mask of neighbours in
an image, half of it then is no work for each score. The launch chooses the tiles, so their size decides in
the kernel; here, which divisors they may divide.
"""

from __future__ import annotations

from attngen.ir.nodes import Expr, Op

_LEAST_TILE = 16  # every tile is a power of two from here on


def is_by_run(node: Expr, place: Expr) -> bool:
    """Whether ``node`` is a quotient or remainder of ``place`` by a constant that tiles may divide."""
    if node.op not in (Op.FLOORDIV, Op.MOD) or node.args[0] is not place:
        return False
    divisor = node.args[1].value if node.args[1].op is Op.CONST else None
    return isinstance(divisor, int) and divisor > 0 and divisor % _LEAST_TILE == 0
