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
    "prefix and length": (
        (
            "input prefix: int32[batch]",
            "input used: int32[batch]",
            "mask = (causal or k < prefix[b]) and k < used[b]",
        ),
        {
            "prefix": torch.tensor([LENGTH // 4], dtype=torch.int32),
            "used": torch.tensor([LENGTH * 3 // 4], dtype=torch.int32),
        },
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


@pytest.mark.parametrize("order", [("prefix", "used"), ("used", "prefix")])
def test_numbers_that_a_call_gives_differ_and_show_every_kind_of_tile(order: tuple[str, str]) -> None:
    declared = [f"input {name}: int32[batch]" for name in order]
    text = ranges(ir_of(*declared, "mask = (causal or k < prefix[b]) and k < used[b]"))
    given = dict(zip(order, (256, 768) if order[0] == "prefix" else (768, 256), strict=True))
    assert f"({', '.join(f'{name} {given[name]}' for name in order)}):" in text
    assert set("".join(drawn(text))) == set(".+#")
    assert re.search(r"^        masked: key tiles? ", text, re.MULTILINE)


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
    assert "masked" not in ranges(ir_of("mask = True")).replace("Nothing is masked", "")
    assert "masked score by score" in ranges(ir_of("mask = causal"))


def test_the_legend_explains_each_letter_of_the_picture_and_no_other() -> None:
    everything = (
        ["mask = True"],
        ["mask = causal"],
        ["input keep: bool[q_len, k_len]", "mask = causal and keep[q, k]"],
    )
    for lines in everything:
        text = ranges(ir_of(*lines))
        (legend,) = re.findall(r"^    ([.+#?] .*)$", text, re.MULTILINE)
        assert {part[0] for part in legend.split(", ")} == set("".join(drawn(text)))


def test_one_tile_is_told_in_the_singular() -> None:
    text = ranges(ir_of("mask = causal"))
    assert "masked: key tile 3\n" in text and "without mask: key tiles 0 to 2\n" in text


def test_dots_for_a_long_end_are_explained_where_they_stand_and_only_there() -> None:
    names = "the_first_of_two_long_names", "the_second_of_two_long_names"
    sums = " + ".join(f"{name} * {n}" for n in (3, 5, 7) for name in names)
    long = [f"param {name}: int" for name in names]
    text = ranges(ir_of(*long, f"mask = k < max({sums}, {sums.replace('3', '11')})"))
    assert "[0, ...)" in text
    assert "An end that stands as ... is too long for this text; the kernels compute it." in text
    assert "..." not in re.sub(
        r"\d\.\.\d|^ +\d+ [.+#?]{16}$", "", ranges(ir_of("mask = causal")), flags=re.MULTILINE
    )
