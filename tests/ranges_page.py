"""Writes docs/ranges.md: the tiles that the zoo's loops visit, beside the fewest that any could.

    python tests/ranges_page.py [NAME...]      the page; with names their rows alone, on the terminal

Bounds are the plan's own (``attngen.tile_map``); the fewest are counted from the mask, score by score.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from zoo_samples import sample_of  # noqa: E402

from attngen.eager import Environment, evaluate  # noqa: E402
from attngen.ir.nodes import TRUE  # noqa: E402
from attngen.ir.printer import print_expr  # noqa: E402
from attngen.ir.types import Scalar  # noqa: E402
from attngen.pipeline import compile_spec  # noqa: E402
from attngen.plan.plan import Plan  # noqa: E402
from attngen.reference import bind  # noqa: E402
from attngen.spec_file import find_spec, zoo_names  # noqa: E402
from attngen.tile_map import Tile, key_tiles, query_tiles  # noqa: E402

PAGE = ROOT / "docs" / "ranges.md"
BLOCK = 64
SHAPES = ((4096, 4096), (3000, 3000), (1000, 3500), (2000, 1200))
_ROWS = 512  # of the mask that are evaluated at a time

#: Why a spec's loops visit more than a tenth too many tiles.
REASONS: Mapping[str, str] = {
    "bigbird": "the random blocks come from a table that is not sorted",
    "block_diffusion": "`k % half` of the streamed variable is not solved",
    "block_sparse": "a bool input says which blocks are kept",
    "decode_offset": "a tile of keys that no query sees visits the ragged last tile of queries",
    "duo_attention": "the condition of a head widens both ranges to one",
    "fixed_sparse": "the columns repeat: `k % block` is not solved",
    "logsparse": "more diagonals than a tile has ranges",
    "longformer": "the condition of the global rows widens both ranges to one",
    "natten_2d": "a tile of keys that no query sees visits the ragged last tile of queries",
    "natten_morton": "the bits of the streamed variable are not solved",
    "natten_tiled": "`k // area % across` of the streamed variable is not solved",
    "neighbourhood_2d": "a tile of keys that no query sees visits the ragged last tile of queries",
    "packed_prefix": "two tables at once",
    "parallel_contexts": "the rows of the task are not found from a tile of keys",
    "permutation_lm": "the order is a table that is not sorted",
    "phi3_small": "the columns repeat: `(k // block + h + 1) % stride` is not solved",
    "retro": "a tile of keys that no query sees visits the ragged last tile of queries",
    "shared_prefix": "the prefix and the branch are joined to one range",
    "sta_2d": "`k // area % across` of the streamed variable is not solved",
    "sta_3d": "`k // size % across` of the streamed variable is not solved",
    "strided_sparse": "the diagonals repeat: `dist % stride` is not solved",
    "striped_ring": "a tile of keys that no query sees visits the ragged last tile of queries",
    "svg_spatial": "the condition of the prompt's rows widens both ranges to one",
    "svg_temporal": "`(k - prompt) % frame` of the streamed variable is not solved",
    "tree_intervals": "the ends of the branches come from a table that is not sorted",
    "tree_speculation": "a bool input says what is an ancestor",
}


@dataclass(frozen=True)
class Count:
    """Tiles visited, those of them that evaluate the mask, and the fewest of both."""

    visited: int
    fewest: int
    masked: int
    fewest_masked: int

    @property
    def ratio(self) -> float:
        return self.visited / max(self.fewest, 1)

    def __str__(self) -> str:
        return f"{self.visited} / {self.fewest} · {self.masked} / {self.fewest_masked}"


def plan_and_call(
    name: str, q_len: int, k_len: int, consts: Mapping[str, Scalar] | None = None
) -> tuple[Plan, Environment]:
    """One spec's plan, and its sample call at these lengths; ``consts`` other than its ``large``."""
    sample = sample_of(name)
    plan = _plan(name, tuple((sample.large if consts is None else consts).items()))
    read = sample.inputs(q_len, k_len)
    inputs = {i.name: read.get(i.name, torch.zeros([1] * len(i.dims))) for i in plan.ir.inputs}
    params = {p.name: sample.params.get(p.name, p.default) for p in plan.ir.params}
    params = {param: 1 if value is None else value for param, value in params.items()}
    q, k = (torch.empty(1, 1, n, 64) for n in (q_len, k_len))
    return plan, bind(plan.ir, q, k, k, inputs, params)


@cache
def _plan(name: str, consts: tuple[tuple[str, Scalar], ...]) -> Plan:
    return compile_spec(find_spec(name), overrides=dict(consts)).plan


def needed(plan: Plan, env: Environment, block: int, *, below: bool) -> Tensor:
    """[query tiles, key tiles]: ``Tile``s as the mask itself has them, score by score.

    Beyond the keys nothing is kept: a ragged tile is masked. ``below``: whether beyond the queries all is.
    """
    grid, found = env.grid, []
    wide = -(-grid.k_len // block) * block
    for first in range(0, grid.q_len, _ROWS):
        last = min(first + _ROWS, grid.q_len)
        part = replace(env, grid=replace(grid, first_row=first, last_row=last))
        kept = evaluate(plan.ir.mask, part, torch.float32).expand(part.grid.shape)[0, 0]
        kept = F.pad(kept, (0, wide - grid.k_len), value=False)
        beyond = (0, 0, 0, -(last - first) % block)
        some, every = (F.pad(kept, beyond, value=value).unflatten(0, (-1, block)) for value in (False, below))
        any_kept = some.unflatten(2, (-1, block)).any(3).any(1)
        found.append(any_kept.to(torch.int8) + every.unflatten(2, (-1, block)).all(3).all(1) * any_kept)
    return torch.cat(found)


def counts(name: str, q_len: int, k_len: int, block: int = BLOCK) -> tuple[Count, Count]:
    """Of keys past tiles of queries (forward, dQ), and of queries past tiles of keys (dK, dV).

    Holds every tile against the mask on the way: an AssertionError is a defect of the compiler.
    """
    plan, env = plan_and_call(name, q_len, k_len)
    result = []
    for tiles, below in (
        (key_tiles(plan, env, block, block)[0, 0], True),
        (query_tiles(plan, env, block, block)[0, 0], False),
    ):
        fewest = needed(plan, env, block, below=below)
        assert not ((tiles == Tile.EMPTY) & (fewest != Tile.EMPTY)).any(), f"{name}: a kept score is skipped"
        assert not ((tiles == Tile.FULL) & (fewest != Tile.FULL)).any(), f"{name}: a masked score is kept"
        masked, fewest_masked = ((each == Tile.PARTIAL).sum().item() for each in (tiles, fewest))
        visited, least = ((each != Tile.EMPTY).sum().item() for each in (tiles, fewest))
        result.append(Count(int(visited), int(least), int(masked), int(fewest_masked)))
    return result[0], result[1]


def kinds() -> Iterator[list[str]]:
    """The zoo's specs, those together that have one mask (and one sample); those without a mask left out."""
    found: dict[object, list[str]] = {}
    for name in zoo_names():
        ir = _plan(name, tuple(sample_of(name).large.items())).ir
        if ir.mask is not TRUE:
            inputs = tuple(i for i in ir.inputs if i.name in print_expr(ir.mask))
            found.setdefault((ir.mask, inputs), []).append(name)
    for names in found.values():
        yield sorted(names, key=lambda name: (name != "causal", name))


_HEAD = f"""# Tiles visited

What the loops of the zoo's kernels visit, beside the fewest tiles of {BLOCK} x {BLOCK} that hold every kept
score; and how many of them evaluate the mask, beside those that hold a score which is not kept. The visited
ones come from the plan's own bounds (`attngen show NAME --stage ranges` prints them), the fewest from the
mask itself, score by score. `python tests/ranges_page.py` writes this page; `attngen mask NAME` draws the
same.

Lengths are queries x keys; consts and inputs are those of `tests/zoo_samples.py`, where the spec's own would
not show at these lengths (a window of 4096 keys) or have no value. A cell is *visited / fewest · masked /
fewest masked*. Where queries stream past keys, a ragged last tile of queries is masked, since it has rows
beyond the last query; so it counts among the fewest masked.
"""


def page() -> str:
    rows = [(names, [counts(names[0], *shape) for shape in SHAPES]) for names in kinds()]
    parts = [_HEAD, _summary(rows)]
    for at, title in enumerate(
        ("Keys past a tile of queries: forward, dQ", "Queries past a tile of keys: dK, dV")
    ):
        cells = [["spec", *(f"{q} x {k}" for q, k in SHAPES)], ["---"] * (1 + len(SHAPES))]
        cells += [[_label(names), *(str(found[at]) for found in row)] for names, row in rows]
        parts.append(f"## {title}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n")
    return "\n".join(parts)


Row = tuple[list[str], Sequence[tuple[Count, Count]]]


def _summary(rows: Sequence[Row]) -> str:
    """Which rows are at the fewest, and what keeps the others from it."""
    exact, near, far = [], [], []
    for names, row in rows:
        worst = max(one.ratio for found in row for one in found)
        if worst == 1:
            exact += names
        elif worst <= 1.1:
            near.append(f"`{names[0]}` {worst:.2f}")
        else:
            far.append((worst, names[0]))
    listed = ", ".join(f"`{name}`" for name in sorted(exact))
    parts = [f"Exactly the fewest, in both directions at every length: {listed}."]
    if near:
        parts.append(f"Within a tenth of them: {', '.join(near)}.")
    if far:
        table = ["| spec | times the fewest | reason |", "|---|---|---|"]
        table += [
            f"| `{name}` | {worst:.2f} | {REASONS.get(name, '')} |" for worst, name in sorted(far)[::-1]
        ]
        parts += ["What visits more, at its worst, and why:", "\n".join(table)]
    return "\n\n".join(parts) + "\n"


def _label(names: list[str]) -> str:
    others = f" ({len(names) - 1} more)" if len(names) > 1 else ""
    return f"`{names[0]}`{others}"


def main() -> None:
    if len(sys.argv) > 1:
        for name in sys.argv[1:]:
            for shape in SHAPES:
                print(name, "{} x {}".format(*shape), *counts(name, *shape), sep="   ", flush=True)
    else:
        PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
