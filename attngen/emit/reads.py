"""Which names finished lines read, and which of the lines lead to a name.

slope = tl.load(slopes_ptr + h); seed = tl.load(Seed), wanted: slope   ->   slope = tl.load(slopes_ptr + h)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def names_in(texts: Iterable[str]) -> set[str]:
    """The names in these texts, but for attributes."""
    return {name for text in texts for name in re.findall(r"(?<![.\w])[A-Za-z_]\w*", text)}


def lines_to(names: Iterable[str], lines: Sequence[str]) -> tuple[str, ...]:
    """Those of ``lines``, which are assignments, that lead to ``names``."""
    needed, kept = set(names), []
    for line in reversed(lines):
        target, _, value = line.partition(" = ")
        if target in needed:
            kept.append(line)
            needed |= names_in([value])
    return tuple(reversed(kept))
