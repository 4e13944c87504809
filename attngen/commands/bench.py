"""``attngen bench``: a spec beside its peers, checked, timed, tabulated and drawn."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from attngen.commands.common import Failures, require_cuda
from attngen.ir.types import Scalar
from attngen.runtime import files

if TYPE_CHECKING:
    from attngen.bench.host import HostTime
    from attngen.bench.measure import RowResult
    from attngen.bench.rows import Row, Shape
    from attngen.bench.session import Settings, Trouble


@dataclass(frozen=True)
class Wanted:
    """What the command line asked for, still as text."""

    files: Sequence[str]
    rows: Sequence[str]
    shapes: Sequence[str]
    lengths: Sequence[int]
    peers: Sequence[str]
    dtype: str | None  # None: what the device's kernels are usually run with
    device: str
    overrides: Mapping[str, Scalar]
    check: bool
    workers: int
    budget_ms: float
    host: bool
    out: Path | None


def run_bench(wanted: Wanted) -> None:
    """Measure, print, write. Exit status 1 where a result is wrong or a row has none."""
    # Triton reads this when it is first imported, which nothing has done yet. A call's operators would
    # otherwise run in PyTorch on a CPU: not the kernels that are measured.
    os.environ["TRITON_INTERPRET"] = "1" if wanted.device == "cpu" else "0"
    if wanted.device == "cuda":
        require_cuda()
    elif wanted.dtype == "bfloat16":
        raise typer.BadParameter(
            "Triton's interpreter, which runs the kernels on a CPU, has wrong bfloat16 products:"
            " expected --dtype float16 (the default there) or float32, got bfloat16"
        )
    from attngen.bench import session
    from attngen.bench.report import markdown, progress, record

    settings = _settings(wanted)
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    found: list[RowResult] = []
    troubles: list[Trouble] = []
    with bar:
        if wanted.workers:
            task = bar.add_task("compiling", total=None)
            for line in session.warm(
                settings, wanted.workers, lambda done, of: bar.update(task, completed=done, total=of)
            ):
                console.print(line, highlight=False)
            bar.remove_task(task)
        task = bar.add_task("measuring", total=settings.size)
        for result in session.results(settings):
            if isinstance(result, session.Trouble):
                troubles.append(result)
                console.print(str(result), highlight=False)
            else:
                found.append(result)
                console.print(progress(result), highlight=False)
            bar.advance(task)
    text = markdown(settings, found, troubles)
    if wanted.host:
        text += "\n" + _host_section(settings)
    print(text)
    if wanted.out is not None:
        wanted.out.mkdir(parents=True, exist_ok=True)
        files.write(wanted.out / "bench.json", json.dumps(record(settings, found, troubles), indent=1) + "\n")
        files.write(wanted.out / "bench.md", text + "\n")
        _draw(settings, found, wanted.out / "bench.png")
    if troubles or not all(result.is_sound(settings.check) for result in found):
        raise typer.Exit(1)


def _settings(wanted: Wanted) -> Settings:
    import torch

    from attngen.bench.peers import USUAL_PEERS
    from attngen.bench.rows import parse_shape
    from attngen.bench.session import Settings, peers_named
    from attngen.bench.suite import USUAL_ROWS, row_of, rows_named

    try:
        shapes: list[Shape] = [parse_shape(text) for text in wanted.shapes]
        peers = peers_named(wanted.peers or USUAL_PEERS)
        rows: list[Row] = list(rows_named(wanted.rows or (() if wanted.files else USUAL_ROWS)))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if wanted.lengths:
        # A dry run is to end: as many tokens as fill a GPU take a CPU hours.
        keep = wanted.device != "cpu"
        shapes = [shape.with_length(n, keep_tokens=keep) for shape in shapes for n in wanted.lengths]
    failures = Failures()
    for file in wanted.files:
        with failures.caught():
            rows.append(row_of(file, wanted.overrides))
    failures.exit_if_any()
    return Settings(
        tuple(rows),
        tuple(shapes),
        peers,
        getattr(torch, wanted.dtype or ("float16" if wanted.device == "cpu" else "bfloat16")),
        torch.device(wanted.device),
        wanted.check,
        wanted.budget_ms,
    )


def _draw(settings: Settings, found: Sequence[RowResult], path: Path) -> None:
    from attngen.bench.machine import machine, one_line
    from attngen.bench.plot import draw
    from attngen.errors import BuildError

    if not found:
        return
    try:
        draw(found, [(peer.name, peer.title) for peer in settings.peers], one_line(machine()), path)
    except BuildError as error:  # the tables are written: only the picture is missing
        Console(stderr=True).print(f"no plot: {error}", highlight=False)


def _host_section(settings: Settings) -> str:
    from attngen.bench.host import SHAPE, first_call, host_times
    from attngen.bench.peers import variant_of
    from attngen.bench.table import columns

    modes = {"inference": "forward, no gradients", "training": "forward", "both": "forward and backward"}
    cells = [["variant", "call", *(peer.title for peer in settings.peers)]]
    for row in settings.rows:
        times = host_times(row, settings.peers, settings.dtype)
        for name, (mode, title) in zip([row.title, "", ""], modes.items(), strict=True):
            cells.append([name, title, *(_microseconds(times[peer.name], mode) for peer in settings.peers)])
    first = [["variant", "forward", "forward and backward"]]
    for row in settings.rows:
        if not variant_of(row).ir.inputs:
            taken = [first_call(row.spec, backward=backward) for backward in (False, True)]
            first.append([row.title, *map(str, taken)])
    parts = [f"## Host time\n\nMicroseconds a call takes the host, {SHAPE}:\n\n{columns(cells, left=2)}\n"]
    if len(first) > 1:
        parts.append(
            "Seconds from a spec that was never built to its first result, B1 H4 S512 D128; of these, to its"
            f" module, and in Triton's compiler:\n\n{columns(first)}\n"
        )
    return "\n".join(parts)


def _microseconds(found: HostTime | str, mode: str) -> str:
    return "-" if isinstance(found, str) else f"{getattr(found, mode):.1f}"
