"""The dropout bits are Philox's, laid out over scores as the language says."""

from __future__ import annotations

import ast
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from golden_bits import Golden, golden, probabilities, shown
from hypothesis import given
from hypothesis import strategies as st
from kernel_calls import small_tiles, variant_of

from attngen.dropout_bits import kept, philox, threshold, words
from attngen.pipeline import compile_spec
from attngen.spec_file import find_spec

ONES = 0xFFFFFFFF


def words_of(counter: list[int], key: tuple[int, int], rounds: int) -> list[int]:
    c0, c1, c2, c3 = (torch.tensor(c) for c in counter)
    return [int(w) for w in philox((c0, c1, c2, c3), key, rounds)]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([ONES] * 4, (ONES, ONES), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_ten_rounds_give_the_published_answers(
    counter: list[int], key: tuple[int, int], expected: list[int]
) -> None:
    assert words_of(counter, key, 10) == expected


def scalar_philox(counter: list[int], key: list[int], rounds: int) -> list[int]:
    """Philox in Python's unbounded ints: what the tensor arithmetic must equal."""
    c, k = list(counter), list(key)
    for _ in range(rounds):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & ONES, (p0 >> 32) ^ c[3] ^ k[1], p0 & ONES]
        k = [(k[0] + 0x9E3779B9) & ONES, (k[1] + 0xBB67AE85) & ONES]
    return c


@pytest.mark.parametrize("seed", [0, 7, 2**40 + 3, 2**64 - 1])
def test_each_score_reads_its_word_of_its_counter(seed: int) -> None:
    batch, heads = 2, 3
    q, k = torch.arange(5, 30), torch.arange(3, 27)
    got = words(seed, q, k, batch, heads)
    for b, h, i, j in [(0, 0, 0, 0), (1, 2, 24, 23), (0, 1, 3, 9), (1, 0, 11, 5), (1, 1, 12, 12)]:
        row, column = int(q[i]), int(k[j])
        counter = [row & ~8, column & ~8, b * heads + h, 0]
        word = 2 * bool(row & 8) + bool(column & 8)
        assert int(got[b, h, i, j]) == scalar_philox(counter, [seed & ONES, seed >> 32], 7)[word]


class Tile(np.ndarray):
    """Numbers that wrap as on the GPU."""

    def to(self, dtype: Any) -> Tile:
        return self.astype(dtype).view(Tile)


def tile(x: int, dtype: Any, *shape: int) -> Tile:
    return np.full(shape, x, dtype).view(Tile)


@pytest.fixture(scope="module")
def emitted_philox() -> Any:
    """What the kernels for sm_90 draw with, on arrays: Gluon has no interpreter."""
    module = ast.parse(compile_spec(find_spec("dropped"), backend="hopper").text)
    node = next(n for n in module.body if isinstance(n, ast.FunctionDef) and n.name == "philox")
    node.decorator_list = []
    words = SimpleNamespace(uint32=np.uint32, uint64=np.uint64, static_range=range)
    namespace: dict[str, Any] = {"gl": words}
    exec(compile(ast.Module([node], []), "philox", "exec"), namespace)
    return namespace["philox"]


WORD = st.integers(0, ONES)


@given(st.integers(0, 2**64 - 1), WORD, WORD, WORD)
def test_the_kernels_for_sm_90_draw_the_same_words(
    emitted_philox: Any, seed: int, row: int, column: int, head: int
) -> None:
    places = tile(row, np.uint32, 1, 1), tile(column, np.uint32, 1, 1), tile(head, np.uint32, 1)
    drawn = [int(w.item()) for w in emitted_philox(*places, tile(seed, np.uint64, 1))]
    assert drawn == scalar_philox([row, column, head, 0], [seed & ONES, seed >> 32], 7)


def test_a_negative_seed_is_its_twos_complement() -> None:
    q = k = torch.arange(20)
    assert torch.equal(words(-5, q, k, 1, 1), words(2**64 - 5, q, k, 1, 1))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_fraction_kept_is_one_minus_p(p: float) -> None:
    n = torch.arange(300)
    keep = kept(p, 1234, n, n, 2, 2)
    assert keep.float().mean().item() == pytest.approx(1 - p, abs=0.005)
    assert keep.all() or p > 0


def test_seeds_heads_and_batches_draw_differently() -> None:
    n = torch.arange(64)
    first, second = words(1, n, n, 2, 2), words(2, n, n, 2, 2)
    planes = [*first.reshape(4, -1), *second.reshape(4, -1)]
    for i, a in enumerate(planes):
        for b in planes[:i]:
            assert (a == b).float().mean() < 0.01


def test_a_block_of_rows_draws_what_the_whole_draws() -> None:
    n = torch.arange(40)
    assert torch.equal(words(9, n, n, 1, 2)[:, :, 11:29], words(9, n[11:29], n, 1, 2))


def test_no_rows_or_no_columns_draw_nothing() -> None:
    none, some = torch.arange(0), torch.arange(4)
    assert words(1, none, some, 2, 3).shape == (2, 3, 0, 4)
    assert words(1, some, none, 2, 3).shape == (2, 3, 4, 0)


def test_the_threshold_is_a_uint32() -> None:
    assert threshold(0.0) == 0
    assert threshold(0.5) == 2**31
    assert threshold(1.0) == 2**32 - 1


def test_the_golden_bits_have_not_moved() -> None:
    """Kernels and saved training runs rely on these bits; a change here changes what a seed means."""
    for g in golden():
        got = words(g.seed, torch.tensor([g.q]), torch.tensor([g.k]), g.batch, g.heads)[g.b, g.h, 0, 0]
        assert int(got) == g.word, g
    assert len(golden()) >= 30


def plain(g: Golden) -> object:
    """The interpreter takes its time for each plane."""
    return pytest.param(g, marks=[pytest.mark.slow] if g.batch * g.heads > 2 else [], id=f"{g.word:08x}")


@pytest.mark.parametrize("g", [plain(g) for g in golden(longest=40)])
def test_the_interpreted_kernels_draw_the_golden_bits(g: Golden) -> None:
    variant = variant_of("param p: float", "dropout = p")
    for p, is_kept in probabilities(g.word):
        with small_tiles(variant):
            found = shown(variant, g, p, "cpu", torch.float32)
        assert found == dict.fromkeys(("out", "dq", "dk", "dv"), is_kept), (g, p)
