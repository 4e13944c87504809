"""A call of each spec of the zoo that shows what its mask is about: consts that fit the length, plain inputs.

``consts`` are for the given length; what is not named keeps the spec's own value. ``inputs`` gives the mask's
inputs as a batch of one, drawn from a fixed seed; what is not named is not read by the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attngen.ir.types import Scalar

Inputs = Callable[[int, int], Mapping[str, Tensor]]


def runs(k_len: int, count: int, *, first: int = 0) -> Tensor:
    """Non-decreasing numbers from ``first``: ``count`` runs of uneven lengths, [1, k_len]."""
    ends = torch.tensor([(n + 1) * (n + 1 + count) for n in range(count)]) / (2 * count * count)
    return (torch.bucketize(torch.arange(k_len) / k_len, ends, right=True) + first).int()[None]


def _random(*shape: int, below: int) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(3)).int()


def _chosen(*shape: int, share: float) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) < share


def _prefix_ends(doc: Tensor) -> Tensor:
    """For each token the place a third into its document."""
    ends = torch.empty_like(doc)
    for number in doc.unique():
        places = (doc[0] == number).nonzero()[:, 0]
        ends[0, places] = int(places[0]) + len(places) // 3
    return ends


def _images(k_len: int) -> Tensor:
    """A number to each token, one to all tokens of each image: every fourth of the sequence ends in one."""
    place = torch.arange(k_len)
    in_image = place % max(k_len // 4, 1) >= k_len // 8
    return torch.where(in_image, place - place % max(k_len // 4, 1) + k_len // 8, place).int()[None]


def _tree(q_len: int) -> Tensor:
    """Parents of tokens in depth-first order, -1 of the root: branches of some length, a few from each fork."""
    parent, path = [], [-1]
    for token in range(q_len):
        depth = 1 if token % 16 == 15 else len(path) if token % 4 else max(len(path) - 2, 1)
        path = path[:depth] + [token]
        parent.append(path[-2])
    return torch.tensor(parent)


def _ancestors(q_len: int) -> Tensor:
    parent = _tree(q_len)
    found = torch.eye(q_len, dtype=torch.bool)
    for token in range(q_len):
        if parent[token] >= 0:
            found[token] |= found[parent[token]]
    return found


def _branch_ends(q_len: int, k_len: int) -> Tensor:
    ends = torch.full((1, k_len), k_len, dtype=torch.int32)
    below = _ancestors(q_len)
    own = min(q_len, k_len)
    last = torch.tensor([int(below[:, token].nonzero()[-1, 0]) + 1 for token in range(q_len)])
    ends[0, k_len - own :] = (last[q_len - own :] + k_len - q_len).int()
    return ends


def _scales(k_len: int) -> Tensor:
    """Scale n has (n + 1) ** 2 tokens; after the tenth all else is of the last."""
    ends = torch.tensor([(n + 1) ** 2 for n in range(10)]).cumsum(0) * k_len // 385
    return torch.bucketize(torch.arange(k_len), ends, right=True).int()


def _blocks(k_len: int, block: int) -> int:
    return -(-k_len // block)


@dataclass(frozen=True)
class Sample:
    """How to draw one spec, and how to count its tiles.

    ``small`` are consts for a few hundred positions, ``large`` for a few thousand. ``params`` are for both.
    """

    small: Mapping[str, Scalar] = field(default_factory=dict)
    large: Mapping[str, Scalar] = field(default_factory=dict)
    params: Mapping[str, Scalar] = field(default_factory=dict)
    inputs: Inputs = lambda q_len, k_len: {}
    few_queries: bool = False  # drawn with more keys than queries


def _documents(name: str = "doc", count: int = 4) -> Inputs:
    return lambda q_len, k_len: {name: runs(k_len, count)}


def _one(**numbers: float) -> Inputs:
    """Inputs of one number, each the given share of the keys."""
    return lambda q_len, k_len: {n: torch.tensor([int(share * k_len)]).int() for n, share in numbers.items()}


_GRID = {"width": 16, "height": 16, "radius": 3}

SAMPLES: Mapping[str, Sample] = {
    "alibi_documents": Sample(inputs=_documents()),
    "batchify": Sample({"group": 64}, {"group": 1024}),
    "bigbird": Sample({"block": 16}, inputs=lambda q, k: {"random": _random(_blocks(k, 16), 3, below=16)}),
    "block_causal": Sample({"block": 40}, {"block": 390}),
    "block_diffusion": Sample({"block": 16}),
    "block_sparse": Sample(
        {"block": 16}, inputs=lambda q, k: {"chosen": _chosen(1, 1, _blocks(q, 16), _blocks(k, 16), share=0.3)}
    ),
    "chunked": Sample({"chunk": 64}, {"chunk": 1024}),
    "criss_cross": Sample({"width": 16}),
    "decode_offset": Sample(inputs=lambda q, k: {"offset": torch.tensor([k - 3 * q // 2]).int()}, few_queries=True),
    "dilated_window": Sample({"window": 24, "step": 3}),
    "duo_attention": Sample({"window": 48, "keep": 8}, inputs=lambda q, k: {"streaming": torch.tensor([True])}),
    "fixed_sparse": Sample({"block": 32, "summary": 4}),
    "flamingo": Sample(
        {"latents": 32},
        {"latents": 64},
        inputs=lambda q, k: {"images": (runs(q, max(k // 64, 2) + 1))},
        few_queries=True,
    ),
    "gemma2_local": Sample({"window": 64}, {"window": 1024}),
    "gemma3": Sample({"window": 64}),
    "gpt_oss": Sample({"window": 32}),
    "graphormer_spatial": Sample(inputs=_one(nodes=0.8)),
    "head_windows": Sample(inputs=_one(window=0.25)),
    "key_padding": Sample(inputs=_one(length=0.7)),
    "left_padded": Sample(inputs=_one(first=0.2, last=0.9)),
    "llama4_global": Sample({"floor_scale": 64}),
    "logsparse": Sample(),
    "longformer": Sample({"radius": 24, "globals": 4}),
    "longnet": Sample({"segment": 64, "step": 4}),
    "moba": Sample({"block": 32}, inputs=lambda q, k: {"chosen": _chosen(1, 1, q, 16, share=0.2)}),
    "modernbert_local": Sample({"radius": 24}, inputs=_documents()),
    "natten_2d": Sample(_GRID),
    "natten_morton": Sample({"side": 16, "radius": 3}),
    "natten_tiled": Sample({**_GRID, "tile": 4}),
    "navit": Sample(inputs=_documents("image")),
    "neighbourhood_2d": Sample({"width": 16, "radius": 3}),
    "packed_documents": Sample(inputs=_documents()),
    "packed_prefix": Sample(
        inputs=lambda q, k: {"doc": runs(k, 4), "prefix_end": _prefix_ends(runs(k, 4))},
    ),
    "parallel_contexts": Sample(
        inputs=lambda q, k: {"context": runs(k, 4), "task": torch.tensor([3]).int()},
    ),
    "permutation_lm": Sample(
        inputs=lambda q, k: {
            "order": torch.randperm(k, generator=torch.Generator().manual_seed(3)).int()[None],
        },
    ),
    "phi3_small": Sample({"block": 8, "local": 4, "stride": 4}, {"local": 8}),
    "prefix_lm": Sample(inputs=_one(prefix=0.3)),
    "retro": Sample({"chunk": 16, "retrieved": 32}, {"chunk": 64, "retrieved": 128}, few_queries=True),
    "scale_causal": Sample(inputs=lambda q, k: {"scale_of": _scales(k)}),
    "shared_prefix": Sample(inputs=_documents("branch")),
    "sliding_window": Sample({"window": 64}, {"window": 1024}),
    "sta_2d": Sample({"area": 8, "across": 5, "down": 6}, {"across": 8, "down": 7}),
    "sta_3d": Sample({"size": 2, "across": 5, "down": 5, "deep": 5}, {"across": 4, "down": 4, "deep": 3}),
    "strided_sparse": Sample({"stride": 32}),
    "streaming_asr": Sample(params={"chunk": 16, "left": 3}),
    "streaming_llm": Sample({"window": 64, "keep": 4}),
    "striped_ring": Sample(
        inputs=lambda q, k: {
            "q_place": (torch.arange(q) * 4 + 1).int(),
            "k_place": (torch.arange(k) * 4 * q // k + 2).int(),
        },
    ),
    "svg_spatial": Sample(
        {"prompt": 16, "frame": 24, "width": 2}, {"prompt": 226, "frame": 256, "width": 2}
    ),
    "svg_temporal": Sample(
        {"prompt": 16, "frame": 24, "reach": 4}, {"prompt": 226, "frame": 256, "reach": 40}
    ),
    "swin_window_bias": Sample({"window": 5}, inputs=lambda q, k: {"region": torch.zeros(k).int()}),
    "transfusion": Sample(inputs=lambda q, k: {"group": _images(k)}),
    "tree_intervals": Sample(inputs=lambda q, k: {"branch_end": _branch_ends(q, k)}, few_queries=True),
    "tree_speculation": Sample(inputs=lambda q, k: {"ancestor": _ancestors(q)}, few_queries=True),
    "vertical_slash": Sample(
        inputs=lambda q, k: {
            "vertical": _chosen(1, 1, k, share=0.03),
            "slash": _chosen(1, 1, k, share=0.05) | (torch.arange(k) < k // 32),
        },
    ),
}


def sample_of(name: str) -> Sample:
    """The sample of a spec; plain where none is written down."""
    return SAMPLES.get(name, Sample())
