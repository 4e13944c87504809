"""The loops a tile runs: masked edges around an interior that needs no mask.

    causal          ->  [0, full_hi) without mask, [full_hi, hi) masked
    sliding window  ->  [lo, full_lo) masked, [full_lo, full_hi) without, [full_hi, hi) masked
    doc == doc      ->  [lo, hi) masked

The last edge always runs masked: it holds the ragged end of the sequence too.
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.analysis.block_range import Range


@dataclass(frozen=True)
class Loop:
    """One contiguous range that a tile streams through, ``[lo, full_lo, full_hi, hi)``."""

    range: Range

    @property
    def has_interior(self) -> bool:
        """Whether some tiles provably need no mask."""
        return self.range.certain is not None

    @property
    def has_left_edge(self) -> bool:
        """Whether the interior may begin after the range does."""
        return self.range.certain is not None and self.range.certain.lo is not None


def loops(ranges: tuple[Range, ...]) -> tuple[Loop, ...]:
    return tuple(map(Loop, ranges))
