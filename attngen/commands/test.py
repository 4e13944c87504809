"""``attngen test``: the kernel against the reference, on random calls, with the shrunk one that fails."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from attngen.commands.common import Backend, Failures, require_cuda
from attngen.errors import BuildError
from attngen.ir.types import Scalar

if TYPE_CHECKING:
    from attngen.testing.run import Report


def run_tests(
    files: Sequence[str],
    *,
    examples: int,
    device: str,
    backend: Backend,
    head_dims: Sequence[int] | None,
    seed: int,
    overrides: Mapping[str, Scalar],
) -> None:
    """Test every FILE and print a line for each; exit status 1 where one fails or cannot be built.

    Most examples of a spec with long windows, chunks and the like run with small ones (testing.builds).
    """
    # Triton reads this when it is first imported, which nothing has done yet.
    os.environ["TRITON_INTERPRET"] = "1" if device == "cpu" else "0"
    _require(device)

    from attngen.spec_file import find_spec
    from attngen.testing.builds import builds_of
    from attngen.testing.run import run_property_tests

    failures = Failures()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        for file in files:
            task = progress.add_task(file, total=examples)
            with failures.caught():
                before = 0
                builds = builds_of(find_spec(file), examples, overrides=overrides, backend=backend.value)
                for tested, consts, count in builds:
                    started = time.perf_counter()
                    report = run_property_tests(
                        tested,
                        examples=count,
                        device=device,
                        head_dims=head_dims,
                        seed=seed,
                        progress=partial(_advance, progress, task, before),
                    )
                    failures.count += not report.passed
                    progress.console.file.flush()
                    print(summary(report, time.perf_counter() - started, consts), flush=True)
                    before += count
            progress.remove_task(task)
    failures.exit_if_any()


def _advance(progress: Progress, task: TaskID, before: int, done: int) -> None:
    progress.update(task, completed=before + done)


def summary(report: Report, seconds: float, consts: Mapping[str, Scalar] | None = None) -> str:
    """One line for a variant that passed; the counter-example too for one that failed.

    ``consts`` are those that the tested build overrides.
    """
    name = report.variant + "".join(f" {const}={value}" for const, value in (consts or {}).items())
    if not report.passed:
        return f"{name}: FAILED after {report.examples} examples\n\n{report.failure}\n"
    line = f"{name}: {report.examples} examples passed in {seconds:.0f} s"
    if report.worst:
        (dtype, _), worst = max(report.worst.items(), key=lambda item: item[1].ratio)
        line += f"; largest error {worst.ratio:.2f} of its bound ({worst.name}, {dtype})"
    return line


def _require(device: str) -> None:
    try:
        import hypothesis  # noqa: F401
    except ImportError:
        raise BuildError("property tests need hypothesis", hint="pip install 'attngen[test]'") from None
    if device == "cuda":
        require_cuda()
