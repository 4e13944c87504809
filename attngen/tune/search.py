"""What is searched: one row of the table, for a kernel of a variant at a head dimension.

causal at D=128   ->   forward, dkdv and dq of Triton's, the forward of Gluon's: class light, row 128
dropped           ->   the same, rows of the class dropout
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from attngen.bench.rows import ROWS, SHAPES, Row, Shape
from attngen.bench.suite import row_of
from attngen.pipeline import plan_spec
from attngen.plan.cost_class import gluon_classes, reads_by_score, triton_classes
from attngen.plan.plan import Options, Plan
from attngen.plan.shared_memory import gluon_bytes, triton_bytes
from attngen.plan.table import KERNELS, Key, TileTable, holds
from attngen.plan.table import Row as TableRow
from attngen.plan.tile import HopperTile, Tile, tile_text
from attngen.spec_file import find_spec
from attngen.tune.candidates import gluon_candidates, triton_candidates

#: One variant for each class; of those that share a row, the first is measured.
SAMPLES = (
    *("causal", "full", "window", "softcap", "kerple_log", "dropout"),
    *("mla_rope", "clipped_softmax", "bias", "table"),
)


@dataclass(frozen=True)
class Search:
    """``row`` is the row that serves now, ``cost`` the class whose row it may become: the variant's last.

    ``gluon_classes`` are the variant's for the choice between the back ends. ``width`` is the head dimension
    that the row is looked up by.
    ``candidates`` are tiles that fit, without the current one, the likeliest first.
    """

    variant: Row
    shape: Shape
    row: TableRow
    cost: str
    gluon_classes: tuple[str, ...]
    width: int
    candidates: tuple[Tile | HopperTile, ...]

    @property
    def key(self) -> Key:
        return (*self.row.key[:3], self.cost, self.row.head_dim)

    @property
    def current(self) -> Tile | HopperTile:
        assert not isinstance(self.row.tile, str)
        return self.row.tile

    @property
    def name(self) -> str:
        backend, _, kernel, cost, head_dim = self.key
        return f"{backend} {kernel} {cost} {head_dim}: {self.variant.name} {self.shape}"

    @property
    def texts(self) -> tuple[str, ...]:
        """The candidates as a table writes them."""
        return tuple(map(tile_text, self.candidates))

    @property
    def id(self) -> str:
        """What a journal calls it: a measurement counts beside the tile that it was made beside."""
        return f"{self.name}, from {tile_text(self.current)}"


def variants_of(files: Sequence[str]) -> list[Row]:
    """The variants to measure: specs, rows of the bench by name, or the samples of every class."""
    return [ROWS[name] if name in ROWS else row_of(name, {}) for name in files or SAMPLES]


def searches_of(
    variants: Iterable[Row],
    head_dims: Sequence[int],
    passes: Sequence[str],
    backends: Sequence[str],
    table: TileTable,
    *,
    target: str,
    shared: int,
    item: int = 2,
    most: int = 12,
) -> list[Search]:
    """A search for each row that the variants' kernels would take on ``target``.

    ``shared`` is bytes a program, ``item`` the bytes of a number of q, ``most`` how many candidates each has.
    """
    found: dict[Key, Search] = {}
    for head_dim in head_dims:
        shape = SHAPES.get(f"d{head_dim}") or Shape(f"d{head_dim}", 2, 16, 4096, head_dim)
        for variant in variants:
            plan = _plan(variant, table)
            makers = {
                "triton": [k for k in KERNELS if k in passes],
                "gluon": [k for k in ("forward",) if k in passes and not plan.backend.is_refused],
            }
            for backend in backends:
                for kernel in makers[backend] if backend == "triton" or target == "sm_90" else ():
                    made = _search(variant, shape, plan, backend, kernel, table, target, shared, item, most)
                    if made is not None:
                        found.setdefault(made.key, made)
    return list(found.values())


def _plan(variant: Row, table: TileTable) -> Plan:
    return plan_spec(find_spec(variant.spec), Options("hopper", table=table), variant.consts)


def _search(
    variant: Row,
    shape: Shape,
    plan: Plan,
    backend: str,
    kernel: str,
    table: TileTable,
    target: str,
    shared: int,
    item: int,
    most: int,
) -> Search | None:
    of_gluon = gluon_classes(plan.ir, plan.gluon_logits, plan.key_loops)
    classes = of_gluon if backend == "gluon" else triton_classes(plan.ir, plan.logits)
    beside = _beside(variant, plan, shape)
    whole = shape.head_dim + beside
    row = holds(table.found(backend, target, kernel, classes), whole)
    if row is None or isinstance(row.tile, str):
        return None
    width = shape.head_dim
    known = [r.tile for r in table.rows if r.key[:3] == row.key[:3] and r.head_dim == row.head_dim]
    candidates: list[Tile] | list[HopperTile]
    if isinstance(row.tile, HopperTile):
        candidates = gluon_candidates(row.tile, known, lambda t: gluon_bytes(t, width) <= shared)
    else:
        reads = reads_by_score(plan.ir, plan.logits)

        def fits(tile: Tile) -> bool:
            return triton_bytes(target, kernel, tile, width, item, reads, beside) <= shared

        candidates = triton_candidates(target, kernel, row.tile, known, fits)
    return Search(variant, shape, row, classes[-1], of_gluon, whole, tuple(candidates[:most]))


def _beside(variant: Row, plan: Plan, shape: Shape) -> int:
    """How many columns the rows of further products add to the head's, padded as the kernels pad them."""
    if not plan.products:
        return 0
    few = Shape("few", 2, 2, 16, shape.head_dim)
    inputs = variant.inputs(few, torch.device("cpu"))
    ranks = (inputs[product.rows.input.name].shape[-1] for product in plan.products)
    return sum(max(64, 1 << (rank - 1).bit_length()) for rank in ranks)


def listing(searches: Iterable[Search]) -> str:
    """The searches and their candidates, for a dry run."""
    lines = []
    for search in searches:
        lines.append(f"{search.name}\n  current  {tile_text(search.current)}")
        lines += [f"           {tile_text(tile)}" for tile in search.candidates]
    return "\n".join(lines)
