"""Masks without a closed form: a program looks ahead, and visits the tiles that keep something."""

from __future__ import annotations

import pytest
import torch
import triton.language as tl
from kernel_calls import judge, small_tiles, variant_of
from torch import Tensor

GRID = "let z = {0} // 64; let y = {0} // 8 % 8; let x = {0} % 8"


def blocks(q_len: int, k_len: int, seed: int = 0) -> Tensor:
    """A block-sparse table: a third of the blocks of 16 keep their scores, and some scores are dropped."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((q_len + 15) // 16, (k_len + 15) // 16, generator=generator) < 0.3
    fine = torch.rand(q_len, k_len, generator=generator) < 0.8
    return coarse.repeat_interleave(16, 0).repeat_interleave(16, 1)[:q_len, :k_len] & fine


def table(q_len: int, k_len: int) -> dict[str, Tensor]:
    return {"keep": blocks(q_len, k_len)}


def parts(q_len: int, k_len: int) -> dict[str, Tensor]:
    return {"part": (torch.arange(k_len) * 37 // 16 % 5).to(torch.int32)}


def nothing(q_len: int, k_len: int) -> dict[str, Tensor]:
    return {}


PICKED = {
    "a table": (("input keep: bool[q_len, k_len]", "mask = keep[q, k]"), table),
    "a table under causal": (("input keep: bool[q_len, k_len]", "mask = causal and keep[q, k]"), table),
    "an unsorted part": (("input part: int32[k_len]", "mask = part[pos] == part[k]"), parts),
    "a window or a table": (("input keep: bool[q_len, k_len]", "mask = 0 <= dist < 9 or keep[q, k]"), table),
    "with a sink": (("input keep: bool[q_len, k_len]", "mask = keep[q, k]", "sink = 0.5"), table),
    "neighbours in 3-D": (
        (
            "mask = abs(pos // 1024 - k // 1024) <= 1 and abs(pos // 32 % 32 - k // 32 % 32) <= 2 "
            "and abs(pos % 32 - k % 32) <= 2",
        ),
        nothing,
    ),
}


@pytest.mark.parametrize("name", PICKED)
def test_kernels_that_pick_their_tiles_match_the_reference(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, inputs = PICKED[name]
    variant = variant_of(*lines)
    assert "def pick_keys(" in variant.source
    monkeypatch.setattr(variant.module, "LISTED", tl.constexpr(4))  # several lists of tiles
    with small_tiles(variant):
        for q_len, k_len in ((70, 90), (33, 33), (50, 17)):
            judge(variant, q_len=q_len, k_len=k_len, heads=2, kv_heads=1, call=inputs(q_len, k_len))
