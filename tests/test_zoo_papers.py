"""Every spec of the zoo against its paper's maths, written as the published code writes it: dense, by hand.

Values, and the gradients of what the paper learns, or of q, k and v where it learns nothing, in float64.
Nothing here reads a spec.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_prelude import transformers_bucket
from torch import Tensor
from zoo_masks import MORE_MASKS

import attngen
from attngen.spec_file import zoo_names

Learned = dict[str, Tensor]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def qkv(batch: int = 2, heads: int = 4, q_len: int = 12, k_len: int = 12, dim: int = 16) -> list[Tensor]:
    lengths = (q_len, k_len, k_len)
    return [draw(batch, heads, n, dim, seed=seed) for seed, n in enumerate(lengths)]


def by_reference(
    name: str, tensors: list[Tensor], learned: Learned, consts: Any = None, **given: Any
) -> Tensor:
    """What the spec means. float64 learned inputs stay what they are, so that gradients reach them."""
    return attngen.load(name, **(consts or {})).reference(*tensors, **learned, **given)


def assert_same(ours: Tensor, paper: Tensor, learned: Learned) -> None:
    """The same result, and the same gradient of everything learned for a random cotangent."""
    torch.testing.assert_close(ours, paper, rtol=1e-9, atol=1e-10)
    weights = draw(*paper.shape, seed=9)
    leaves = list(learned.values())
    for mine, theirs in zip(
        *(torch.autograd.grad(x, leaves, weights, retain_graph=True) for x in (ours, paper)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)
        assert mine.abs().sum() > 0


def learn(**tensors: Tensor) -> Learned:
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


@pytest.mark.parametrize("k_len", [150, 200])
def test_t5_adds_the_embedding_of_transformers_buckets_to_unscaled_scores(k_len: int) -> None:
    q, k, v = qkv(q_len=150, k_len=k_len)
    learned = learn(table=draw(4, 32, seed=5))
    context = torch.arange(k_len - 150, k_len)[:, None]
    buckets = transformers_bucket(torch.arange(k_len)[None, :] - context, True, 32, 128)
    bias = F.embedding(buckets, learned["table"].T).permute(2, 0, 1)
    paper = torch.softmax(q @ k.mT + bias, -1) @ v
    assert_same(by_reference("t5", [q, k, v], learned), paper, learned)


def test_gpt_oss_appends_the_sink_to_the_logits_and_drops_its_weight() -> None:
    q, k, v = qkv(q_len=40, k_len=40)
    learned = learn(sinks=draw(4, seed=5))
    rows, columns = torch.arange(40)[:, None], torch.arange(40)[None, :]
    outside = (columns > rows) | (columns <= rows - 8)
    logits = (q @ k.mT / 4.0).masked_fill(outside, -math.inf)
    sinks = learned["sinks"].reshape(1, 4, 1, 1).expand(2, 4, 40, 1)
    paper = torch.softmax(torch.cat([logits, sinks], -1), -1)[..., :-1] @ v
    assert_same(by_reference("gpt_oss", [q, k, v], learned, {"window": 8}), paper, learned)


def test_gpt_oss_has_a_window_of_128_keys() -> None:
    assert "window: int = 128" in attngen.load("gpt_oss").spec


@pytest.mark.parametrize("shape", [(2, 4, 12, 12), (1, 4, 12, 12), (2, 1, 12, 1)])
def test_dense_bias_adds_a_bias_that_broadcasts_as_in_torch(shape: tuple[int, ...]) -> None:
    q, k, v = qkv()
    learned = learn(bias=draw(*shape, seed=5))
    paper = torch.softmax(q @ k.mT / 4.0 + learned["bias"] + 0.0 * (q @ k.mT), -1) @ v
    if shape[3] == 1:  # the same for every key: nothing but rounding depends on it
        torch.testing.assert_close(by_reference("dense_bias", [q, k, v], learned), paper)
    else:
        assert_same(by_reference("dense_bias", [q, k, v], learned), paper, learned)


def test_relative_table_clips_the_relative_position_at_both_ends() -> None:
    q, k, v = qkv(q_len=10, k_len=14)
    learned = learn(table=draw(4, 7, seed=5))
    clipped = [[max(-3, min(3, (i + 4) - j)) + 3 for j in range(14)] for i in range(10)]
    paper = torch.softmax(q @ k.mT / 4.0 + learned["table"][:, torch.tensor(clipped)], -1) @ v
    assert_same(by_reference("relative_table", [q, k, v], learned, {"reach": 3}), paper, learned)


def test_head_gate_is_wavlms_gated_relative_position_bias() -> None:
    """As the published code has it, whose gate_a is one minus the paper's update gate."""
    q, k, v = qkv(batch=1, heads=2, q_len=900, k_len=900)
    table, constant = draw(2, 320, seed=5).requires_grad_(), draw(2, seed=6).requires_grad_()
    gate_a, gate_b = draw(2, 1, 2, 900, seed=7).sigmoid()
    positions = torch.arange(900)
    bias = table[:, transformers_bucket(positions[None, :] - positions[:, None], True, 320, 800)]
    theirs = gate_a * (gate_b * constant[:, None] - 1.0) + 2.0
    paper = torch.softmax(q @ k.mT / 4.0 + theirs[..., None] * bias, -1) @ v

    update, reset = 1.0 - gate_a, gate_b
    gate = 1 + update + (1 - update) * constant[:, None] * reset  # the line of the spec
    ours = by_reference("head_gate", [q, k, v], {"table": table, "gate": gate})
    assert_same(ours, paper, {"table": table, "constant": constant})


def partition(image: Tensor, window: int) -> Tensor:
    """Swin's window_partition: (H, W, ...) to (windows, window * window, ...)."""
    height, width, *rest = image.shape
    tiles = image.view(height // window, window, width // window, window, *rest)
    return tiles.transpose(1, 2).reshape(-1, window * window, *rest)


@pytest.mark.parametrize("shift", [0, 1])
def test_swin_is_attention_in_windows_with_the_published_index_and_mask(shift: int) -> None:
    window, side, heads, dim = 3, 6, 2, 16
    area = window * window
    coordinates = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
    flat = coordinates.flatten(1)
    relative = (flat[:, :, None] - flat[:, None, :]).permute(1, 2, 0) + window - 1
    index = relative[..., 0] * (2 * window - 1) + relative[..., 1]
    learned = learn(table=draw(heads, (2 * window - 1) ** 2, seed=5))
    bias = learned["table"].T[index.view(-1)].view(area, area, heads).permute(2, 0, 1)

    regions = torch.zeros(side, side)
    if shift:
        slices = [slice(0, -window), slice(-window, -shift), slice(-shift, None)]
        for number, (down, across) in enumerate(product(slices, slices)):
            regions[down, across] = number
    regions = partition(regions, window)  # (windows, area)
    apart = (regions[:, None, :] != regions[:, :, None])[:, None]  # (windows, 1, area, area)

    images = [draw(side, side, heads, dim, seed=seed) for seed in range(3)]
    q, k, v = (partition(image, window).transpose(1, 2) for image in images)  # (windows, heads, area, dim)
    logits = (q @ k.mT / 4.0 + bias).masked_fill(apart, -math.inf)
    paper = torch.softmax(logits, -1) @ v

    # One sequence, window after window; or a batch of windows, as the published code has it.
    given = {
        "consts": {"window": window},
        "region": regions.flatten().int() if shift else torch.zeros(1).int(),
    }
    whole = [x.transpose(0, 1).flatten(1, 2)[None] for x in (q, k, v)]
    ours = by_reference("swin_window_bias", whole, learned, **given)
    assert_same(ours[0].unflatten(1, (-1, area)).transpose(0, 1), paper, learned)
    if not shift:
        assert_same(by_reference("swin_window_bias", [q, k, v], learned, **given), paper, learned)


def shortest_paths(edges: set[tuple[int, int]], nodes: int, unreachable: int) -> Tensor:
    """Floyd's algorithm, in edges."""
    far = 10_000
    path = [[0 if i == j else 1 if (i, j) in edges else far for j in range(nodes)] for i in range(nodes)]
    for via, i, j in product(range(nodes), repeat=3):
        path[i][j] = min(path[i][j], path[i][via] + path[via][j])
    return torch.tensor([[unreachable if n >= far else n for n in row] for row in path])


def test_graphormer_reads_a_bias_by_the_shortest_path() -> None:
    most, lengths = 9, 6
    paths = torch.full((2, most, most), 77, dtype=torch.int32)  # what stands in the padding is not read
    ring = {(i, (i + 1) % 9) for i in range(9)}
    two_chains = {(0, 1), (1, 2), (3, 4), (4, 5), (5, 6)}
    sizes = [9, 7]
    for number, (edges, nodes) in enumerate(zip([ring, two_chains], sizes, strict=True)):
        both_ways = edges | {(j, i) for i, j in edges}
        paths[number, :nodes, :nodes] = shortest_paths(both_ways, nodes, unreachable=lengths - 1)
    assert {int(n) for n in paths.unique()} == {0, 1, 2, 3, 4, lengths - 1, 77}

    q, k, v = qkv(q_len=most, k_len=most)
    learned = learn(table=draw(4, lengths, seed=5))
    given = {"path": paths, "nodes": torch.tensor(sizes, dtype=torch.int32)}
    ours = by_reference("graphormer_spatial", [q, k, v], learned, **given)
    papers = []
    for number, nodes in enumerate(sizes):
        inside = paths[number, :nodes, :nodes].long()
        logits = q[number, :, :nodes] @ k[number, :, :nodes].mT / 4.0 + learned["table"][:, inside]
        papers.append(torch.softmax(logits, -1) @ v[number, :, :nodes])
    flat = torch.cat([ours[n, :, :nodes].flatten() for n, nodes in enumerate(sizes)])
    assert_same(flat, torch.cat([paper.flatten() for paper in papers]), learned)


def test_cosine_attention_scales_the_cosine_by_a_clamped_temperature() -> None:
    q, k, v = qkv()
    q, k = q.requires_grad_(), k.requires_grad_()
    log_scale = torch.tensor([math.log(10.0), -0.5, 3.0, 6.0], dtype=torch.float64)  # the last above log(100)
    learned = learn(log_scale=log_scale) | {"q": q, "k": k}
    cosine = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
    factor = torch.clamp(learned["log_scale"], max=math.log(1.0 / 0.01)).exp()
    paper = torch.softmax(cosine * factor[:, None, None], -1) @ v
    unit = [F.normalize(q, dim=-1), F.normalize(k, dim=-1), v]
    ours = by_reference("cosine_temperature", unit, {"log_scale": learned["log_scale"]})
    assert_same(ours, paper, learned)
    assert torch.autograd.grad(ours.sum(), learned["log_scale"])[0][3] == 0.0


def one_by_one(q: Tensor, k: Tensor, v: Tensor, keys_of: Callable[[int, int], list[int]]) -> Tensor:
    """Attention of each batch row's each query over the keys that it is given, and no others; 0 over none."""
    rows = []
    for b, i in product(range(q.shape[0]), range(q.shape[2])):
        keys = keys_of(b, i)
        rows.append(F.scaled_dot_product_attention(q[b, :, i, None], k[b][:, keys], v[b][:, keys]))
    return torch.stack(rows).squeeze(2).unflatten(0, (q.shape[0], -1)).transpose(1, 2)


def published_slopes(heads: int) -> Tensor:
    """get_slopes of ALiBi's published code, for a power of two."""
    start = 2 ** (-(2 ** -(math.log2(heads) - 3)))
    return torch.tensor([start * start**i for i in range(heads)])


def alibi(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As published: slopes times the key's place, since what is the same for all keys of a row is nothing."""
    bias = published_slopes(4).double()[:, None, None] * torch.arange(12)
    return torch.softmax((q @ k.mT / 4.0 + bias).masked_fill(~lower(12), -math.inf), -1) @ v


def lower(n: int) -> Tensor:
    return torch.ones(n, n, dtype=torch.bool).tril()


def capped(cap: float, outside: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Gemma 2's eager attention in Transformers: cap, then mask."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = q @ k.mT * 16**-0.5
        weights = torch.tanh(weights / cap) * cap
        return torch.softmax(weights.masked_fill(outside, -math.inf), -1) @ v

    return attention


def chunks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of each chunk of 5 alone."""
    parts = zip(*(x.split(5, 2) for x in (q, k, v)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*part, is_causal=True) for part in parts], 2)


DOCUMENTS = [[4, 5, 3], [1, 11, 0]]  # the lengths in each row of the batch


def packed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of each document alone."""
    rows = []
    for b, lengths in enumerate(DOCUMENTS):
        parts = zip(*(x[b].split(lengths, 1) for x in (q, k, v)), strict=True)
        rows.append(torch.cat([F.scaled_dot_product_attention(*part, is_causal=True) for part in parts], 1))
    return torch.stack(rows)


def square(i: int) -> list[int]:
    """The pixels of a 4 x 3 image (4 wide) at most 1 away from pixel i, across and down."""
    x, y = i % 4, i // 4
    return [row * 4 + at for row in range(3) for at in range(4) if abs(at - x) <= 1 and abs(row - y) <= 1]


def sigmoid_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The published code adds the bias to the scores and then masks with -inf."""
    scores = q @ k.mT / q.shape[-1] ** 0.5 - math.log(k.shape[-2])
    return torch.sigmoid(scores.masked_fill(~lower(q.shape[-2]), -math.inf)) @ v


def clipped(gamma: float, zeta: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The published code's clipped_softmax, of masked scores."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~lower(q.shape[-2]), -math.inf)
        return torch.clip(torch.softmax(scores, -1) * (zeta - gamma) + gamma, 0, 1) @ v

    return attention


def test_gated_attention_multiplies_the_result_by_the_sigmoid_of_each_querys_gate() -> None:
    q, k, v = qkv()
    learned = learn(gate=draw(2, 4, 12, seed=5))
    paper = (
        F.scaled_dot_product_attention(q, k, v, is_causal=True) * torch.sigmoid(learned["gate"])[..., None]
    )
    assert_same(by_reference("gated_attention", [q, k, v], learned), paper, learned)


Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], Attention]] = {
    "full": ({}, {}, F.scaled_dot_product_attention),
    "causal": ({}, {}, partial(F.scaled_dot_product_attention, is_causal=True)),
    "alibi": ({}, {"slopes": published_slopes(4)}, alibi),
    "softcap": ({}, {"cap": 0.5}, capped(0.5, ~lower(12))),
    "gemma2_local": ({"window": 4}, {"cap": 0.5}, capped(0.5, ~lower(12) | lower(12).tril(-4))),
    "sliding_window": (
        {"window": 4},
        {},
        lambda q, k, v: one_by_one(q, k, v, lambda b, i: list(range(max(0, i - 3), i + 1))),
    ),
    "prefix_lm": (
        {},
        {"prefix": torch.tensor([3, 7], dtype=torch.int32)},
        lambda q, k, v: one_by_one(q, k, v, lambda b, i: list(range(max(i + 1, [3, 7][b])))),
    ),
    "packed_documents": (
        {},
        {"doc": torch.tensor([[0] * 4 + [1] * 5 + [2] * 3, [0] + [1] * 11], dtype=torch.int32)},
        packed,
    ),
    "streaming_llm": (  # what the cache holds: the first tokens and the last ones
        {"window": 4, "keep": 2},
        {},
        lambda q, k, v: one_by_one(q, k, v, lambda b, i: sorted({*range(min(2, i + 1)), *range(i + 1)[-4:]})),
    ),
    "chunked": ({"chunk": 5}, {}, chunks),
    "neighbourhood_2d": (
        {"width": 4, "radius": 1},
        {},
        lambda q, k, v: one_by_one(q, k, v, lambda b, i: square(i)),
    ),
    "sigmoid_attention": ({}, {}, sigmoid_attention),
    "relu_attention": ({}, {}, lambda q, k, v: torch.relu(q @ k.mT / q.shape[-1] ** 0.5) / k.shape[-2] @ v),
    "clipped_softmax": ({}, {"low": -0.125, "high": 1.0625}, clipped(-0.125, 1.0625)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_learns_nothing_is_its_papers_attention_too(name: str) -> None:
    consts, given, paper = OTHERS[name]
    learned = {n: x.requires_grad_() for n, x in zip("qkv", qkv(), strict=True)}
    ours = attngen.load(name, **consts).reference(*learned.values(), **given)
    assert_same(ours, paper(*learned.values()), learned)


def test_dropped_zeroes_weights_at_its_rate_and_scales_up_the_others() -> None:
    q, k, _ = qkv(q_len=64, k_len=64)
    v = torch.eye(64, dtype=torch.float64).expand(2, 4, 64, 64)  # so that out is the weights
    weights = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    ours = attngen.load("dropped").reference(q, k, v, p=0.25, seed=1)
    assert isinstance(ours, Tensor)
    kept = ours != 0
    torch.testing.assert_close(ours[kept], (weights / 0.75)[kept], rtol=1e-12, atol=0)
    assert kept[weights != 0].double().mean().item() == pytest.approx(0.75, abs=0.01)


def test_mla_rope_is_attention_with_the_rotated_parts_appended_as_deepseek_has_it() -> None:
    q, k, v = qkv()
    learned = learn(q_rope=draw(2, 4, 12, 64, seed=5), k_rope=draw(2, 12, 64, seed=6))
    whole_q = torch.cat([q, learned["q_rope"]], -1)
    whole_k = torch.cat([k, learned["k_rope"][:, None].expand(2, 4, 12, 64)], -1)
    paper = F.scaled_dot_product_attention(whole_q, whole_k, v, is_causal=True)  # by 1 / sqrt(16 + 64)
    assert_same(by_reference("mla_rope", [q, k, v], learned), paper, learned)


def test_tupe_adds_what_the_places_have_to_do_with_each_other() -> None:
    q, k, v = qkv(q_len=9, k_len=9)
    learned = learn(places=draw(9, 8, seed=5), u_q=draw(4, 8, 16, seed=6), u_k=draw(4, 8, 16, seed=7))
    places = learned["places"]
    untied = (places @ learned["u_q"]) @ (places @ learned["u_k"]).mT
    paper = torch.softmax((q @ k.mT + untied) / math.sqrt(2 * 16), -1) @ v
    given = {"q_place": places @ learned["u_q"], "k_place": places @ learned["u_k"]}
    assert_same(by_reference("tupe", [q, k, v], {}, **given), paper, learned)


def test_low_rank_bias_is_the_squared_distance_of_points_in_flashbiass_factors() -> None:
    """|x - y|^2 = |x|^2 + |y|^2 - 2 x.y has rank 5 in space."""
    q, k, v = qkv()
    learned = learn(x=draw(2, 1, 12, 3, seed=5), y=draw(2, 1, 12, 3, seed=6))
    x, y = learned["x"], learned["y"]
    ones = torch.ones(2, 1, 12, 1, dtype=torch.float64)
    paper = torch.softmax(q @ k.mT / 4.0 - (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1), -1) @ v
    q_factor = torch.cat([-x.square().sum(-1, keepdim=True), -ones, 2 * x], -1)
    k_factor = torch.cat([ones, y.square().sum(-1, keepdim=True), y], -1)
    ours = by_reference("low_rank_bias", [q, k, v], {}, q_factor=q_factor, k_factor=k_factor)
    assert_same(ours, paper, learned)


def test_every_spec_of_the_zoo_is_held_against_its_paper() -> None:
    """Those that learn something, each by a test above; the others; and those of zoo_masks."""
    with_tests = {"t5", "gpt_oss", "dense_bias", "relative_table", "head_gate", "swin_window_bias"}
    with_tests |= {"graphormer_spatial", "cosine_temperature", "dropped", "gated_attention"}
    with_tests |= {"mla_rope", "tupe", "low_rank_bias"}
    assert with_tests | set(OTHERS) | set(MORE_MASKS) == set(zoo_names())
