"""``attngen compile-check``: every kernel compiled for each target, and held to its limits, with no GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from attngen.commands.common import Backend, Failures
from attngen.ir.types import Scalar
from attngen.spec_file import find_spec

if TYPE_CHECKING:
    from attngen.compile_check import Row


@dataclass(frozen=True)
class Line:
    """One compiled kernel as a line of the table. ``ok`` is False where a limit of the target is passed;
    ``verdict`` says which, or what the assembler warns of."""

    cells: tuple[str, ...]
    ok: bool
    verdict: str


def lines_of(
    files: Sequence[str],
    targets: Sequence[str],
    head_dims: Sequence[int],
    overrides: Mapping[str, Scalar],
    backend: Backend,
    failures: Failures,
) -> Iterator[Line]:
    """The table's lines. Specs that do not compile at all go to ``failures``."""
    # Before triton is imported: its compiler does not work beside the interpreter.
    os.environ["TRITON_INTERPRET"] = "0"

    from attngen.compile_check import check
    from attngen.pipeline import compile_spec

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    total = len(files) * len(targets) * len(head_dims)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("compiling", total=total)
        for file in files:
            result = None
            with failures.caught():
                result = compile_spec(find_spec(file), overrides=overrides, backend=backend.value)
            for target in targets:
                for head_dim in head_dims:
                    if result is not None:
                        progress.update(task, description=f"{result.ir.name} {target} {head_dim}")
                        for row in check(result, targets=[target], head_dims=[head_dim]):
                            verdict = f"ok; {row.note}" if row.ok and row.note else row.note or "ok"
                            yield Line((result.ir.name, *_cells(row)), row.ok, verdict)
                    progress.advance(task)


def _cells(row: Row) -> tuple[str, ...]:
    numbers = (row.head_dim, row.registers, row.spills, row.shared)
    texts = ("" if number is None else str(number) for number in numbers)
    return (row.kernel, row.target, *texts)
