"""The loops a tile runs: one over what needs no mask, one over the edges around it.

    causal          ->  [0, full_hi) without mask, then [full_hi, hi) masked
    sliding window  ->  [full_lo, full_hi) without mask, then [lo, full_lo) and [full_hi, hi) masked
    first keys and a window  ->  both interiors without mask, then their edges masked
    key % 3 == 0    ->  [lo, hi) masked

However many ranges a tile has, each loop runs through all of its parts: where one part ends it jumps to the
next (see ``over`` in the templates). The edges come last: they hold the ragged end of the sequence too.
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.analysis.block_range import Range
from attngen.plan.picks import Picks


@dataclass(frozen=True)
class Loops:
    """What one tile streams through: ``ranges`` in their usual order, at least one.

    With ``picks``, a program looks at the tiles of its one range first, and visits those that may keep
    something.
    """

    ranges: tuple[Range, ...]
    picks: Picks | None = None

    @property
    def has_interior(self) -> bool:
        """Whether some tiles provably need no mask."""
        return any(r.certain is not None for r in self.ranges)

    @property
    def has_gaps(self) -> bool:
        """Whether a loop may have more parts than one."""
        first = self.ranges[0].certain
        return self.picks is not None or len(self.ranges) > 1 or (first is not None and first.lo is not None)
