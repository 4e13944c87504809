"""Build two variants, hold them against the reference, and train a small GPT with them: ``make demo``.

With a CUDA device: bfloat16 kernels at a real size. Without one: small float32 ones in Triton's interpreter,
on up to four cores.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

# NumPy and torch read this when they are first imported. The interpreter's tiles are too small to share among
# threads, which only wait for each other: with two of them a step takes twice the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

# Triton reads this when it is first imported, which importing torch does not do.
ON_GPU = torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET", "0") in ("", "0")
if not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"

from curves import largest_deviation, plot, running_means  # noqa: E402
from interpreter import quickened  # noqa: E402
from members import Member, together  # noqa: E402
from model import Attend, Size, train  # noqa: E402
from rich.console import Console  # noqa: E402
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
    PROCESSES = 1
else:
    DEVICE, DTYPE, WINDOW, WITHIN = "cpu", torch.float32, 48, 0.001
    SIZE = Size(2, 4, 2, 32, length=128, batch=4, steps=100, learning_rate=3e-3)
    PROCESSES = max(n for n in (1, 2, 4) if n <= len(os.sched_getaffinity(0)))

TEXT = (HERE / "text.txt").read_text(encoding="ascii")
console = Console(highlight=False, soft_wrap=True)


def alibi_slopes(heads: int) -> Tensor:
    """The paper's slopes, for a power of two of heads: 2^-8/heads, 2^-16/heads, ..."""
    return torch.tensor([2.0 ** (-8.0 * (h + 1) / heads) for h in range(heads)], device=DEVICE)


def load() -> tuple[Variant, Variant]:
    """Both variants, built from their specs."""
    return attngen.load("gemma2_local", window=WINDOW), attngen.load("alibi")


def show(local: Variant, alibi: Variant) -> None:
    """Where their kernels lie, and copies of them where they are easy to find."""
    OUT.mkdir(exist_ok=True)
    for variant in (local, alibi):
        copy = OUT / f"{variant.name}.py"
        variant.save(copy)
        lines = len(variant.source.splitlines())
        console.print(f"[bold]{variant.name}[/]: {lines} lines at {variant.path}, and a copy at {copy}")


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


def train_kernels(
    member: Member, on_step: Callable[[int, float], None] = lambda step, loss: None
) -> list[float]:
    """The run with the kernels, or this process's part of it. Every layer of every step launches them all."""
    kernels, _ = attends(*load())
    with nullcontext() if ON_GPU else quickened():
        return train(SIZE, TEXT, kernels, seed=SEED, device=DEVICE, member=member, on_step=on_step)


def train_twice(references: list[Attend]) -> bool:
    """Both runs from one seed; whether the curves stay together."""
    parts = f", in {PROCESSES} processes with {SIZE.batch // PROCESSES} rows of each batch" * (PROCESSES > 1)
    console.print(
        f"\n[bold]A character GPT[/] on {len(TEXT) // 1000} kB of Alice in Wonderland: {SIZE.layers} layers, "
        f"B={SIZE.batch} H={SIZE.heads} Hkv={SIZE.kv_heads} S={SIZE.length} D={SIZE.head_dim}, "
        f"{SIZE.steps} steps, {DEVICE};\n"
        f"first with the reference in float32, then with the kernels in {str(DTYPE).removeprefix('torch.')}"
        f"{parts}"
    )
    started = time.perf_counter()
    by_reference = train(SIZE, TEXT, references, seed=SEED, device=DEVICE)
    console.print(f"The reference is done, after {time.perf_counter() - started:.0f} s.\n")

    console.print("[bold]  step    kernel  reference  difference  seconds[/]")
    started = time.perf_counter()

    def on_step(step: int, loss: float) -> None:
        if step == 0 or (step + 1) % (SIZE.steps // 10) == 0:
            other, seconds = by_reference[step], time.perf_counter() - started
            console.print(f"{step + 1:6}{loss:10.4f}{other:11.4f}{loss - other:+12.1e}{seconds:9.1f}")

    with together(PROCESSES, train_kernels) as first:
        by_kernel = train_kernels(first, on_step)

    console.print()
    console.print(plot(by_kernel, by_reference), markup=False)
    deviation = largest_deviation(by_kernel, by_reference)
    a, b = running_means(by_kernel)[-1], running_means(by_reference)[-1]
    console.print(f"mean loss of the last 20 steps: kernel {a:.4f}, reference {b:.4f}")
    console.print(f"largest difference of the 20-step running means: {deviation:.1e} (at most {WITHIN:g})")
    return deviation <= WITHIN


def main() -> int:
    started = time.perf_counter()
    torch.manual_seed(SEED)
    place = torch.cuda.get_device_name() if ON_GPU else "Triton's interpreter, on the CPU"
    console.print(f"torch {torch.__version__}, {place}\n")
    local, alibi = load()
    show(local, alibi)
    agree = check(local, alibi)
    _, references = attends(local, alibi)
    stay_together = train_twice(references)
    if not agree:
        console.print("\n[bold]FAILED[/]: a kernel's output or gradients are not the reference's (see above)")
    if not stay_together:
        console.print("\n[bold]FAILED[/]: the loss with the kernels is not the reference's (see above)")
    if agree and stay_together:
        console.print("\n[bold]both kernels agree with the reference[/]")
    console.print(f"{time.perf_counter() - started:.0f} s")
    return 0 if agree and stay_together else 1


if __name__ == "__main__":
    sys.exit(main())
