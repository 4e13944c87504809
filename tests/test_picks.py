"""Masks without a closed form: a program looks ahead, and visits the tiles that keep something."""

from __future__ import annotations

import pytest
import torch
import triton.language as tl
from kernel_calls import gradients, judge, qkv, small_tiles, variant_of
from torch import Tensor

from attngen.analysis.simplify import simplify_ir
from attngen.ir.build import build
from attngen.plan.plan import loops_of
from attngen.plan.table import shipped
from attngen.source import Source
from attngen.syntax.parse import parse


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


# The coordinates of pixels in Morton order: every other bit of the index.
MORTON = [" + ".join(f"{{0}} // {2**bit * 4**n} % 2 * {2**n}" for n in range(6)) for bit in (0, 1)]

QUICK = ("a table under causal", "neighbours in 3-D")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in PICKED]
)
def test_kernels_that_pick_their_tiles_match_the_reference(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, inputs = PICKED[name]
    variant = variant_of(*lines)
    assert "def pick_keys(" in variant.source
    monkeypatch.setattr(variant.module, "LISTED", tl.constexpr(4))  # several lists of tiles
    with small_tiles(variant):
        judge(variant, q_len=70, k_len=90, call=inputs(70, 90))


@pytest.mark.slow
def test_a_mask_that_differs_by_batch_and_head_is_looked_at_for_each() -> None:
    lines = ("input keep: bool[batch, heads, q_len, k_len]", "mask = keep[b, h, q, k]")
    variant = variant_of(*lines)
    keep = torch.stack([torch.stack([blocks(40, 70, seed=2 * b + h) for h in range(4)]) for b in range(2)])
    with small_tiles(variant):
        judge(variant, batch=2, heads=4, kv_heads=2, q_len=40, k_len=70, call={"keep": keep})


@pytest.mark.slow
def test_values_of_a_tile_that_is_not_picked_are_never_met() -> None:
    variant = variant_of("input keep: bool[q_len, k_len]", "mask = keep[q, k]")
    q, k, v = qkv(q_len=32, k_len=96, dtype="float32")
    keep = torch.zeros(32, 96, dtype=torch.bool)
    keep[:, 64:] = True
    k[:, :, :64], v[:, :, :64] = float("nan"), float("inf")
    with small_tiles(variant):
        found = gradients(variant, q, k, v, keep=keep)
    assert all(x.isfinite().all() for x in found)


@pytest.mark.parametrize(
    ("mask", "how"),
    [
        ("causal", None),
        ("dist % 4 == 0", None),
        ("(q + k) % 2 == 0", None),
        ("abs(q % 64 - k % 64) <= 6 and abs(q // 64 - k // 64) <= 6", None),
        ("abs(q % 128 - k % 128) <= 6 and abs(q // 128 - k // 128) <= 6", None),  # kept around its corners
        ("q // 49 == k // 49 and part[pos] == part[k]", None),
        ("abs(q // 1024 - k // 1024) <= 1 and abs(q // 32 % 32 - k // 32 % 32) <= 2", "corners"),
        ("(q // 128 + k // 128) % 2 == 0", "corners"),
        (" and ".join(f"abs({m.format('q')} - ({m.format('k')})) <= 2" for m in MORTON), "corners"),
        ("q // 64 * (q // 64) % 7 == k // 64 * (k // 64) % 7", "look"),
        ("keep[q, k]", "look"),
        ("causal and part[pos] == part[k]", "look"),
    ],
)
def test_tiles_are_picked_where_ranges_leave_empty_ones(mask: str, how: str | None) -> None:
    inputs = "input keep: bool[q_len, k_len]\ninput part: int32[k_len]\n"
    source = Source(f"variant x\n{inputs}mask = {mask}\n", "x.attn")
    keys, queries = loops_of(simplify_ir(build(parse(source), source)), shipped())
    assert keys.picks == queries.picks
    assert (keys.picks and ("look" if keys.picks.may_keep is None else "corners")) == how
