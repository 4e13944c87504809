"""``attngen tune``: candidate tiles timed on the GPU at hand, and the rows of a table that they change."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from attngen.errors import BuildError
from attngen.runtime import files

if TYPE_CHECKING:
    from attngen.plan.table import Row, TileTable
    from attngen.plan.tile import HopperTile, Tile
    from attngen.tune.search import Search

_COMPILING = 0.55  # of the time budget


@dataclass(frozen=True)
class Wanted:
    """What the command line asked for. ``budget`` is seconds, ``most`` candidates a search."""

    files: Sequence[str]
    head_dims: Sequence[int]
    dtype: str
    passes: Sequence[str]
    backends: Sequence[str]
    budget: float
    most: int
    workers: int
    out: Path
    resume: bool
    dry_run: bool


def run_tune(wanted: Wanted) -> None:
    """Measure and write. An interrupt, or the end of the budget, keeps what was measured."""
    import torch
    import triton

    from attngen.plan.table import current
    from attngen.tune.search import listing, searches_of, variants_of

    if not (wanted.dry_run or torch.cuda.is_available()):
        raise BuildError("torch sees no CUDA device to measure on", hint="--dry-run lists the candidates")
    if triton.knobs.runtime.interpret and not wanted.dry_run:
        raise BuildError("TRITON_INTERPRET is set: nothing would be compiled", hint="unset it")
    target, shared = _target(wanted.dtype)
    searches = searches_of(
        variants_of(wanted.files),
        wanted.head_dims,
        wanted.passes,
        wanted.backends,
        current(),
        target=target,
        shared=shared,
        item=getattr(torch, wanted.dtype).itemsize,
        most=wanted.most,
    )
    if wanted.dry_run:
        print(f"{target}, {shared} bytes of shared memory a program\n{listing(searches)}")
        return
    _measure(wanted, searches, current())


def _target(dtype: str) -> tuple[str, int]:
    """The rows of the table that hold here, and the bytes a program may have; sm_90's without a GPU."""
    import torch

    from attngen.plan.tiles import limits_of, row_target

    target = "sm_90"
    if dtype == "float32":  # its rows hold for every GPU
        target = "float32"
    elif torch.cuda.is_available():
        target = row_target(None if torch.version.hip else torch.cuda.get_device_capability())
    return target, min(most for _, most in limits_of(target))


def _measure(wanted: Wanted, searches: Sequence[Search], table: TileTable) -> None:
    from attngen.bench.machine import machine
    from attngen.tune import session
    from attngen.tune.gpu import GpuTimer
    from attngen.tune.journal import Journal

    started = time.monotonic()
    here = machine()
    about = {name: here[name] for name in ("device", "torch", "triton")} | {"dtype": wanted.dtype}
    path = wanted.out.with_name(wanted.out.name + ".journal")
    journal = Journal(path, about, resume=wanted.resume)
    origin = (
        f"{wanted.dtype}; {here['device']}; torch {here['torch']}; triton {here['triton']}; {here['date']}"
    )
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    stopped = False
    try:
        with Progress(*columns, console=console, transient=True) as bar:
            skip = _compile(wanted, searches, journal.has, bar, started + _COMPILING * wanted.budget)
            task = bar.add_task("timing", total=sum(len(s.candidates) for s in searches))
            bar.advance(task, sum(journal.has(s.id, text) for s in searches for text in s.texts))

            def left() -> float:
                return started + wanted.budget - time.monotonic()

            for step in session.run(searches, GpuTimer(wanted.dtype), journal, left, skip):
                bar.update(task, advance=step.done, description=step.search.name)
                if step.line:
                    console.print(step.line, highlight=False)
    except KeyboardInterrupt:
        stopped = True
    rows = session.rows_of(searches, journal, origin)
    rows += session.choices(searches, journal, table.updated(rows), origin)
    _print(rows, searches, console)
    _write(wanted.out, rows)
    missing = sum(not journal.has(s.id, text) for s in searches for text in s.texts)
    if missing or stopped:
        console.print(f"{missing} candidates are not measured yet: the same command with --resume goes on")


def _compile(
    wanted: Wanted,
    searches: Sequence[Search],
    is_known: Callable[[str, str], bool],
    bar: Progress,
    until: float,
) -> dict[tuple[str, Tile | HopperTile], str]:
    """Compile what is not measured yet, in parallel; which candidates need no race, and why.

    One that spills more than the current tile needs none. Where the time is over, those not compiled are not
    mentioned: they are compiled when it is their turn.
    """
    from attngen.tune.gpu import Compiled, compile_one
    from attngen.tune.workers import Workers

    started = time.monotonic()
    jobs = []
    for search in searches:
        fresh = [
            t
            for t, text in zip(search.candidates, search.texts, strict=True)
            if not is_known(search.id, text)
        ]
        jobs += [(place, search, tile) for place, tile in enumerate([search.current, *fresh]) if fresh]
    jobs.sort(key=lambda job: job[0])  # the likeliest candidates of all searches first
    task = bar.add_task("compiling", total=len(jobs))
    spills: dict[tuple[str, Tile | HopperTile], int] = {}
    skip: dict[tuple[str, Tile | HopperTile], str] = {}
    workers = Workers(compile_one, wanted.workers, Compiled(0, "lost its process, or took too long"))
    for (search, tile, _), found in workers.results([(s, t, wanted.dtype) for _, s, t in jobs], until):
        bar.advance(task)
        if found.why:
            skip[search.id, tile] = found.why
        else:
            spills[search.id, tile] = found.spills
    bar.remove_task(task)
    taken = time.monotonic() - started
    bar.console.print(f"compiled {len(spills) + len(skip)} of {len(jobs)} in {taken:.0f} s", highlight=False)
    for search in searches:
        most = spills.get((search.id, search.current), 0)
        for tile in search.candidates:
            if spills.get((search.id, tile), 0) > most:
                skip[search.id, tile] = f"{spills[search.id, tile]} registers spilled"
    return skip


def _print(rows: Sequence[Row], searches: Sequence[Search], console: Console) -> None:
    from rich.table import Table

    from attngen.plan.tile import tile_text

    before = {search.key: search.current for search in searches}
    shown = Table("back end", "kernel", "class", "head dim", "before", "now", "TFLOP/s", box=None)
    for row in rows:
        if (old := before.get(row.key)) != row.tile:
            tiles = ["" if old is None else tile_text(old)]
            tiles.append(row.tile if isinstance(row.tile, str) else tile_text(row.tile))
            tflops = "" if row.tflops is None else f"{row.tflops:.0f}"
            shown.add_row(row.backend, row.kernel, row.cost, str(row.head_dim), *tiles, tflops)
    console.print(shown if shown.row_count else "every tile stays as it is")


def _write(out: Path, rows: Sequence[Row]) -> None:
    """Put the rows into the table at ``out``: those that it has of other keys stay."""
    from attngen.plan.table import TileTable, parse_table, table_text
    from attngen.source import Source

    held = TileTable(())
    if out.exists():
        held = parse_table(Source(out.read_text(encoding="utf-8"), str(out)))
    if rows:
        files.write(out, table_text(held.updated(rows)))
        print(f"wrote {out}")
