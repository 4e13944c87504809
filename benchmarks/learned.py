"""What the gradient of a learned input costs: the backward with it, without it, and without the input.

    python benchmarks/learned.py [--rows relative_table,t5] [--runs 20]

Each row's backward is timed in one race with full or causal attention and, where it runs, with
FlexAttention's; then the learned gradient of ``--runs`` backwards is compared bit by bit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import attngen
from attngen.bench.timing import clock_of, race

ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """A spec, what it is without its inputs, their shapes, and FlexAttention's formula."""

    name: str
    spec: str
    plain: str
    inputs: dict[str, tuple[int | str, ...]]
    flex: Callable[..., ScoreMod] | None = None
    dtype: torch.dtype = torch.float32


def _slopes(slopes: Tensor) -> ScoreMod:
    return lambda s, b, h, i, j: s - slopes[h] * (i - j).abs()


def _dense(bias: Tensor) -> ScoreMod:
    return lambda s, b, h, i, j: s + bias[0, h, i, j]


_DENSE = """variant dense
input bias: bfloat16[batch, heads, q_len, k_len] grad
score = score + bias[b, h, q, k]"""

ROWS = (
    Row(
        "slopes",
        "variant slopes\ninput slopes: float32[heads] grad\nscore = score - slopes[h] * abs(dist)",
        "full",
        {"slopes": ("heads",)},
        _slopes,
    ),
    Row("relative_table", "relative_table", "full", {"table": ("heads", 257)}),
    Row(
        "relative_table, causal",
        "variant relative_causal\nconst reach: int = 128\ninput table: float32[heads, 2 * reach + 1] grad\n"
        "score = score + table[h, clamp(dist, -reach, reach) + reach]\nmask = causal",
        "causal",
        {"table": ("heads", 257)},
    ),
    Row("t5", "t5", "full", {"table": ("heads", 32)}),
    Row("head_gate", "head_gate", "full", {"table": ("heads", 320), "gate": ("batch", "heads", "length")}),
    Row(
        "every distance",
        "variant every\ninput table: float32[heads, far] grad\nscore = score + table[h, abs(dist)]",
        "full",
        {"table": ("heads", "length")},
    ),
    Row(
        "dense, one for the batch",
        _DENSE,
        "full",
        {"bias": (1, "heads", "length", "length")},
        _dense,
        torch.bfloat16,
    ),
    Row(
        "dense",
        _DENSE,
        "full",
        {"bias": ("batch", "heads", "length", "length")},
        None,
        torch.bfloat16,
    ),
)


def load(spec: str) -> Any:
    return attngen.compile(spec) if "\n" in spec else attngen.load(spec)


def measure(row: Row, sizes: dict[str, int], runs: int, budget_ms: float, flex: bool) -> str:
    """One line of the table."""
    shape = (sizes["batch"], sizes["heads"], sizes["length"], sizes["dim"])
    generator = torch.Generator("cuda").manual_seed(0)

    def drawn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device="cuda")

    q, k, v = (drawn(*shape).bfloat16().requires_grad_() for _ in range(3))
    d_out = drawn(*shape).bfloat16()
    inputs = {}
    for name, dims in row.inputs.items():
        size = [sizes[d] if isinstance(d, str) else d for d in dims]
        inputs[name] = (torch.randn(size, device="cuda", dtype=row.dtype) * 0.1).requires_grad_()
    learned = list(inputs.values())

    calls: dict[str, Callable[[], object]] = {}

    def backward_of(name: str, out: Tensor, leaves: list[Tensor]) -> None:
        calls[name] = lambda: torch.autograd.grad(out, leaves, d_out, retain_graph=True)

    backward_of("plain", load(row.plain)(q, k, v), [q, k, v])
    variant = load(row.spec)
    backward_of("frozen", variant(q, k, v, **{n: x.detach() for n, x in inputs.items()}), [q, k, v])
    backward_of("learned", variant(q, k, v, **inputs), [q, k, v, *learned])
    if flex and row.flex is not None:
        import torch._functorch.config as functorch
        from torch.nn.attention.flex_attention import flex_attention

        functorch.donated_buffer = False  # else retain_graph=True is refused

        compiled = torch.compile(flex_attention)
        try:
            frozen = row.flex(*(x.detach() for x in learned))
            backward_of("flex frozen", compiled(q, k, v, score_mod=frozen), [q, k, v])
            backward_of("flex learned", compiled(q, k, v, score_mod=row.flex(*learned)), [q, k, v, *learned])
        except Exception as error:
            print(f"{row.name}: flex: {type(error).__name__}: {str(error)[:200]}")
    timed = race(calls, clock_of(q.device), warm_ms=budget_ms / 2, budget_ms=budget_ms)
    for name, error in timed.failed.items():
        print(f"{row.name}: {name}: {type(error).__name__}: {str(error)[:200]}")

    def gradients() -> list[Tensor]:
        return list(calls["learned"]())[3:]  # type: ignore[call-overload]

    first = gradients()
    same = all(torch.equal(a, b) for _ in range(runs - 1) for a, b in zip(first, gradients(), strict=True))
    ms = timed.ms
    ratios = [ms["learned"] / ms[name] if name in ms else float("nan") for name in ("plain", "frozen")]
    cells = " ".join(f"{ms.get(name, float('nan')):9.3f}" for name in COLUMNS)
    return f"{row.name:26} {cells}  {ratios[0]:5.2f}x {ratios[1]:5.2f}x  {'yes' if same else 'NO'}"


COLUMNS = ("plain", "frozen", "learned", "flex frozen", "flex learned")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", default="", help="names, separated by ';'")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--budget-ms", type=float, default=300.0)
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--no-flex", action="store_true")
    options = parser.parse_args()
    sizes = {"batch": 2, "heads": 16, "length": options.length, "dim": 128}
    chosen = [n.strip() for n in options.rows.split(";") if n.strip()]
    print("backward, milliseconds; B2 H16 D128 bfloat16; same: bitwise equal over the runs")
    print(f"{'':26} {' '.join(f'{c:>9.9}' for c in COLUMNS)}  /plain /frozen  same")
    for row in ROWS:
        if not chosen or row.name in chosen:
            try:
                print(measure(row, sizes, options.runs, options.budget_ms, not options.no_flex), flush=True)
            except Exception as error:
                print(f"{row.name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            torch.cuda.empty_cache()
            torch.compiler.reset()


if __name__ == "__main__":
    main()
