"""The golden dropout bits, as a kernel shows them: what a call keeps just below and just above each word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_FIXTURE = Path(__file__).parent / "fixtures" / "dropout_bits.txt"
_NEAR = 4096  # of 2**32: what a float32 probability may be off by, many times over


@dataclass(frozen=True)
class Golden:
    """The word of one score of batch * heads planes."""

    seed: int
    batch: int
    heads: int
    b: int
    h: int
    q: int
    k: int
    word: int


def golden(longest: int | None = None) -> list[Golden]:
    """The lines of the fixture, or those whose score lies within this length."""
    lines = [line for line in _FIXTURE.read_text().splitlines() if line and not line.startswith("#")]
    found = [Golden(*(int(x, 0) for x in line.split())) for line in lines]
    return [g for g in found if longest is None or max(g.q, g.k) < longest]


def probabilities(word: int) -> Iterator[tuple[float, bool]]:
    """(a chance of dropping, whether the word is kept then): just below the word, and just above."""
    yield max(word - _NEAR, 0) / 2**32, True
    yield min(word + _NEAR, 2**32 - 1) / 2**32, False


def shown(
    call: Callable[..., Tensor], g: Golden, p: float, device: str, dtype: torch.dtype
) -> dict[str, bool]:
    """Which of out, dq, dk and dv of ``call`` (dropout is its param ``p``) hold the score's weight.

    All scores are 0, so all weights alike. K, V, Q and dO are 1 at one element each, such that one element of
    every result is not 0 if and only if the weight of (q, k) is kept.
    """
    length, dim = max(g.q, g.k) + 2, 16
    made: dict[str, Any] = {"device": device, "dtype": dtype}
    q, k, v, d_out = (torch.zeros(g.batch, g.heads, length, dim, **made) for _ in range(4))
    q[g.b, g.h, g.q, 1] = k[g.b, g.h, g.k, 0] = v[g.b, g.h, g.k, 0] = d_out[g.b, g.h, g.q, 0] = 1.0
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = call(*leaves, p=p, seed=g.seed)
    dq, dk, dv = torch.autograd.grad(out, leaves, d_out)
    element = {"out": out[g.b, g.h, g.q, 0], "dq": dq[g.b, g.h, g.q, 0]}
    element |= {"dk": dk[g.b, g.h, g.k, 1], "dv": dv[g.b, g.h, g.k, 0]}
    return {name: bool(x != 0) for name, x in element.items()}
