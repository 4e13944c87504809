"""Tiles far from the diagonal, where each table that is read by distance gives one number for all of them.

    table[h, clamp(dist, -128, 128) + 128]

    keys 128 and more behind all queries of a tile   ->   table[h, 256], loaded once a program
    keys 128 and more ahead of them                  ->   table[h, 0]
    the tiles between                                ->   an element for each score

At a length of 8192, four tiles in a hundred lie between. A loop of its own runs through the others; its
scores cost what they would without the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce

from attngen.analysis.diagonal import DIST, Reach, over_distance, reach_of, value_at
from attngen.analysis.rates import Rate, rate_of
from attngen.ir.nodes import Expr, Input, Op, const, leaves, load, make, param, substitute
from attngen.ir.types import Type
from attngen.plan.base2 import Logits
from attngen.plan.loops import Loops


@dataclass(frozen=True)
class FarRead:
    """A load that is the same in all far tiles on one side of the diagonal.

    ``stand_in`` is the leaf that takes its place there; ``behind`` and ``ahead`` are what it stands for, None
    on a side without far tiles.
    """

    load: Expr
    stand_in: Expr
    behind: Expr | None
    ahead: Expr | None


@dataclass(frozen=True)
class Far:
    """``reach``: within it lies every distance at which a load still changes.

    ``is_split``: far tiles have a loop of their own. Along a diagonal, every load is the same in any case.
    """

    reach: Reach
    reads: tuple[FarRead, ...]
    is_split: bool

    @property
    def distances(self) -> int | None:
        """From one end of the reach to the other, both counted; None where it has no end on some side."""
        has_both = self.reach.ends_behind and self.reach.ends_ahead
        return self.reach.high - self.reach.low + 1 if has_both else None

    @property
    def reads_floats(self) -> bool:
        return all(read.load.type is Type.FLOAT for read in self.reads)

    def of(self, expr: Expr) -> Expr:
        """What ``expr`` is in a far tile."""
        return substitute(expr, {read.load: read.stand_in for read in self.reads})

    def logits(self, logits: Logits) -> Logits:
        """What the logits are in a far tile: in nearly all of a long call."""
        return replace(logits, tile=self.of(logits.tile), derivative=self.of(logits.derivative))


def distances_of(node: Expr) -> tuple[Expr, ...] | None:
    """A load's indices over the distance, if they depend on query and key through it alone; else None."""
    indices = [over_distance(index) for index in node.args]
    known = tuple(index for index in indices if index is not None)
    whole = len(known) == len(indices) and any(DIST in leaves(i, op=Op.PARAM) for i in known)
    return known if whole else None


def reach_of_load(indices: tuple[Expr, ...], item: Input, dtypes: Mapping[str, str]) -> Reach:
    """Within which distances the element changes that a load of an input with these indices reads.

    An index outside its dimension reads the nearest element.
    """
    moving = [
        make(Op.CLAMP, index, const(0), const(dim - 1)) if isinstance(dim, int) else index
        for index, dim in zip(indices, item.dims, strict=True)
        if DIST in leaves(index, op=Op.PARAM)
    ]
    return reduce(Reach.hull, (reach_of(index, dtypes) for index in moving))


def far_tiles(roots: tuple[Expr, ...], loops: tuple[Loops, ...], inputs: tuple[Input, ...]) -> Far | None:
    """How ``roots`` simplify far from the diagonal; None where nothing is read by distance."""
    found = dict.fromkeys(node for node in leaves(*roots, op=Op.LOAD) if rate_of(node) is Rate.TILE)
    by_distance = {node: indices for node in found if (indices := distances_of(node)) is not None}
    if not by_distance:
        return None
    items, dtypes = {i.name: i for i in inputs}, {i.name: i.dtype for i in inputs}
    reaches = (reach_of_load(i, items[str(node.value)], dtypes) for node, i in by_distance.items())
    reach = reduce(Reach.hull, reaches)
    is_plain = all(len(one.ranges) == 1 and one.has_interior for one in loops)
    is_split = is_plain and (reach.ends_behind or reach.ends_ahead)
    reads = tuple(_read(n, node, by_distance[node], reach) for n, node in enumerate(by_distance))
    return Far(reach, reads, is_split)


def _read(number: int, node: Expr, indices: tuple[Expr, ...], reach: Reach) -> FarRead:
    def at(distance: int) -> Expr:
        return load(str(node.value), node.type, tuple(value_at(i, distance) for i in indices))

    stand_in = param(f"{node.value} far {number}", node.type)  # no spec has a name with blanks
    return FarRead(
        node,
        stand_in,
        at(reach.high) if reach.ends_behind else None,
        at(reach.low) if reach.ends_ahead else None,
    )
