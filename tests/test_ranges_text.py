"""``attngen show --stage ranges``: the drawn example is what the mask keeps."""

from __future__ import annotations

import re

import pytest
import torch

from attngen import eager
from attngen.analysis.simplify import simplify_ir
from attngen.commands.ranges import ranges
from attngen.eager import Environment, Grid
from attngen.ir.build import build
from attngen.ir.nodes import AttentionIR
from attngen.source import Source
from attngen.syntax.parse import parse

LENGTH, TILE = 1024, 64


def ir_of(*lines: str) -> AttentionIR:
    source = Source("\n".join(["variant x", *lines]) + "\n", "x.attn")
    return simplify_ir(build(parse(source), source))


def drawn(text: str) -> list[str]:
    """The rows of the example's picture."""
    return re.findall(r"^ +\d+ ([.+#?]{16})$", text, re.MULTILINE)


DOCUMENTS = torch.arange(LENGTH).mul(4).div(LENGTH, rounding_mode="floor").to(torch.int32)[None]
CASES: dict[str, tuple[tuple[str, ...], dict[str, torch.Tensor]]] = {
    "causal": (("mask = causal",), {}),
    "window": (("mask = sliding_window(200)",), {}),
    "first keys and a window": (("mask = causal and (dist < 200 or k < 4)",), {}),
    "chunks": (("mask = pos // 256 == k // 256",), {}),
    "neighbours": (
        ("mask = abs(q // 8 % 16 - k // 8 % 16) <= 2 and abs(q // 128 - k // 128) <= 2",),
        {},
    ),
    "documents": (
        ("input doc: int32[batch, k_len] sorted", "mask = causal and doc[b, pos] == doc[b, k]"),
        {"doc": DOCUMENTS},
    ),
    "prefix": (
        ("input prefix: int32[batch]", "mask = causal or k < prefix[b]"),
        {"prefix": torch.tensor([LENGTH // 4], dtype=torch.int32)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_picture_shows_what_the_mask_keeps(name: str) -> None:
    lines, inputs = CASES[name]
    ir = ir_of(*lines)
    grid = Grid(1, 1, 1, LENGTH, LENGTH, 1, 1, 0, LENGTH, torch.device("cpu"))
    kept = eager.evaluate(ir.mask, Environment(grid, inputs, {}, {}), torch.float32).expand(grid.shape)
    tiles = kept[0, 0].unflatten(1, (-1, TILE)).unflatten(0, (-1, TILE)).transpose(1, 2).flatten(2)
    some, every = tiles.any(2), tiles.all(2)
    letters = [["#" if every[n, m] else "+" if some[n, m] else "." for m in range(16)] for n in range(16)]
    assert drawn(ranges(ir)) == ["".join(row) for row in letters]


def test_the_tile_in_words_is_the_one_in_the_picture() -> None:
    text = ranges(ir_of("mask = sliding_window(200)"))
    assert "queries 192..255 (tile 3)" in text
    assert "can keep keys in [0, 256)" in text and "all keep [56, 193)" in text
    assert "without mask: key tiles 1 to 2" in text and "masked: key tiles 0, 3" in text
    assert drawn(text)[3] == "+##+............"


def test_what_the_data_decide_is_left_open() -> None:
    text = ranges(ir_of("input keep: bool[q_len, k_len]", "mask = causal and keep[q, k]"))
    assert "the tiles that the mask keeps something of: each program looks ahead" in text
    assert drawn(text)[1] == "??.............."


def test_a_search_is_explained_where_there_is_one() -> None:
    documents = ranges(ir_of(*CASES["documents"][0]))
    assert "what is sorted (doc) reaches x" in documents and "doc in 4 equal runs" in documents
    assert "reaches x" not in ranges(ir_of("mask = causal"))


def test_no_mask_is_drawn_too() -> None:
    assert drawn(ranges(ir_of())) == ["#" * 16] * 16
