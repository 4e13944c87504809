"""The table of tiles: which tile a kernel takes, by target, class and head dimension, as text that ships.

    backend, target, kernel, class, head dim, tile,                                   TFLOP/s, origin
    triton,  sm_90,  dq,     light, 128,      block_m=64 block_n=64 warps=4 stages=2, 589,     causal, ...

One row is one line, in any order; ``#`` begins a comment. A row holds for head dimensions up to its own, from
the next smaller row of the same kernel on. Of a variant's classes (``plan.cost_class``), the rows of a later
one replace those of an earlier one at the same head dimension. Rows of the back end ``auto`` name a back end
in place of a tile: whose forward is the faster one.

``ATTNGEN_TILES`` names a table whose rows come in addition to the shipped ones, or in place of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from attngen.errors import BuildError
from attngen.plan.cost_class import GLUON_CLASSES, TRITON_CLASSES
from attngen.plan.tile import HopperTile, Tile, tile_of, tile_text
from attngen.resources import tiles_text, user_tiles
from attngen.source import Source, Span

COLUMNS = ("backend", "target", "kernel", "class", "head dim", "tile", "TFLOP/s", "origin")

#: In the order in which a module lists them. "small" is every GPU of 99 KiB a program and those unknown,
#: "float32" every GPU for tensors of that dtype, "interpreter" the CPU.
ROW_TARGETS = ("sm_90", "sm_100", "sm_80", "small", "gfx942", "float32", "interpreter")

KERNELS = ("forward", "dkdv", "dq")

#: Back end -> its kernels, targets and classes.
BACKENDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "triton": (KERNELS, ROW_TARGETS, TRITON_CLASSES),
    "gluon": (("forward",), ("sm_90",), GLUON_CLASSES),
    "auto": (("forward",), ("sm_90",), GLUON_CLASSES),
}

_WIDEST = 4096  # of all padded widths together

Key = tuple[str, str, str, str, int]


@dataclass(frozen=True)
class Row:
    """One row. ``tile`` is a back end's name in rows of ``auto``. ``tflops`` is what the kernel alone reached
    with it, None where that is not known; ``origin`` says what was measured, where and when, or "compiled".
    """

    backend: str
    target: str
    kernel: str
    cost: str
    head_dim: int
    tile: Tile | HopperTile | str
    tflops: float | None = None
    origin: str = "compiled"

    @property
    def key(self) -> Key:
        return self.backend, self.target, self.kernel, self.cost, self.head_dim


@dataclass(frozen=True)
class TileTable:
    """Rows with keys of their own, and the comment lines above them."""

    rows: tuple[Row, ...]
    comment: str = ""

    def found(self, backend: str, target: str, kernel: str, classes: Sequence[str]) -> dict[int, Row]:
        """The rows that hold for a kernel of a variant of these classes, by ascending head dimension."""
        rank = {name: number for number, name in enumerate(classes)}
        mine = [r for r in self.rows if r.key[:3] == (backend, target, kernel) and r.cost in rank]
        held = {row.head_dim: row for row in sorted(mine, key=lambda row: rank[row.cost])}
        return dict(sorted(held.items()))

    @cached_property
    def shortest(self) -> int:
        """The fewest queries or keys that any tile has, 1 without tiles. Gluon's have 64 queries at least."""
        tiles = [row.tile for row in self.rows if not isinstance(row.tile, str)]
        sides = [t.block_n for t in tiles] + [t.block_m for t in tiles if isinstance(t, Tile)]
        return min(sides, default=1)

    def updated(self, rows: Iterable[Row]) -> TileTable:
        """This table with further rows, which replace those of the same keys."""
        return replace(self, rows=tuple({row.key: row for row in (*self.rows, *rows)}.values()))


def holds(rows: Mapping[int, Row], head_dim: int) -> Row | None:
    """Which of the rows that ``found`` gives holds for a head dimension; None beyond the widest."""
    return next((row for limit, row in rows.items() if head_dim <= limit), None)


@cache
def shipped() -> TileTable:
    """The table that ships with the package."""
    return parse_table(Source(tiles_text(), "tiles.csv"))


def current() -> TileTable:
    """The shipped table with the rows of the user's own, where the environment names one."""
    if (own := user_tiles()) is None:
        return shipped()
    path, text = own
    return shipped().updated(parse_table(Source(text, path)).rows)


def parse_table(source: Source) -> TileTable:
    """Read a table. BuildError tells the line and column of what is wrong."""
    comment: list[str] = []
    rows: dict[Key, tuple[int, Row]] = {}
    is_header = True
    for number, line in enumerate(source.text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            comment += [line] if is_header else []
            continue
        cells = _cells(source, number, line)
        if is_header:
            for cell, name in zip(cells, COLUMNS, strict=True):
                if cell.text != name:
                    raise cell.error(f"expected the column {name!r}, got {cell.text!r}")
            is_header = False
            continue
        row = _row(cells)
        if row.key in rows:
            raise cells[0].error(f"line {rows[row.key][0]} has a row of the same key")
        rows[row.key] = number, row
    if is_header:
        raise BuildError(f"{source.name}: expected a line of columns: {', '.join(COLUMNS)}")
    return TileTable(tuple(row for _, row in rows.values()), "\n".join(comment))


def table_text(table: TileTable) -> str:
    """The table as text: sorted, its columns aligned, its comment kept."""
    lines = [COLUMNS, *map(_texts, sorted(table.rows, key=_place))]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    text = [table.comment] if table.comment else []
    for *cells, last in lines:
        text.append(" ".join([*(f"{x},".ljust(w + 1) for x, w in zip(cells, widths, strict=False)), last]))
    return "\n".join(text) + "\n"


def _texts(row: Row) -> tuple[str, ...]:
    tile = row.tile if isinstance(row.tile, str) else tile_text(row.tile)
    tflops = "" if row.tflops is None else f"{row.tflops:.0f}"
    return (*row.key[:4], str(row.head_dim), tile, tflops, row.origin)


def _place(row: Row) -> tuple[int, int, int, int, int]:
    kernels, targets, classes = BACKENDS[row.backend]
    places = (targets.index(row.target), classes.index(row.cost), kernels.index(row.kernel), row.head_dim)
    return (list(BACKENDS).index(row.backend), *places)


@dataclass(frozen=True)
class _Cell:
    """A field of a line, and where it stands."""

    text: str
    source: Source
    line: int
    column: int

    def error(self, message: str) -> BuildError:
        span = Span(self.line, self.column, self.line, self.column + max(1, len(self.text)))
        return BuildError(message, source=self.source, span=span)

    def one_of(self, known: Iterable[str]) -> str:
        if self.text not in known:
            raise self.error(f"expected {', '.join(known)}, got {self.text!r}")
        return self.text


def _cells(source: Source, number: int, line: str) -> list[_Cell]:
    """The fields of a line; the last may hold commas of its own."""
    cells, column = [], 1
    for part in line.split(",", len(COLUMNS) - 1):
        lead = len(part) - len(part.lstrip())
        cells.append(_Cell(part.strip(), source, number, column + (lead if part.strip() else 0)))
        column += len(part) + 1
    if len(cells) != len(COLUMNS):
        raise cells[-1].error(f"expected {len(COLUMNS)} fields, got {len(cells)}: {', '.join(COLUMNS)}")
    return cells


def _row(cells: Sequence[_Cell]) -> Row:
    backend, target, kernel, cost, head_dim, tile, tflops, origin = cells
    kernels, targets, classes = BACKENDS[backend.one_of(BACKENDS)]
    width = int(head_dim.text) if head_dim.text.isascii() and head_dim.text.isdecimal() else 0
    if not 1 <= width <= _WIDEST:
        raise head_dim.error(f"expected a head dimension of 1 to {_WIDEST}, got {head_dim.text!r}")
    if tflops.text and not tflops.text.isdecimal():
        raise tflops.error(f"expected TFLOP/s, a whole number, or nothing, got {tflops.text!r}")
    if not origin.text:
        raise origin.error("expected what was measured, where and when, or 'compiled'")
    return Row(
        backend.text,
        target.one_of(targets),
        kernel.one_of(kernels),
        cost.one_of(classes),
        width,
        _tile(backend.text, tile),
        float(tflops.text) if tflops.text else None,
        origin.text,
    )


def _tile(backend: str, cell: _Cell) -> Tile | HopperTile | str:
    if backend == "auto":
        return cell.one_of(("triton", "gluon"))
    try:
        return tile_of(Tile, cell.text) if backend == "triton" else tile_of(HopperTile, cell.text)
    except ValueError as error:
        raise cell.error(str(error)) from None
