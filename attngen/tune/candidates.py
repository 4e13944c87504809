"""Which tiles are worth a measurement: those that fit, what serves other classes and neighbours first."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import astuple, replace
from itertools import product
from typing import TypeVar

from attngen.plan.tile import HopperTile, Tile

_Either = TypeVar("_Either", Tile, HopperTile)

_LEAST_REGISTERS = 152  # a consumer of fewer would spill its accumulators
_ROWS = {"sm_90": 64, "sm_100": 64}  # of a warpgroup's product
_REGISTERS = 65536  # of a multiprocessor


def triton_candidates(
    target: str, kernel: str, current: Tile, known: Collection[object], fits: Callable[[Tile], bool]
) -> list[Tile]:
    """Tiles of a Triton kernel that fit, without the current one: those that other classes have (``known``)
    first, then by their distance from it.

    What a program owns, queries or keys, are the rows of its products: at least those of one instruction.
    """
    least = _ROWS.get(target, 16)
    lengths = [n for n in (16, 32, 64, 128) if 2 * n >= least]
    grid = (Tile(*sizes) for sizes in product(lengths, lengths, (4, 8), (1, 2, 3, 4)))
    owned = {tile: tile.block_n if kernel == "dkdv" else tile.block_m for tile in grid}
    found = (t for t, rows in owned.items() if rows >= max(least, 8 * t.warps) and fits(t))
    return _by_distance(current, known, found)


def gluon_candidates(
    current: HopperTile, known: Collection[object], fits: Callable[[HopperTile], bool]
) -> list[HopperTile]:
    """Tiles of Gluon's forward, likewise."""
    return _by_distance(current, known, (tile for tile in _gluon_grid(current) if fits(tile)))


def _gluon_grid(current: HopperTile) -> Iterator[HopperTile]:
    for parts, block_n, stages, programs in product((1, 2, 3), (32, 64, 128), (2, 3, 4), (1, 2)):
        is_alike = (parts, programs) == (current.parts, current.programs)
        registers = current.registers if is_alike else consumer_registers(parts, programs)
        if registers < _LEAST_REGISTERS:
            continue
        for turns, late in product((False, True), repeat=2):
            if not (turns and parts == 1):  # one warpgroup has no turns to take
                sizes = {"parts": parts, "block_n": block_n, "stages": stages, "programs": programs}
                yield replace(current, registers=registers, turns=turns, late=late, **sizes)


def consumer_registers(parts: int, programs: int) -> int:
    """The most registers for a consumer's thread, where ``programs`` share a multiprocessor's.

    A launch gives all ``parts`` + 1 warpgroups the same; the producer keeps at least 24.
    """
    at_launch = _REGISTERS // programs // (128 * (parts + 1)) // 8 * 8
    return min(240, (at_launch * (parts + 1) - 24) // parts // 8 * 8)


def distance(first: Tile | HopperTile, second: Tile | HopperTile) -> float:
    """How many steps apart two tiles are: a size doubled, a choice turned, a stage more."""
    return sum(
        1.0 * (x != y) if isinstance(x, bool) else abs(math.log2(x / y))
        for x, y in zip(_steps(first), _steps(second), strict=True)
    )


def _steps(tile: Tile | HopperTile) -> tuple[int, ...]:
    """A tile's fields but for registers, which follow from others."""
    if isinstance(tile, HopperTile):
        return (tile.parts, tile.block_n, tile.stages, tile.turns, tile.late, tile.programs)
    return astuple(tile)


def _by_distance(current: _Either, known: Collection[object], tiles: Iterator[_Either]) -> list[_Either]:
    near = {tile: distance(current, tile) for tile in tiles if tile != current}
    return sorted(near, key=lambda tile: (tile not in known, near[tile], astuple(tile)))
