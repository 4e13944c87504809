"""float32 numbers, held as Python's floats: ``to_float32(0.1) -> 0.10000000149011612``."""

from __future__ import annotations

import math
import struct


def to_float32(x: float) -> float:
    """``x`` rounded to the nearest float32."""
    try:
        return float(struct.unpack("f", struct.pack("f", x))[0])
    except OverflowError:
        return math.copysign(math.inf, x)


def is_float32(x: float) -> bool:
    """Whether a float32 holds ``x`` exactly (NaN counts as none)."""
    return x == to_float32(x)
