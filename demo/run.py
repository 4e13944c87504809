"""Build two variants, hold them against the reference, and train a small GPT with them: ``make demo``.

With a CUDA device: bfloat16 kernels at a real size. Without one: small float32 ones in Triton's interpreter.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

# Triton reads this when it is first imported, which importing torch does not do.
ON_GPU = torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET", "0") in ("", "0")
if not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"

from curves import largest_deviation, plot, running_means  # noqa: E402
from model import Attend, Size, train  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from rich.table import Table  # noqa: E402

import attngen  # noqa: E402
from attngen.testing import assert_matches_reference  # noqa: E402
from attngen.variant import Variant  # noqa: E402

HERE = Path(__file__).parent
OUT = Path("demo-output")
SEED = 20240607
# WITHIN: how far apart the running means of the two loss curves may lie. A hundred small steps learn little
# from attention, so in float32 the bound is tight: even attention without a mask stays within 1% there.
if ON_GPU:
    DEVICE, DTYPE, WINDOW, WITHIN = "cuda", torch.bfloat16, 256, 0.01
    SIZE = Size(6, 8, 4, 64, length=512, batch=16, steps=300, learning_rate=3e-4)
else:
    DEVICE, DTYPE, WINDOW, WITHIN = "cpu", torch.float32, 48, 0.001
    SIZE = Size(2, 4, 2, 32, length=128, batch=4, steps=60, learning_rate=3e-3)

console = Console(highlight=False)


def alibi_slopes(heads: int) -> Tensor:
    """The paper's slopes, for a power of two of heads: 2^-8/heads, 2^-16/heads, ..."""
    return torch.tensor([2.0 ** (-8.0 * (h + 1) / heads) for h in range(heads)], device=DEVICE)


def build() -> tuple[Variant, Variant]:
    """Both variants from their specs, and copies of their kernels where they are easy to find."""
    local = attngen.load("gemma2_local", window=WINDOW)
    alibi = attngen.load("alibi")
    OUT.mkdir(exist_ok=True)
    for variant in (local, alibi):
        copy = OUT / f"{variant.name}.py"
        variant.save(copy)
        lines = len(variant.source.splitlines())
        console.print(f"[bold]{variant.name}[/]: {lines} lines at {variant.path}, and a copy at {copy}")
    return local, alibi


def check(local: Variant, alibi: Variant) -> bool:
    """Output, log-sum-exp and gradients of both kernels; whether every error is within its bound."""
    table = Table("kernel", "dtype", "out", "lse", "dq", "dk", "dv", "", box=None, header_style="bold")
    length = SIZE.length + 3  # divides into no tile
    generator = torch.Generator().manual_seed(SEED)
    complaints = []
    for variant, keywords in ((local, {"cap": 5.0}), (alibi, {"slopes": alibi_slopes(SIZE.heads)})):
        for dtype in (DTYPE, torch.float16):
            q, k, v = (
                torch.randn(2, heads, length, SIZE.head_dim, generator=generator).to(DEVICE, dtype)
                for heads in (SIZE.heads, SIZE.kv_heads, SIZE.kv_heads)
            )
            name = str(dtype).removeprefix("torch.")
            try:
                verdicts = assert_matches_reference(variant, q, k, v, **keywords)
            except AssertionError as error:
                complaints.append(str(error))
                table.add_row(variant.name, name, *[""] * 5, "differs")
            else:
                ratio = {verdict.name: f"{verdict.ratio:.2f}" for verdict in verdicts}
                table.add_row(
                    variant.name, name, *(ratio[n] for n in ("out", "lse", "dq", "dk", "dv")), "agrees"
                )
    console.print("\n[bold]Errors against the float64 reference[/], as a part of what the criterion allows:")
    console.print(table)
    for complaint in complaints:
        console.print(complaint, markup=False)
    return not complaints


def attends(local: Variant, alibi: Variant) -> tuple[list[Attend], list[Attend]]:
    """What the layers call, in turn: the kernels in DTYPE, and the references in float32."""
    slopes = alibi_slopes(SIZE.heads)
    calls: list[tuple[Variant, dict[str, object]]] = [(local, {"cap": 50.0}), (alibi, {"slopes": slopes})]

    def kernel(variant: Variant, keywords: dict[str, object]) -> Attend:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return variant(q.to(DTYPE), k.to(DTYPE), v.to(DTYPE), **keywords).to(q.dtype)

        return attend

    def reference(variant: Variant, keywords: dict[str, object]) -> Attend:
        return partial(variant.reference, dtype=torch.float32, **keywords)

    return [kernel(*call) for call in calls], [reference(*call) for call in calls]


def train_twice(kernels: list[Attend], references: list[Attend]) -> bool:
    """Both runs from one seed; whether the curves stay together."""
    text = (HERE / "text.txt").read_text(encoding="ascii")
    console.print(
        f"\n[bold]A character GPT[/] on {len(text) // 1000} kB of Alice in Wonderland: {SIZE.layers} layers, "
        f"B={SIZE.batch} H={SIZE.heads} Hkv={SIZE.kv_heads} S={SIZE.length} D={SIZE.head_dim}, "
        f"{SIZE.steps} steps, {DEVICE}; kernel in {str(DTYPE).removeprefix('torch.')}, reference in float32"
    )
    columns = TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, TextColumn("loss {task.fields[loss]:.3f}"), console=console) as bars:

        def run(name: str, layers: list[Attend]) -> list[float]:
            task = bars.add_task(name, total=SIZE.steps, loss=float("nan"))

            def on_step(step: int, loss: float) -> None:
                bars.update(task, completed=step + 1, loss=loss)

            return train(SIZE, text, layers, seed=SEED, device=DEVICE, on_step=on_step)

        by_kernel, by_reference = run("kernel", kernels), run("reference", references)

    table = Table("step", "kernel", "reference", "difference", box=None, header_style="bold")
    for column in table.columns:
        column.justify = "right"
    every = SIZE.steps // 10
    for step in [0, *range(every - 1, SIZE.steps, every)]:
        a, b = by_kernel[step], by_reference[step]
        table.add_row(str(step + 1), f"{a:.4f}", f"{b:.4f}", f"{a - b:+.1e}")
    console.print(table)
    console.print(plot(by_kernel, by_reference), markup=False)
    deviation = largest_deviation(by_kernel, by_reference)
    a, b = running_means(by_kernel)[-1], running_means(by_reference)[-1]
    console.print(f"mean loss of the last 20 steps: kernel {a:.4f}, reference {b:.4f}")
    console.print(f"largest difference of the 20-step running means: {deviation:.4%} (at most {WITHIN:.1%})")
    return deviation <= WITHIN


def main() -> int:
    started = time.perf_counter()
    torch.manual_seed(SEED)
    place = torch.cuda.get_device_name() if ON_GPU else "Triton's interpreter, on the CPU"
    console.print(f"torch {torch.__version__}, {place}\n")
    local, alibi = build()
    agree = check(local, alibi)
    together = train_twice(*attends(local, alibi))
    verdict = "both kernels agree with the reference" if agree and together else "NOT IN AGREEMENT"
    console.print(f"\n[bold]{verdict}[/] ({time.perf_counter() - started:.0f} s)")
    return 0 if agree and together else 1


if __name__ == "__main__":
    sys.exit(main())
