"""The command line. Each command is a function here, and its work is in ``attngen/commands``.

Errors of a spec go to stderr as ``FILE:LINE:COL: error: ...``, and the exit status is 1; a wrong call of a
command is status 2. Nothing is imported before a command needs it: ``attngen check`` never loads torch.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from attngen.commands.common import Backend, Failures, complain, settings
from attngen.errors import AttnGenError
from attngen.spec_file import find_spec, zoo_names

app = typer.Typer(
    name="attngen",
    help="From a few lines of maths to an attention kernel, forward and backward.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a defect of ours is shown as Python shows it
)

Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="Paths of specs, or names from the zoo.")]
File = Annotated[str, typer.Argument(metavar="FILE", help="The path of a spec, or a name from the zoo.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Override a const.")]
BackendOption = Annotated[Backend, typer.Option(help="Who writes the kernel.")]


class Stage(StrEnum):
    """What the compiler thought, in the order in which it thinks."""

    AST = "ast"
    IR = "ir"
    RANGES = "ranges"
    PLAN = "plan"
    TRITON = "triton"


class Device(StrEnum):
    """Where the kernels run."""

    CPU = "cpu"
    CUDA = "cuda"


class BenchDtype(StrEnum):
    """What is timed."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


def main() -> None:
    """The console script."""
    try:
        app(prog_name="attngen")
    except AttnGenError as error:
        complain(error)
        sys.exit(1)


def _numbers(text: str) -> list[int]:
    """``"64,128"`` as ``[64, 128]``."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(f"{text!r} is not a list of positive numbers, as 64,128")
    return numbers


def _names(text: str | None) -> list[str]:
    """``"flex,cudnn"`` as ``["flex", "cudnn"]``; nothing as an empty list."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _pair(text: str) -> tuple[int, int]:
    """``"64,128"`` as ``(64, 128)``."""
    numbers = _numbers(text)
    if len(numbers) != 2:
        raise typer.BadParameter(f"{text!r} is not two positive numbers, as 64,128")
    return numbers[0], numbers[1]


def _table(*columns: str, title: str | None = None) -> Table:
    """Numbers to the right; a column without a head holds sentences. A word that is too long is folded."""
    table = Table(title=title, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 or not column else "right", overflow="fold")
    return table


def _print_table(table: Table) -> None:
    """Within the terminal's width; in a file or a pipe each row is one line."""
    console = Console()
    if not console.is_terminal:
        console.width = max(
            1, console.measure(table, options=console.options.update(max_width=10**6)).maximum
        )
    console.print(table)


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        from importlib import metadata

        try:
            print(f"attngen {metadata.version('attngen')}")
        except metadata.PackageNotFoundError:
            print("attngen, run from a checkout that is not installed")
        raise typer.Exit


@app.command()
def new(name: Annotated[str, typer.Argument(metavar="NAME", help="The variant's name.")]) -> None:
    """Write NAME.attn, a commented starter spec."""
    from attngen.commands.new import create

    path = create(name)
    print(f"wrote {path}; next: attngen check {path}")
    if path.stem in zoo_names():
        print(f"('{path.stem}' alone names the zoo's spec, not this file)")


@app.command()
def zoo(name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None) -> None:
    """List the ready specs, or print one."""
    from attngen.commands.zoo import listing

    if name is not None:
        print(find_spec(name.removesuffix(".attn")).text, end="")
        return
    specs = listing()
    width = max(len(spec) for spec, _ in specs)
    for spec, meaning in specs:
        print(f"{spec:<{width}}  {meaning}")


@app.command()
def check(
    files: Files,
    set_: Set = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings too.")] = False,
) -> None:
    """Check grammar, names and types; warn of what looks wrong."""
    from attngen.commands.check import signature, warnings
    from attngen.pipeline import check_spec

    overrides = settings(set_ or ())
    failures = Failures()
    for file in files:
        with failures.caught():
            source = find_spec(file)
            found = check_spec(source, overrides=overrides)
            for warning in warnings(source, found.lints):
                complain(warning)
            failures.count += strict * len(found.lints)
            print(f"{source.name}: ok: {signature(found.ir)}")
    failures.exit_if_any()


@app.command()
def show(
    file: File,
    stage: Annotated[Stage, typer.Option(help="Which stage.")] = Stage.TRITON,
    set_: Set = None,
    backend: BackendOption = Backend.AUTO,
) -> None:
    """Print one stage of the compiler: its tree, IR, tile ranges, plan, or the kernel itself."""
    from attngen.commands.show import text_of

    print(text_of(find_spec(file), stage.value, settings(set_ or ()), backend))


@app.command()
def build(
    files: Files,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where the modules go.")],
    set_: Set = None,
    backend: BackendOption = Backend.AUTO,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if a file would change.")
    ] = False,
) -> None:
    """Write DIR/<variant>.py, a module that needs torch and triton only."""
    from attngen.commands.build import compile_all

    failures = Failures()
    modules = compile_all(files, out, settings(set_ or ()), backend, failures)
    failures.exit_if_any()
    for module in modules:
        for warning in module.warnings:
            complain(warning)
        if not check:
            module.write()
            print(f"wrote {module.path}")
        elif not module.is_current():
            failures.count += 1
            complain(f"{module.path}: would {'change' if module.path.exists() else 'be written'}")
    failures.exit_if_any()


@app.command()
def mask(
    file: File,
    q: Annotated[int, typer.Option("--q", min=1, max=16384, help="Queries.")] = 256,
    k: Annotated[int, typer.Option("--k", min=1, max=16384, help="Keys.")] = 256,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE.png", help="Draw it to a file.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Set a const, a param or a size (heads=8), or fill an input with one value.",
        ),
    ] = None,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="M,N", help="Queries and keys of a tile; by default such that there are some 16."
        ),
    ] = None,
) -> None:
    """Show which keys each query sees, and which tiles the kernels skip, for one head of one sequence."""
    from attngen.commands import mask_drawing as drawing
    from attngen.commands.mask import sample

    picture = sample(find_spec(file), q, k, settings(set_ or ()), tile=_pair(tile) if tile else None)
    for line in picture.assumptions:
        print(line)
    if out is None:
        Console().print(drawing.terminal(picture), soft_wrap=True)
    else:
        drawing.save_png(picture, out)
        print(f"wrote {out}")


@app.command()
def test(
    files: Files,
    examples: Annotated[int, typer.Option(min=1, help="Random examples for each spec.")] = 50,
    device: Annotated[Device, typer.Option(help="cpu runs Triton's interpreter.")] = Device.CPU,
    backend: BackendOption = Backend.AUTO,
    head_dim: Annotated[
        str | None, typer.Option(metavar="LIST", help="Draw head dims from these, with commas between.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same examples.")] = 0,
    set_: Set = None,
) -> None:
    """Test the kernel against the reference on random shapes, strides and values."""
    from attngen.commands.test import run_tests

    run_tests(
        files,
        examples=examples,
        device=device.value,
        backend=backend,
        head_dims=_numbers(head_dim) if head_dim else None,
        seed=seed,
        overrides=settings(set_ or ()),
    )


@app.command()
def bench(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE...]", help="Specs. Without any: the rows of docs/performance.md."),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="SHAPE",
            help="d128, d64, d256, or sizes as B2,H16,S8192,D128. May be repeated.",
        ),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Each shape at these lengths, its number of tokens kept (on a CPU: one sequence).",
        ),
    ] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="LIST", help="Rows of docs/performance.md, with commas between.")
    ] = None,
    peers: Annotated[
        str | None, typer.Option(metavar="LIST", help="attngen, triton, flex, cudnn, fa2, standard.")
    ] = None,
    dtype: Annotated[
        BenchDtype | None, typer.Option(help="Of q, k and v: bfloat16 on a GPU, float16 on a CPU.")
    ] = None,
    device: Annotated[Device, typer.Option(help="cpu is a dry run in Triton's interpreter.")] = Device.CUDA,
    set_: Set = None,
    check: Annotated[bool, typer.Option(help="Hold every result against the others'.")] = True,
    workers: Annotated[int, typer.Option(min=0, help="Processes that compile beforehand.")] = 0,
    budget: Annotated[
        float, typer.Option(metavar="MS", min=0.0, help="How long each peer's pass is timed.")
    ] = 150.0,
    host: Annotated[
        bool, typer.Option("--host", help="Also the host's time a call, and first calls.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="For bench.md, bench.json, bench.png.")
    ] = None,
) -> None:
    """Time a spec beside FlexAttention, SDPA and standard attention, each checked against the others."""
    from attngen.commands.bench import Wanted, run_bench

    run_bench(
        Wanted(
            files=files or (),
            rows=_names(rows),
            shapes=shape or ["d128"],
            lengths=_numbers(lengths) if lengths else (),
            peers=_names(peers),
            dtype=dtype.value if dtype else None,
            device=device.value,
            overrides=settings(set_ or ()),
            check=check,
            workers=workers,
            budget_ms=budget,
            host=host,
            out=out,
        )
    )


@app.command("compile-check")
def compile_check(
    files: Files,
    target: Annotated[
        str, typer.Option(metavar="LIST", help="Targets, with commas between.")
    ] = "sm_80,sm_90,sm_100,gfx942",
    head_dim: Annotated[str, typer.Option(metavar="LIST", help="Head dims, with commas between.")] = "64,128",
    set_: Set = None,
    backend: BackendOption = Backend.AUTO,
) -> None:
    """Compile every kernel for each target, with no GPU, and hold it to the target's limits.

    These are its shared memory and tensor memory and, for sm_90 with 16-bit tensors and head dims up to 128,
    spills: none in Triton's kernels, 512 bytes in Gluon's (hopper_...), whose fastest tiles spill a little;
    4096 where tiles far from the diagonal have loops of their own, which do not.
    """
    from attngen.commands.compile_check import lines_of

    dims = _numbers(head_dim)
    failures = Failures()
    table = _table("variant", "kernel", "target", "head dim", "registers", "spills", "shared, bytes", "")
    for row in lines_of(files, target.split(","), dims, settings(set_ or ()), backend, failures):
        if not row.ok:
            failures.count += 1
        table.add_row(*row.cells, Text(row.verdict, style="" if row.ok else "bold red"))
    _print_table(table)
    failures.exit_if_any()


@app.command()
def tune(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE...]", help="Specs, or rows of the bench. Without any: one a cost class."
        ),
    ] = None,
    head_dim: Annotated[
        str, typer.Option(metavar="LIST", help="Head dims, with commas between.")
    ] = "64,128,256",
    dtype: Annotated[BenchDtype, typer.Option(help="Of q, k and v.")] = BenchDtype.BFLOAT16,
    passes: Annotated[
        str, typer.Option(metavar="LIST", help="Kernels: forward, dkdv, dq.")
    ] = "forward,dkdv,dq",
    backend: Annotated[
        Backend, typer.Option(help="Whose kernels; auto: both, and which to take.")
    ] = Backend.AUTO,
    budget: Annotated[float, typer.Option(metavar="SECONDS", min=1.0, help="Stop after this long.")] = 1800.0,
    candidates: Annotated[int, typer.Option(min=1, help="Tiles to try for each row.")] = 12,
    workers: Annotated[int, typer.Option(min=1, help="Processes that compile.")] = 8,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="TABLE", help="The table that gets the rows.")
    ] = Path("tiles.csv"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from TABLE.journal.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the candidates; no GPU needed.")] = False,
) -> None:
    """Time tiles on this GPU and write those that gain into a table (see docs/tuning.md)."""
    from attngen.commands.tune import Wanted, run_tune

    wanted = _names(passes)
    if wrong := [name for name in wanted if name not in ("forward", "dkdv", "dq")]:
        raise typer.BadParameter(f"passes are forward, dkdv and dq, got {wrong[0]!r}")
    backends = {Backend.AUTO: ("triton", "gluon"), Backend.TRITON: ("triton",), Backend.HOPPER: ("gluon",)}
    run_tune(
        Wanted(
            files=files or (),
            head_dims=_numbers(head_dim),
            dtype=dtype.value,
            passes=wanted,
            backends=backends[backend],
            budget=budget,
            most=candidates,
            workers=workers,
            out=out,
            resume=resume,
            dry_run=dry_run,
        )
    )


if __name__ == "__main__":
    main()
