"""A measurement as Markdown, and as JSON that holds all that was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attngen.bench.machine import machine, one_line
from attngen.bench.measure import RowResult
from attngen.bench.session import Settings, Trouble
from attngen.bench.table import checks_table, peers_table, preparation_table, reasons

_DRY_RUN = ("A dry run: attngen's kernels run in Triton's interpreter, so its times say nothing.", "")


def markdown(settings: Settings, found: Sequence[RowResult], troubles: Sequence[Trouble]) -> str:
    """The tables of each shape: times and rates, memory and preparation, errors; then what did not run."""
    dtype = str(settings.dtype).removeprefix("torch.")
    text = [
        f"{one_line(machine())}; {dtype}",
        "",
        *(_DRY_RUN if settings.device.type == "cpu" else ()),
        "Milliseconds (TFLOP/s over unmasked scores); the last columns say how many times faster attngen is.",
        "",
    ]
    titles = [(peer.name, peer.title) for peer in settings.peers]
    for shape in settings.shapes:
        here = [r for r in found if r.shape == shape.name]
        if not here:
            continue
        text += [f"## {shape}", "", peers_table(here, titles), ""]
        if prepared := preparation_table(here, titles):
            text += ["Peak memory, forward and backward, and what is made beforehand:", "", prepared, ""]
        if settings.check:
            text += ["Largest relative error (out, gradients) against:", "", checks_table(here), ""]
    known = {peer.refuses(row) for peer in settings.peers for row in settings.rows}
    failures = [*reasons(found, but=sorted(known)), *map(str, troubles), *_refusals(settings)]
    if failures:
        text += ["Did not run:", "", *(f"- {line}" for line in failures), ""]
    return "\n".join(text)


def _refusals(settings: Settings) -> list[str]:
    """What some peers cannot express, a line for each reason and the variants that it holds for."""
    refused: dict[tuple[str, str], list[str]] = {}
    for peer in settings.peers:
        for row in settings.rows:
            if reason := peer.refuses(row):
                refused.setdefault((peer.title, reason), []).append(row.title)
    lines: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (title, reason), rows in refused.items():
        lines.setdefault((reason, tuple(rows)), []).append(title)
    return [f"{', '.join(titles)}: {reason}: {', '.join(rows)}" for (reason, rows), titles in lines.items()]


def record(settings: Settings, found: Sequence[RowResult], troubles: Sequence[Trouble]) -> dict[str, Any]:
    """The same, for a program to read."""
    return {
        "machine": machine(),
        "dtype": str(settings.dtype).removeprefix("torch."),
        "results": [r.as_dict() for r in found],
        "troubles": [str(t) for t in troubles],
    }


def progress(result: RowResult) -> str:
    """A row in a line, while the others still run."""
    times = [
        f"{name} {o.forward_ms:.2f}/{o.backward_ms:.2f}"
        for name, o in result.outcomes.items()
        if o.forward_ms is not None and o.backward_ms is not None
    ]
    check = f"; worst error {result.worst_error:.1e}" if result.errors else ""
    return f"{result.sizes} {result.title}: ms fwd/bwd {', '.join(times)}{check}"
