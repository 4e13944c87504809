"""TFLOP/s as bars, as in FlashAttention-2's figures: a panel a pass, forward above and backward below.

Where one row was measured at several lengths the bars stand over the lengths, a column of panels for each row
and head dimension; otherwise over the rows, a column for each shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attngen.bench.measure import RowResult
from attngen.errors import BuildError

_PASSES = ("forward", "backward")
_PEER_COLOURS = {
    "attngen": "#d1495b",
    "triton": "#edae49",
    "hopper": "#9b5de5",
    "flex": "#66a182",
    "cudnn": "#2e4057",
    "fa2": "#8d96a3",
    "standard": "#c9c9c9",
}


@dataclass(frozen=True)
class Panel:
    """A column of the figure: what it is of, and the label and result of each group of bars."""

    title: str
    groups: tuple[tuple[str, RowResult], ...]


def panels(found: Sequence[RowResult]) -> list[Panel]:
    """How results are laid out; shapes and rows keep their order."""
    lengths = {(r.row, r.heads, r.head_dim): set[int]() for r in found}
    for r in found:
        lengths[r.row, r.heads, r.head_dim].add(r.length)
    made: dict[str, list[tuple[str, RowResult]]] = {}
    by_length = any(len(several) > 1 for several in lengths.values())
    for r in found:
        if by_length:
            made.setdefault(f"{r.title}, D={r.head_dim}", []).append((_thousands(r.length), r))
        else:
            made.setdefault(r.place, []).append((r.title, r))
    return [Panel(title, tuple(groups)) for title, groups in made.items()]


def _thousands(length: int) -> str:
    return f"{length // 1024}k" if length % 1024 == 0 else str(length)


def rate(result: RowResult, peer: str, of: str) -> float | None:
    """TFLOP/s of one peer's pass, None where it has no time."""
    outcome = result.outcomes.get(peer)
    ms = getattr(outcome, f"{of}_ms") if outcome else None
    flops = result.forward_flops if of == "forward" else result.backward_flops
    return flops / ms / 1e9 if ms else None


def draw(found: Sequence[RowResult], peers: Sequence[tuple[str, str]], title: str, path: Path) -> None:
    """Write the figure; ``peers`` are (name, title). BuildError without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise BuildError("a plot needs matplotlib", hint="pip install 'attngen[plot]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = panels(found)
    widest = max(len(panel.groups) for panel in columns)
    size = (max(5.0, 0.95 * widest) * len(columns) + 1, 7.5)
    figure, axes = pyplot.subplots(2, len(columns), figsize=size, squeeze=False, sharey="row")
    for column, panel in enumerate(columns):
        for line, of in enumerate(_PASSES):
            _bars(axes[line][column], panel, peers, of)
            axes[line][column].set_title(f"{panel.title}: {of}", fontsize=10)
    for line in range(2):
        axes[line][0].set_ylabel("TFLOP/s over unmasked scores")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(peers), frameon=False)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _bars(axis: Any, panel: Panel, peers: Sequence[tuple[str, str]], of: str) -> None:
    width = 0.84 / len(peers)
    for i, (name, title) in enumerate(peers):
        rates = [rate(result, name, of) for _, result in panel.groups]
        at = [x + (i - (len(peers) - 1) / 2) * width for x in range(len(rates))]
        bars = axis.bar(at, [r or 0 for r in rates], width, label=title, color=_PEER_COLOURS.get(name))
        shown = [f"{r:.0f}" if r else "" for r in rates]
        axis.bar_label(bars, shown, fontsize=6, rotation=90, padding=2)
    axis.set_xticks(range(len(panel.groups)), [label for label, _ in panel.groups], fontsize=8, rotation=25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(y=0.15)
