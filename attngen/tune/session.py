"""The order of a search: heats of a few candidates beside the current tile, then a final of the best.

Times drift with the card's temperature, so a candidate counts by its ratio to the current tile in the same
heat. Of many candidates one looks faster by chance: the best is timed again, longer, and only that counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from attngen.plan.table import Row, TileTable, holds
from attngen.plan.tile import HopperTile, Tile, tile_text
from attngen.tune.journal import Journal, Measurement
from attngen.tune.search import Search

AnyTile = Tile | HopperTile

#: Faster by less than this share is no difference.
NOISE = 0.02

_HEAT = 8  # candidates beside the current tile


class Timer(Protocol):
    """What measures: milliseconds of each tile in one race, or why a tile has none."""

    def race(
        self, search: Search, tiles: Sequence[AnyTile], *, final: bool
    ) -> Mapping[AnyTile, float | str]: ...

    def work(self, search: Search) -> float: ...


@dataclass(frozen=True)
class Step:
    """So many candidates of a search are done; ``line`` says something of it, or nothing."""

    search: Search
    done: int
    line: str = ""


def run(
    searches: Sequence[Search],
    timer: Timer,
    journal: Journal,
    left: Callable[[], float] = lambda: 1.0,
    skip: Mapping[tuple[str, AnyTile], str] | None = None,
) -> Iterator[Step]:
    """Measure what the journal does not have yet, until ``left()`` seconds are none.

    ``skip`` are candidates that need no race, and why: they did not compile, or spill.
    """
    for search in searches:
        pending = [t for t in search.candidates if not journal.has(search.id, tile_text(t))]
        for tile in [t for t in pending if (search.id, t) in (skip or {})]:
            why = (skip or {})[search.id, tile]
            journal.add(Measurement(search.id, tile_text(tile), None, None, why=why))
            pending.remove(tile)
            yield Step(search, 1)
        for first in range(0, len(pending), _HEAT):
            if left() <= 0:
                return
            heat = pending[first : first + _HEAT]
            _race(search, heat, timer, journal, final=False)
            yield Step(search, len(heat))
        best = best_of(search, journal)
        finals = {m.tile for m in journal.of(search.id) if m.is_final}
        if best is not None and tile_text(best) not in finals and left() > 0:
            _race(search, [best], timer, journal, final=True)
        yield Step(search, 0, verdict(search, journal))


def _race(search: Search, tiles: Sequence[AnyTile], timer: Timer, journal: Journal, *, final: bool) -> None:
    times = timer.race(search, [search.current, *tiles], final=final)
    current = times[search.current]
    base = None if isinstance(current, str) else current
    for tile in tiles:
        found = times[tile]
        ms, why = (None, found) if isinstance(found, str) else (found, "" if base else str(current))
        work = timer.work(search)
        journal.add(Measurement(search.id, tile_text(tile), ms, base, work, why, is_final=final))


def best_of(search: Search, journal: Journal) -> AnyTile | None:
    """The fastest candidate of the heats, if it seems faster than the current tile by more than noise."""
    ratios = {m.tile: m.ratio for m in journal.of(search.id) if m.ratio is not None and not m.is_final}
    known = [tile for tile in search.candidates if tile_text(tile) in ratios]
    best = min(known, key=lambda tile: ratios[tile_text(tile)] or 1.0, default=None)
    return best if best is not None and (ratios[tile_text(best)] or 1.0) < 1 - NOISE else None


def final_of(search: Search, journal: Journal) -> Measurement | None:
    """The measurement that decides, where a candidate won its final; resumed searches may have several."""
    finals = [m for m in journal.of(search.id) if m.is_final and m.ratio is not None]
    best = min(finals, key=lambda m: m.ratio or 1.0, default=None)
    return best if best is not None and (best.ratio or 1.0) < 1 - NOISE else None


def verdict(search: Search, journal: Journal) -> str:
    """A line about a search that is done."""
    timed = sum(m.ratio is not None and not m.is_final for m in journal.of(search.id))
    won = final_of(search, journal)
    said = f"{won.tile}, {1 / (won.ratio or 1):.2f}x" if won else "the current tile stays"
    return f"{search.name}: {said} (of {timed} timed)"


def rows_of(searches: Sequence[Search], journal: Journal, origin: str) -> list[Row]:
    """Rows for the table: tiles that won their finals, and rows that stay and now have a number.

    A class that had its tile from another one's row gets a row of its own where that row changes.
    """
    won = {search.key: best for search in searches if (best := final_of(search, journal)) is not None}
    rows = []
    for search in searches:
        tile: AnyTile | None = search.current
        if (best := won.get(search.key)) is not None:
            tile, ms = _named(search, best.tile), best.ms
        elif search.key == search.row.key or search.row.key in won:
            ms = _staying(search, journal)
        else:
            continue
        if tile is not None and ms:
            tflops = float(round(_work(search, journal) / ms * 1e-9))
            rows.append(Row(*search.key, tile, tflops, f"{search.variant.name}, {origin}"))
    return rows


def choices(searches: Sequence[Search], journal: Journal, table: TileTable, origin: str) -> list[Row]:
    """Rows of ``auto`` where a forward was measured with both back ends and the other one gains."""
    best: dict[tuple[str, int], dict[str, tuple[Search, float]]] = {}
    for search in (s for s in searches if s.key[2] == "forward"):
        ms = won.ms if (won := final_of(search, journal)) else _staying(search, journal)
        if ms:
            place = search.variant.name, search.shape.head_dim
            best.setdefault(place, {})[search.key[0]] = search, _work(search, journal) / ms * 1e-9
    rows = []
    for found in (both for both in best.values() if len(both) == 2):
        (gluon, fast), (_, other) = found["gluon"], found["triton"]
        held = holds(table.found("auto", "sm_90", "forward", gluon.gluon_classes), gluon.key[4])
        gains, loses = fast > other * (1 + 2 * NOISE), other > fast * (1 + 2 * NOISE)
        wanted = "gluon" if gains else "triton" if loses else ""
        if wanted and held is not None and held.tile != wanted:
            said = f"{gluon.variant.name} {fast:.0f} TFLOP/s with Gluon, {other:.0f} with Triton; {origin}"
            rows.append(
                Row("auto", "sm_90", "forward", gluon.gluon_classes[-1], gluon.key[4], wanted, None, said)
            )
    return rows


def _named(search: Search, text: str) -> AnyTile | None:
    return next((tile for tile in search.candidates if tile_text(tile) == text), None)


def _staying(search: Search, journal: Journal) -> float | None:
    """The current tile's milliseconds, over all heats."""
    times = [m.current_ms for m in journal.of(search.id) if m.current_ms]
    return median(times) if times else None


def _work(search: Search, journal: Journal) -> float:
    return max(m.work for m in journal.of(search.id))
