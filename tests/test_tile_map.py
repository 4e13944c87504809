"""The tile map says what the kernels do, and no kept score lies in a tile that they skip."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from kernel_calls import qkv, small_tiles
from random_masks import INPUTS, Call, mask
from ranges_page import PAGE, Count, counts, page, plan_and_call
from torch import Tensor
from torch.nn.functional import pad
from zoo_samples import sample_of
from zoo_share import share

import attngen
from attngen.pipeline import check_spec, compile_spec
from attngen.plan.plan import Options, Plan, make_plan
from attngen.source import Source
from attngen.spec_file import zoo_names
from attngen.tile_map import Tile, key_tiles, query_tiles

E, P, F = Tile.EMPTY, Tile.PARTIAL, Tile.FULL


def tiles(spec: str, q_len: int, k_len: int, block: int = 2, **inputs: Tensor) -> tuple[Any, Any]:
    """Both directions of one spec's tiles as nested lists, for one head."""
    from attngen.reference import bind

    plan = compile_spec(Source(f"variant tested\n{spec}")).plan
    q, k, v = qkv(q_len=q_len, k_len=k_len)
    env = bind(plan.ir, q, k, v, inputs, {})
    keys = key_tiles(plan, env, block, block)
    return keys[0, 0].tolist(), query_tiles(plan, env, block, block)[0, 0].tolist()


def test_a_causal_mask_has_a_diagonal_of_masked_tiles() -> None:
    keys, queries = tiles("mask = causal", 4, 6)
    assert keys == [[F, P, E], [F, F, P]]
    assert queries == keys


def test_a_ragged_edge_is_masked() -> None:
    keys, queries = tiles("mask = causal", 5, 5)
    assert keys == [[P, E, E], [F, P, E], [F, F, P]]
    assert queries == [[P, E, E], [F, P, E], [P, P, P]]  # rows beyond the last query are masked here


def test_two_ranges_of_one_tile_stay_apart() -> None:
    keys, _ = tiles("mask = causal and (dist < 1024 or k < 4)", 4096, 4096, block=512)
    assert keys[7] == [P, E, E, E, E, P, F, P]


@pytest.mark.parametrize(
    ("reach", "first"),
    [(4000, 300), *(pytest.param(*n, marks=pytest.mark.slow) for n in ((4100, 200), (1000, 300)))],
)
def test_what_all_keep_is_looked_for_in_each_range_by_itself(reach: int, first: int) -> None:
    spec = f"mask = causal and (dist <= {reach} or k < {first})"
    found = torch.tensor(tiles(spec, 8192, 8192, block=64)[0])
    k, pos = torch.arange(8192), torch.arange(8192)[:, None]
    kept = (k <= pos) & ((pos - k <= reach) | (k < first))
    whole = kept.view(128, 64, 128, 64).all(3).all(1)
    lost = (whole & (found != F)).sum(1)
    assert lost.max() <= 1, "but for the tile that two ranges share, all that all keep goes without a mask"


def test_a_sorted_table_is_searched() -> None:
    doc = torch.tensor([[0, 0, 0, 0, 1, 1, 3, 3]])
    spec = "input doc: int32[batch, k_len] sorted\nmask = doc[b, pos] == doc[b, k]"
    keys, queries = tiles(spec, 8, 8, doc=doc.int())
    assert keys == [[F, F, E, E], [F, F, E, E], [E, E, F, E], [E, E, E, F]]
    assert queries == keys


def test_a_head_has_tiles_of_its_own() -> None:
    from attngen.reference import bind

    spec = "variant tested\ninput window: int32[heads]\nmask = 0 <= dist < window[h]"
    plan = compile_spec(Source(spec)).plan
    q, k, v = qkv(heads=2, q_len=1024)
    env = bind(plan.ir, q, k, v, {"window": torch.tensor([512, 1024]).int()}, {})
    found = key_tiles(plan, env, 256, 256)[0]
    assert found[0].tolist() == [[P, E, E, E], [F, P, E, E], [P, F, P, E], [E, P, F, P]]
    assert found[1].tolist() == [[P, E, E, E], [F, P, E, E], [F, F, P, E], [F, F, F, P]]


# ---- The map and the emitted functions ---------------------------------------------------------------------


@contextmanager
def spied(module: Any, name: str, first: str) -> Iterator[dict[int, Any]]:
    """What the emitted function ``name`` returns in here, by the argument ``first``."""
    original = getattr(module, name)
    parameters = inspect.signature(original.fn)
    seen: dict[int, Any] = {}

    def spy(*args: Any, **named: Any) -> Any:
        result = original(*args, **named)
        seen[number(parameters.bind(*args, **named).arguments[first])] = result
        return result

    setattr(module, name, spy)
    try:
        yield seen
    finally:
        setattr(module, name, original)


def number(value: Any) -> int:
    return value if isinstance(value, int) else int(value.handle.data.item())


def steps(walk: Any, block: int) -> list[int]:
    """The tiles of a loop (from, to, gaps), as ``over`` in the templates jumps."""
    lo, hi, *rest = walk
    found = []
    for step in range(number(lo), number(hi), block):
        for at, length in rest[0] if rest else ():
            step += number(length) if step >= number(at) else 0
        found.append(step // block)
    return found


def row_of(returned: Any, has_interior: bool, block: int, count: int) -> list[int]:
    inner, edges = returned if has_interior else ((0, 0), returned)
    row: list[int] = [E] * count
    for kind, walk in ((F, inner), (P, edges)):
        for at in steps(walk, block):
            assert row[at] == E, "a tile is visited twice"
            row[at] = kind
    return row


FIRST = {("streaming_llm", 50, 150), ("packed_documents", 90, 60), ("natten_2d", 70, 70)}
MORE = [
    "block_causal",
    "prefix_lm",
    "sliding_window",
    "left_padded",
    "longformer",
    "shared_prefix",
    "svg_spatial",
    "packed_prefix",
]
CALLS = {(name, *shape) for name in MORE for shape in ((70, 70), (50, 150), (90, 60))} - FIRST


@pytest.mark.parametrize(
    ("name", "q_len", "k_len"),
    [*sorted(FIRST), *(pytest.param(*call, marks=pytest.mark.slow) for call in sorted(CALLS))],
)
def test_the_kernels_visit_the_tiles_of_the_map(name: str, q_len: int, k_len: int) -> None:
    one = sample_of(name)
    variant = attngen.load(name, **one.small)
    read = one.inputs(q_len, k_len)
    q, k, v = (x.requires_grad_() for x in qkv(q_len=q_len, k_len=k_len))
    plan, env = plan_and_call(name, q_len, k_len, one.small)
    with small_tiles(variant):
        with spied(variant.module, "key_range", "q_first") as keys:
            out = variant(q, k, v, **read)
        with spied(variant.module, "query_range", "k_first") as queries:
            out.sum().backward()
    mapped = key_tiles(plan, env, 32, 16)[0, 0]  # the forward's small tiles
    assert plan.key_loops.picks is None
    for first, returned in keys.items():
        row = row_of(returned, plan.key_loops.has_interior, 16, mapped.shape[1])
        assert row == mapped[first // 32].tolist()
    mapped = query_tiles(plan, env, 16, 32)[0, 0]  # those of dK and dV
    for first, returned in queries.items():
        row = row_of(returned, plan.query_loops.has_interior, 16, mapped.shape[0])
        assert row == mapped[:, first // 32].tolist()
    assert (len(keys), len(queries)) == (-(-q_len // 32), -(-k_len // 32))


@pytest.mark.parametrize(
    ("name", "q_len", "k_len"),
    [
        ("natten_tiled", 100, 100),
        pytest.param("block_sparse", 50, 150, marks=pytest.mark.slow),
        pytest.param("bigbird", 90, 60, marks=pytest.mark.slow),
        pytest.param("tree_speculation", 40, 90, marks=pytest.mark.slow),
    ],
)
def test_the_kernels_pick_the_tiles_of_the_map(name: str, q_len: int, k_len: int) -> None:
    one = sample_of(name)
    consts = {} if name == "natten_tiled" else one.small  # the smaller image is not worth a look
    variant = attngen.load(name, **consts)
    read = one.inputs(q_len, k_len)
    q, k, v = (x.requires_grad_() for x in qkv(q_len=q_len, k_len=k_len))
    plan, env = plan_and_call(name, q_len, k_len, consts)
    assert plan.key_loops.picks is not None
    with small_tiles(variant):
        with spied(variant.module, "pick_keys", "q_first") as keys:
            out = variant(q, k, v, **read)
        with spied(variant.module, "pick_queries", "k_first") as queries:
            out.sum().backward()
    mapped = key_tiles(plan, env, 32, 16)[0, 0]
    for first, walk in keys.items():
        assert listed(walk, 16) == mapped[first // 32].nonzero()[:, 0].tolist()
    mapped = query_tiles(plan, env, 16, 32)[0, 0]
    for first, walk in queries.items():
        assert listed(walk, 16) == mapped[:, first // 32].nonzero()[:, 0].tolist()
    assert keys and queries


def listed(walk: Any, block: int) -> list[int]:
    """The tiles of a loop over a list, as ``over`` in the templates reads it."""
    _, hi, (step, place) = walk
    steps, places = (x.handle.data.tolist() for x in (step, place))
    return [places[steps.index(at)] // block for at in range(0, number(hi), block)]


# ---- Random masks ------------------------------------------------------------------------------------------

DECLARED = "\n".join(
    f"input {i.name}: {i.dtype}[{', '.join(i.dims)}]{' sorted' if i.sorted else ''}" for i in INPUTS
)


SEVERAL = (  # ranges, of which one may be empty or lie behind the next
    "0 <= dist and (doc[b, k] == 0 or doc[b, pos] == doc[b, k])",
    "not (q < 1 or 0 <= dist < reach[h])",
    "(abs(dist) <= n or part[q] == doc[b, k]) and (abs(dist) <= 8 or k < prefix[b])",
    "(0 <= dist < 3 or part[q] == doc[b, k]) if h < 3 else doc[b, q] == abs(k - 4)",
    "doc[b, pos] == doc[b, k] or clamp(q // 8, 1, 2) == min(k, 32)",
)


@pytest.mark.parametrize("text", SEVERAL)
def test_an_empty_range_takes_no_tile_from_the_others(text: str) -> None:
    rng = random.Random(text)
    for _ in range(25):
        assert_nothing_is_skipped(text, Call(rng))


@pytest.mark.slow
def test_no_random_mask_skips_what_it_keeps() -> None:
    for seed in range(1000):
        rng = random.Random(seed)
        text = mask(rng)
        assert_nothing_is_skipped(text, Call(rng))


def assert_nothing_is_skipped(text: str, call: Call) -> None:
    """Every tile of the map against every score of the mask, in tiles of 4 and of 16."""
    plan = plan_of(text)
    kept, env = call.kept(plan.ir.mask), call.environment
    for block in (4, 16):
        some, all_kept = by_tile(kept, block).any(-1), ~by_tile(~kept, block).any(-1)
        for tiles_of in (key_tiles, query_tiles):
            found = tiles_of(plan, env, block, block)
            where = f"{tiles_of.__name__} of {block}: {text}, {call.q_len} x {call.k_len}"
            assert not ((found == E) & some).any(), f"a kept score is skipped: {where}"
            assert not ((found == F) & ~all_kept).any(), f"a masked score is kept: {where}"


@cache
def plan_of(text: str) -> Plan:
    ir = check_spec(Source(f"variant tested\n{DECLARED}\nparam n: int = 4\nmask = {text}\n")).ir
    return make_plan(ir, Options())


def by_tile(x: Tensor, block: int) -> Tensor:
    """[..., q_len, k_len] -> [..., query tiles, key tiles, scores]; beyond the lengths False."""
    x = pad(x, (0, -x.shape[-1] % block, 0, -x.shape[-2] % block))
    return x.unfold(2, block, block).unfold(3, block, block).flatten(-2)


# ---- The zoo -----------------------------------------------------------------------------------------------

SHORT = ((300, 300), (130, 400), (310, 170))
EQUAL = [
    "causal",
    "sliding_window",
    "gemma2_local",
    "head_windows",
    "prefix_lm",
    "packed_documents",
    "navit",
    "streaming_llm",
    "chunked",
]


@pytest.mark.parametrize("name", EQUAL)
def test_usual_masks_visit_no_tile_in_vain(name: str) -> None:
    for shape in ((1500, 1500), (500, 1400), (900, 600)):
        for found in counts(name, *shape):
            assert found.visited == found.fewest, shape


@pytest.mark.parametrize("name", ["neighbourhood_2d", "natten_2d"])
def test_neighbourhoods_visit_at_most_a_tenth_more_than_they_must(name: str) -> None:
    for shape in ((2048, 2048), (1500, 1500)):
        for found in counts(name, *shape):
            assert found.visited <= 1.1 * found.fewest, shape


@pytest.mark.parametrize("name", share(zoo_names(), 4))
def test_no_spec_of_the_zoo_skips_what_it_keeps_or_keeps_what_it_masks(name: str) -> None:
    for shape in SHORT:  # counts() holds every tile against the mask
        for found in counts(name, *shape, block=16):
            assert isinstance(found, Count) and found.fewest <= found.visited


@pytest.mark.slow
def test_the_page_of_the_ranges_is_up_to_date() -> None:
    """``python tests/ranges_page.py`` writes it."""
    assert PAGE.read_text("utf-8") == page()
