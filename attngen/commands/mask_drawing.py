"""A mask as a picture: a score's shade says whether it is kept, a tile's colour what the loops do with it.

█     FULL     visited, and no mask is evaluated
░▒▓   PARTIAL  visited and masked: none, some or all of a character's scores are kept
·     EMPTY    not visited
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from attngen.commands.mask import Picture
from attngen.errors import BuildError

if TYPE_CHECKING:
    from torch import Tensor

_BLOCKS, _ASCII = "·░▒▓█", ".-+*#"
_STYLES = ("bright_black", "yellow", "yellow", "yellow", "green")
_EMPTY, _NONE, _SOME, _ALL, _FULL = range(5)

# Not visited; masked and left out; masked and kept; kept without a mask; kept, not visited: a defect.
COLOURS = ("#f2f4f5", "#ffe0b2", "#ef6c00", "#00796b", "#d50000")


def terminal(picture: Picture) -> Text:
    """The picture in characters, after its legend: a row of text is some queries, a column some keys."""
    columns = max(16, min(64, shutil.get_terminal_size().columns - 2))
    q_len, k_len = picture.keeps.shape
    across = _cell(-(-k_len // columns), picture.tile[1])
    down = min(_cell(2 * across, picture.tile[0]), q_len)  # a character is about twice as high as it is wide
    signs = _characters()
    drawn = Text(f"{picture.title}, tiles of {picture.tile[0]} x {picture.tile[1]}\n")
    for kinds, meaning in _legend(picture):
        drawn.append("  ")
        for kind in kinds:
            drawn.append(signs[kind], _STYLES[kind])
        drawn.append(f" {meaning}\n")
    drawn.append(f"A character is {down} x {across} scores; of PARTIAL, none, some or all are kept.\n")
    for line in _cells(picture, down, across):
        drawn.append("\n")
        for style, run in groupby(line, lambda kind: _STYLES[kind]):
            drawn.append("".join(signs[kind] for kind in run), style)
    return drawn


def _legend(picture: Picture) -> Iterator[tuple[tuple[int, ...], str]]:
    rows = (
        ((_FULL,), "FULL: no mask is evaluated"),
        ((_NONE, _SOME, _ALL), "PARTIAL: the mask is evaluated"),
        ((_EMPTY,), "EMPTY: not visited"),
    )
    for (signs, meaning), number in zip(rows, (2, 1, 0), strict=True):
        keys, queries = (int((tiles == number).sum()) for tiles in (picture.tiles, picture.transposed))
        count = f"{keys} tiles" if keys == queries else f"{keys} tiles; {queries} for dK and dV"
        yield signs, f"{meaning} ({count})"


def _cell(least: int, tile: int) -> int:
    """How many scores a character stands for along one side: it lies in one tile, or covers whole tiles."""
    while tile % least and least % tile:
        least += 1
    return least


def _cells(picture: Picture, down: int, across: int) -> Iterator[list[int]]:
    keeps, tiles = picture.keeps, spread(picture.tiles, picture)
    q_len, k_len = keeps.shape
    for top in range(0, q_len, down):
        line = []
        for left in range(0, k_len, across):
            kept = keeps[top : top + down, left : left + across]
            tile = tiles[top : top + down, left : left + across]
            if (tile == 0).all():
                line.append(_EMPTY)
            elif (tile == 2).all():
                line.append(_FULL)
            else:
                line.append(_ALL if kept.all() else _SOME if kept.any() else _NONE)
        yield line


def spread(tiles: Tensor, picture: Picture) -> Tensor:
    """[q, k]: each score's tile."""
    rows, columns = picture.tile
    q_len, k_len = picture.keeps.shape
    return tiles.repeat_interleave(rows, 0)[:q_len].repeat_interleave(columns, 1)[:, :k_len]


def _characters() -> str:
    try:
        _BLOCKS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return _ASCII
    return _BLOCKS


def shades(picture: Picture) -> Tensor:
    """[q, k]: the index into COLOURS of each score."""
    tiles = spread(picture.tiles, picture).long()
    kept = picture.keeps.long()
    return (tiles == 1) * (1 + kept) + (tiles == 2) * 3 + (tiles == 0) * kept * 4


def save_png(picture: Picture, path: Path) -> None:
    """Draw the mask with matplotlib, which the ``plot`` extra brings."""
    try:
        from matplotlib.colors import ListedColormap
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        raise BuildError("a picture file needs matplotlib", hint="pip install 'attngen[plot]'") from None
    figure = Figure(figsize=(6, 7), layout="constrained")
    axes = figure.add_subplot()
    q_len, k_len = picture.keeps.shape
    axes.imshow(
        shades(picture).numpy(),
        cmap=ListedColormap(COLOURS),
        vmin=0,
        vmax=len(COLOURS) - 1,
        interpolation="nearest",
        extent=(0.0, float(k_len), float(q_len), 0.0),
        aspect="equal" if max(q_len, k_len) <= 8 * min(q_len, k_len) else "auto",
    )
    rows, columns = picture.tile
    if q_len <= 64 * rows and k_len <= 64 * columns:  # finer, and the lines hide the picture
        axes.hlines(range(0, q_len, rows), 0, k_len, colors="white", linewidth=0.4)
        axes.vlines(range(0, k_len, columns), 0, q_len, colors="white", linewidth=0.4)
    axes.set_title(f"{picture.title}, tiles of {rows} x {columns}", fontsize="medium")
    axes.set_xlabel("\n".join(["key k", *picture.assumptions]))
    axes.set_ylabel("query q")
    (_, full), (_, partial), (_, empty) = _legend(picture)
    texts = {3: full, 2: partial, 1: "of PARTIAL, what is not kept", 0: empty}
    patches = [Patch(facecolor=COLOURS[at], edgecolor="#90a4ae", label=text) for at, text in texts.items()]
    figure.legend(handles=patches, loc="outside lower center", fontsize="small", frameon=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:  # ValueError: an ending that matplotlib cannot write
        raise BuildError(f"cannot write {path}: {error}") from None
