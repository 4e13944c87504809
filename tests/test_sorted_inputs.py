"""Sorted inputs: the kernels search them for a tile's range, whatever their type, shape and length."""

from __future__ import annotations

import re

import pytest
import torch
from kernel_calls import judge, small_tiles, variant_of
from torch import Tensor

from attngen.variant import Variant

FAR = 2**40  # beyond int32


def documents(dtype: str = "int32", *, causal: bool = True) -> Variant:
    mask = "doc[b, pos] == doc[b, k]" + (" and causal" if causal else "")
    return variant_of(f"input doc: {dtype}[batch, k_len] sorted", f"mask = {mask}")


def rising(batch: int, length: int, dtype: torch.dtype, step: int = 1) -> Tensor:
    """Rows of unequal runs, other ones for each of the batch."""
    place = torch.arange(length)
    rows = [(place * (3 + row) // max(length, 1) - 1) * step for row in range(batch)]
    return torch.stack(rows).to(dtype)


def function(source: str, name: str) -> str:
    found = re.search(rf"^def {name}\(.*?(?=^@|^# ----)", source, re.MULTILINE | re.DOTALL)
    assert found
    return found.group()


@pytest.mark.parametrize(("causal", "searches"), [(True, 1), (False, 2)])
def test_documents_take_no_more_searches_than_ends_that_the_tile_does_not_give(
    causal: bool, searches: int
) -> None:
    source = documents(causal=causal).source
    for name in ("key_range", "query_range"):
        assert function(source, name).count("= search(") == searches


@pytest.mark.parametrize("name", ["int64", "one row", "one entry", "all alike"])
def test_every_type_and_broadcast_is_searched(name: str) -> None:
    variant = documents("int64" if name == "int64" else "int32")
    doc = {
        "int64": rising(2, 41, torch.int64, FAR),
        "one row": rising(1, 41, torch.int32),
        "one entry": torch.tensor([[3], [5]], dtype=torch.int32),
        "all alike": torch.full((2, 41), -7, dtype=torch.int32),
    }[name]
    with small_tiles(variant):
        judge(variant, batch=2, q_len=23, k_len=41, call={"doc": doc})


@pytest.mark.parametrize(("q_len", "k_len"), [(0, 5), (5, 0), (41, 17), (1, 40)])
def test_every_length_is_searched(q_len: int, k_len: int) -> None:
    variant = documents(causal=False)
    with small_tiles(variant):
        judge(variant, q_len=q_len, k_len=k_len, call={"doc": rising(1, k_len, torch.int32)})


def test_a_false_promise_stays_inside_the_tensors() -> None:
    """What it gives is not specified, but no search leaves its row and no range its sequence: nothing is
    read beside q, k and v, where these have neighbours that would show."""
    variant = documents()
    doc = torch.tensor([[5, -3, 9, 0, 0, 2**31 - 1, -(2**31)] * 6], dtype=torch.int32)
    q, k, v = (torch.full((1, 1, 142, 16), float("inf")) for _ in range(3))
    for x in (q, k, v):
        x[:, :, 50:92] = torch.randn(1, 1, 42, 16)
    q, k, v = (x[:, :, 50:92] for x in (q, k, v))
    with small_tiles(variant):
        out = variant(q, k, v, doc=doc)
    assert out.shape == q.shape and not out.isinf().any()
