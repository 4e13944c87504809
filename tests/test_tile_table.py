"""The table of tiles: read and written, its errors, its classes, and a user's own rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attngen.errors import BuildError
from attngen.pipeline import compile_spec
from attngen.plan.cost_class import gluon_classes, triton_classes
from attngen.plan.table import BACKENDS, COLUMNS, Row, TileTable, parse_table, shipped, table_text
from attngen.plan.tile import HopperTile, Tile
from attngen.resources import tiles_text
from attngen.source import Source
from attngen.spec_file import find_spec

HEADER = ", ".join(COLUMNS)
GOOD = "triton, sm_90, dq, light, 128, block_m=64 block_n=64 warps=4 stages=2, 512, causal; here"


def table(*lines: str) -> TileTable:
    return parse_table(Source("\n".join([HEADER, *lines]) + "\n", "own.csv"))


powers = st.sampled_from([16, 32, 64, 128])
small = st.integers(1, 8)
tiles = st.builds(Tile, powers, powers, st.sampled_from([1, 2, 4, 8]), small)
hopper_tiles = st.builds(
    HopperTile,
    st.integers(1, 3),
    powers,
    small,
    st.integers(1, 30).map(lambda n: 8 * n),
    st.booleans(),
    st.booleans(),
    small,
    st.integers(0, 2),
)
origins = (
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1).map(str.strip).filter(bool)
)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    backend = draw(st.sampled_from(list(BACKENDS)))
    kernel, target, cost = (draw(st.sampled_from(known)) for known in BACKENDS[backend])
    kinds = {"triton": tiles, "gluon": hopper_tiles, "auto": st.sampled_from(["triton", "gluon"])}
    tflops = draw(st.none() | st.integers(0, 2000).map(float))
    tile, head_dim = draw(kinds[backend]), draw(st.integers(1, 512))
    return Row(backend, target, kernel, cost, head_dim, tile, tflops, draw(origins))


@given(st.lists(rows(), unique_by=lambda row: row.key))
def test_a_table_read_from_its_own_text_is_the_same(found: list[Row]) -> None:
    written = table_text(TileTable(tuple(found), "# what it is"))
    again = parse_table(Source(written))
    assert set(again.rows) == set(found)
    assert table_text(again) == written


def test_the_shipped_rows_stand_in_the_order_in_which_the_tuner_writes_them() -> None:
    def cells(text: str) -> list[list[str]]:
        return [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]

    assert cells(tiles_text()) == cells(table_text(shipped()))  # how columns are aligned is nobody's business


HOPPER = "gluon, sm_90, forward, light, 128, parts=2 block_n=64 stages=2 registers=240 turns=no late=no, , x"


@pytest.mark.parametrize(
    ("line", "column", "said"),
    [
        (GOOD.replace("triton", "tritn"), 1, "expected triton, gluon, auto, got 'tritn'"),
        (GOOD.replace("sm_90", "sm_91"), 9, "sm_100"),
        (GOOD.replace("dq", "dx"), 16, "expected forward, dkdv, dq, got 'dx'"),
        (GOOD.replace("light", "cheap"), 20, "got 'cheap'"),
        (GOOD.replace("128", "0"), 27, "expected a head dimension of 1 to 4096, got '0'"),
        (GOOD.replace("128", "wide"), 27, "got 'wide'"),
        (GOOD.replace("block_m=64", "block_m=48"), 32, "block_m is a power of two from 16 to 256, got '48'"),
        (GOOD.replace("stages=2", "stages=0"), 32, "stages is a number from 1 to 8, got '0'"),
        (GOOD.replace("warps=4", "warps=64"), 32, "warps is a power of two from 1 to 16, got '64'"),
        (HOPPER.replace("parts=2", "parts=4"), 36, "parts is a number from 1 to 3, got '4'"),
        (HOPPER.replace("240", "239"), 36, "registers are a multiple of 8, got '239'"),
        (GOOD.replace("warps=4 ", ""), 32, "warps missing"),
        (GOOD.replace("warps=4", "threads=128"), 32, "got 'threads=128'"),
        (GOOD.replace("warps=4", "warps=4 warps=8"), 32, "warps is given twice"),
        (GOOD.replace("512", "fast"), 72, "expected TFLOP/s, a whole number, or nothing, got 'fast'"),
        (GOOD.replace(" causal; here", ""), 76, "expected what was measured"),
        ("triton, sm_90", 9, "expected 8 fields, got 2"),
        ("gluon, sm_80, forward, light, 64, , , x", 8, "expected sm_90, got 'sm_80'"),
        ("auto, sm_90, forward, light, 64, cuda, , x", 34, "expected triton, gluon, got 'cuda'"),
    ],
)
def test_an_error_of_a_table_has_its_place_and_says_what_was_expected(
    line: str, column: int, said: str
) -> None:
    with pytest.raises(BuildError) as caught:
        table("# a comment", line)
    assert (caught.value.line, caught.value.column) == (3, column)
    assert said in caught.value.message
    assert str(caught.value).startswith("own.csv:3:")


def test_two_rows_of_one_key_are_an_error_that_names_both_lines() -> None:
    with pytest.raises(BuildError, match="line 2 has a row of the same key") as caught:
        table(GOOD, GOOD.replace("512", "9"))
    assert caught.value.line == 3


def test_a_table_without_its_columns_is_an_error() -> None:
    with pytest.raises(BuildError, match="expected the column 'backend', got 'triton'"):
        parse_table(Source(GOOD))
    with pytest.raises(BuildError, match="expected a line of columns"):
        parse_table(Source("# nothing\n"))


def test_a_later_class_has_the_rows_that_both_have() -> None:
    light, narrow, dropout = (
        Row("triton", "sm_90", "dq", cost, width, Tile(64, block_n, 4, 2))
        for cost, width, block_n in (("light", 128, 64), ("light", 64, 128), ("dropout", 128, 32))
    )
    held = TileTable((dropout, light, narrow))
    assert held.found("triton", "sm_90", "dq", ("light",)) == {64: narrow, 128: light}
    assert held.found("triton", "sm_90", "dq", ("light", "dropout")) == {64: narrow, 128: dropout}
    assert held.found("triton", "sm_90", "dkdv", ("light",)) == {}


MEDIUM = ("light", "masked", "medium", "masked medium")
CLASSES = {
    "full": (("light",), ("light",)),
    "causal": (("light",), ("light", "masked")),
    "sliding_window": (("light",), ("light", "masked", "banded", "masked banded")),
    "softcap": (("light", "medium"), MEDIUM),
    "alibi": (("light", "medium"), MEDIUM),
    "kerple_log": (("light", "heavy"), ("light", "masked", "heavy", "masked heavy")),
    "dropped": (("light", "dropout"), (*MEDIUM, "dropout", "masked dropout")),
    "low_rank_bias": (("light", "products"), None),
    "clipped_softmax": (("light", "weight"), None),
    "dense_bias": (("light", "pairs"), ("light", "dense")),
    "relative_table": (("light", "medium", "reads"), ("light", "medium")),
}


@pytest.mark.parametrize("name", CLASSES)
def test_the_classes_of_a_variant_are_what_its_kernels_hold(name: str) -> None:
    plan = compile_spec(find_spec(name)).plan
    of_triton, of_gluon = CLASSES[name]
    assert triton_classes(plan.ir, plan.logits) == of_triton
    if of_gluon:
        assert gluon_classes(plan.ir, plan.logits, plan.key_loops) == of_gluon


def test_a_users_rows_come_before_the_shipped_ones_and_make_another_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = compile_spec(find_spec("causal"))
    own = tmp_path / "own.csv"
    own.write_text(f"{HEADER}\n{GOOD.replace('block_n=64', 'block_n=16')}\n")
    monkeypatch.setenv("ATTNGEN_TILES", str(own))
    changed = compile_spec(find_spec("causal"))
    assert changed.plan.tiles["sm_90"][128] == (*usual.plan.tiles["sm_90"][128][:2], Tile(64, 16, 4, 2))
    assert changed.plan.tiles["sm_80"] == usual.plan.tiles["sm_80"]
    assert changed.text != usual.text
    own.write_text(f"{HEADER}\n")
    assert compile_spec(find_spec("causal")).text == usual.text


def test_a_users_table_that_is_not_there_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNGEN_TILES", str(tmp_path / "gone.csv"))
    with pytest.raises(BuildError, match=r"gone\.csv: No such file"):
        compile_spec(find_spec("causal"))


def test_a_tile_without_room_for_a_dense_input_is_none_of_such_a_variant() -> None:
    (light,) = [r for r in shipped().rows if r.key == ("gluon", "sm_90", "forward", "light", 128)]
    other = shipped().updated([replace(light, head_dim=96)])
    found = compile_spec(find_spec("dense_bias"), table=other).plan.backend.hopper
    assert found is not None and all(tile is None or tile.dense for tile in found.tiles.values())


def test_where_no_row_says_that_gluon_gains_its_tile_is_left_out() -> None:
    masked = [r for r in shipped().rows if r.backend == "auto" and r.cost == "masked"]
    assert [(r.head_dim, r.tile) for r in masked] == [(64, "gluon")]
    own = shipped().found("gluon", "sm_90", "forward", ("light", "masked"))
    other = shipped().updated([replace(masked[0], tile="triton")])
    for table, tile in ((shipped(), own[64].tile), (other, None)):
        found = compile_spec(find_spec("causal"), table=table)
        assert found.plan.backend.hopper is not None
        assert found.plan.backend.hopper.tiles[64] == tile
