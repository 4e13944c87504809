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
    """A number to each word, one to all patches of an image: every fourth of the sequence ends in one."""
    place = torch.arange(k_len)
    in_image = place % max(k_len // 4, 1) >= k_len // 8
    return torch.where(in_image, place - place % max(k_len // 4, 1) + k_len // 8, place).int()[None]


def _tree(q_len: int) -> Tensor:
    """Parents of tokens in depth-first order, -1 of the root: some length to each branch, a few at a fork."""
    parent, path = [], [-1]
    for token in range(q_len):
        depth = 1 if token % 16 == 15 else len(path) if token % 4 else max(len(path) - 2, 1)
        path = [*path[:depth], token]
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


def _shuffled(k_len: int) -> Tensor:
    """Sixteen pieces of a text, predicted in another order than they stand in."""
    piece = -(-k_len // 16)
    turn = torch.randperm(16, generator=torch.Generator().manual_seed(3)).repeat_interleave(piece)[:k_len]
    return (turn * piece + torch.arange(k_len) % piece).int()[None]


def _every_fourth(length: int) -> Tensor:
    """Places of a device's tokens, which are dealt out to four devices one by one."""
    return (torch.arange(length) * 4).int()


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
    length: int = 512  # of the drawing


def _documents(name: str = "doc", count: int = 4) -> Inputs:
    return lambda q_len, k_len: {name: runs(k_len, count)}


def _one(**numbers: float) -> Inputs:
    """Inputs of one number, each the given share of the keys."""
    return lambda q_len, k_len: {n: torch.tensor([int(share * k_len)]).int() for n, share in numbers.items()}


SAMPLES: Mapping[str, Sample] = {
    "alibi_documents": Sample(inputs=_documents()),
    "batchify": Sample({"group": 128}, {"group": 1024}),
    "bigbird": Sample({"block": 32}, inputs=lambda q, k: {"random": _random(_blocks(k, 32), 3, below=16)}),
    "block_causal": Sample({"block": 80}, {"block": 390}),
    "block_diffusion": Sample({"block": 32}, {"block": 16}),
    "block_sparse": Sample(
        {"block": 32},
        inputs=lambda q, k: {"chosen": _chosen(1, 1, _blocks(q, 32), _blocks(k, 32), share=0.3)},
    ),
    "chunked": Sample({"chunk": 160}, {"chunk": 1024}),
    "criss_cross": Sample({"width": 32}),
    "decode_offset": Sample(inputs=lambda q, k: {"offset": torch.tensor([k // 2]).int()}, few_queries=True),
    "dilated_window": Sample({"window": 64, "step": 3}),
    "duo_attention": Sample(
        {"window": 160, "keep": 16}, inputs=lambda q, k: {"streaming": torch.ones(1).bool()}
    ),
    "fixed_sparse": Sample({"block": 64, "summary": 8}),
    "flamingo": Sample(
        {"latents": 64},
        inputs=lambda q, k: {"images": runs(q, max(k // 64, 2) + 1)},
        few_queries=True,
    ),
    "gemma2_local": Sample({"window": 160}, {"window": 1024}),
    "gemma3": Sample({"window": 160}),
    "gpt_oss": Sample({"window": 128}),
    "graphormer_spatial": Sample(inputs=_one(nodes=0.8)),
    "head_windows": Sample(inputs=_one(window=0.25)),
    "key_padding": Sample(inputs=_one(length=0.7)),
    "left_padded": Sample(inputs=_one(first=0.2, last=0.9)),
    "longformer": Sample({"radius": 80, "globals": 16}),
    "longnet": Sample({"segment": 128, "step": 4}),
    "moba": Sample({"block": 64}, inputs=lambda q, k: {"chosen": _chosen(1, 1, q, 16, share=0.2)}),
    "modernbert_local": Sample({"radius": 80}, {"radius": 64}, inputs=_documents()),
    "natten_2d": Sample({"width": 32, "height": 16, "radius": 4}),
    "natten_morton": Sample({"side": 16, "radius": 3}, length=256),
    "natten_tiled": Sample({"width": 32, "height": 16, "radius": 4, "tile": 4}),
    "navit": Sample(inputs=_documents("image")),
    "neighbourhood_2d": Sample({"width": 32, "radius": 4}),
    "packed_documents": Sample(inputs=_documents()),
    "packed_prefix": Sample(inputs=lambda q, k: {"doc": runs(k, 4), "prefix_end": _prefix_ends(runs(k, 4))}),
    "parallel_contexts": Sample(inputs=lambda q, k: {"context": runs(k, 4), "task": torch.tensor([3]).int()}),
    "permutation_lm": Sample(inputs=lambda q, k: {"order": _shuffled(k)}),
    "phi3_small": Sample({"block": 16, "local": 6, "stride": 4}, {"local": 8}),
    "prefix_lm": Sample(inputs=_one(prefix=0.3)),
    "retro": Sample({"chunk": 16, "retrieved": 64}, {"retrieved": 128}, few_queries=True),
    "scale_causal": Sample(inputs=lambda q, k: {"scale_of": _scales(k)}),
    "shared_prefix": Sample(inputs=_documents("branch")),
    "sliding_window": Sample({"window": 160}, {"window": 1024}),
    "sta_2d": Sample({"area": 32, "across": 4, "down": 4}, {"area": 64, "across": 8, "down": 7}),
    "sta_3d": Sample(
        {"size": 8, "across": 4, "down": 4, "deep": 4}, {"size": 64, "across": 4, "down": 4, "deep": 4}
    ),
    "streaming_asr": Sample(params={"chunk": 48, "left": 2}),
    "streaming_llm": Sample({"window": 160, "keep": 16}),
    "strided_sparse": Sample({"stride": 64}),
    "striped_ring": Sample(
        inputs=lambda q, k: {"q_place": _every_fourth(q), "k_place": _every_fourth(k) + 1}
    ),
    "svg_spatial": Sample({"prompt": 32, "frame": 48, "width": 2}, {"frame": 256}),
    "svg_temporal": Sample({"prompt": 32, "frame": 48, "reach": 8}, {"frame": 256, "reach": 40}),
    "swin_window_bias": Sample(
        {"window": 10}, {"window": 7}, inputs=lambda q, k: {"region": torch.zeros(k).int()}
    ),
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
