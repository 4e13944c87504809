"""Specs of the zoo that change the score, against their paper's formula: dense, by hand, with its gradients.

Specs that only mask are held against ``zoo_masks`` by test_zoo.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_prelude import transformers_bucket
from test_zoo_papers import assert_same, by_reference, draw, learn, lower, published_slopes, qkv
from torch import Tensor
from zoo_masks import MORE_MASKS

N, HEADS = 12, 4
OUTSIDE = ~lower(N)
DISTANCE = (torch.arange(N)[:, None] - torch.arange(N)[None, :]).abs().double()
DOCUMENTS = [[4, 5, 3], [1, 11, 0]]
DOC = torch.tensor([[n for n, length in enumerate(row) for _ in range(length)] for row in DOCUMENTS])

Scores = Tensor
Learned = Mapping[str, Tensor]
Paper = Callable[
    [Scores, Learned], Scores
]  # the raw scores, scaled by 1 / sqrt(16), to what the softmax sees


def masked(scores: Scores, outside: Tensor = OUTSIDE) -> Scores:
    return scores.masked_fill(outside, -math.inf)


def by_head(values: Tensor) -> Tensor:
    return values[:, None, None]


def kerple_log(scores: Scores, learned: Learned) -> Scores:
    amount, rate = (by_head(learned[name].clamp(min=0.01)) for name in ("amount", "rate"))
    return masked(scores - amount * torch.log(1 + rate * DISTANCE))


def kerple_power(scores: Scores, learned: Learned) -> Scores:
    amount, power = by_head(learned["amount"].clamp(min=0.01)), by_head(learned["power"].clamp(0.01, 2.0))
    away = DISTANCE > 0
    return masked(scores - amount * torch.where(away, DISTANCE.where(away, torch.ones(())).pow(power), 0.0))


def sandwich_wave(dim: int) -> Tensor:
    """The sinusoids of positions 0 and n multiplied, less their greatest value."""
    rates = 10_000.0 ** (-2 * torch.arange(1, dim // 2 + 1).double() / dim)
    return torch.cos(torch.arange(N)[:, None] * rates.double()).sum(1) - dim / 2


def sandwich(scores: Scores, learned: Learned) -> Scores:
    positions = torch.arange(N)[:, None] / 10_000.0 ** (2 * torch.arange(1, 9).double() / 16)
    sinusoids = torch.cat([positions.sin(), positions.cos()], 1)
    return masked(scores + by_head(published_slopes(HEADS)) * (sinusoids @ sinusoids.T - 8))


def fox(scores: Scores, learned: Learned) -> Scores:
    """The sum of the log gates of the tokens after the key, up to the query."""
    gates = learned["log_forget"].diff(dim=-1, prepend=torch.zeros(2, HEADS, 1))
    rows = [
        [gates[..., j + 1 : i + 1].sum(-1) if j <= i else gates[..., 0] * 0 for j in range(N)]
        for i in range(N)
    ]
    return masked(scores + torch.stack([torch.stack(row, -1) for row in rows], -2))


def scalable_softmax(scores: Scores, learned: Learned) -> Scores:
    seen = torch.arange(1, N + 1).double()[:, None]
    return masked(by_head(learned["speed"]) * seen.log() * scores)


def llama4(scores: Scores, learned: Learned) -> Scores:
    positions = torch.arange(N).double()
    factor = torch.log(torch.floor((positions + 1.0) / 4) + 1.0) * 0.1 + 1.0
    return masked(scores * factor[:, None])


def t5_decoder(scores: Scores, learned: Learned) -> Scores:
    """Unscaled scores, Transformers' buckets of one direction."""
    relative = torch.arange(N)[None, :] - torch.arange(N)[:, None]
    bias = F.embedding(transformers_bucket(relative, False, 32, 128), learned["table"].T).permute(2, 0, 1)
    return masked(4.0 * scores + bias)


def checkerboard(scores: Scores, learned: Learned) -> Scores:
    """As printed in PyTorch: halve all, and double those at even distances again."""
    halved = torch.where(DISTANCE % 1 == 0, scores * 0.5, scores)
    return torch.where(DISTANCE % 2 == 0, halved * 2.0, halved)


PATH = torch.randint(0, 6, (2, N, N), generator=torch.Generator().manual_seed(1))
EDGE = torch.randint(1, 5, (2, 3, N, N), generator=torch.Generator().manual_seed(2))
EDGE *= torch.arange(1, 4).view(1, 3, 1, 1) <= PATH[:, None]  # no third edge on a way of two


def graphormer_edge(scores: Scores, learned: Learned) -> Scores:
    extra = torch.zeros(2, HEADS, N, N, dtype=torch.float64)
    rows = [[[None] * N for _ in range(N)] for _ in range(2)]
    for b, i, j in product(range(2), range(N), range(N)):
        hops = int(PATH[b, i, j])
        mean = sum(learned["bias"][n, :, EDGE[b, n, i, j]] for n in range(min(hops, 3))) / max(
            min(hops, 3), 1
        )
        rows[b][i][j] = learned["table"][:, hops] + mean
    extra = torch.stack([torch.stack([torch.stack(row, -1) for row in one], -2) for one in rows])
    return scores + extra


SIZES = torch.tensor([[1.0, 2, 1, 5, 3, 1, 1, 9, 1, 2, 2, 1]] * 2)

Case = tuple[Mapping[str, Any], Mapping[str, Tensor], Mapping[str, tuple[int, ...]], Paper]
# Consts, inputs, the shapes of what is learned, and the paper's scores.
PAPERS: dict[str, Case] = {
    "kerple_log": ({}, {}, {"amount": (HEADS,), "rate": (HEADS,)}, kerple_log),
    "kerple_power": ({}, {}, {"amount": (HEADS,), "power": (HEADS,)}, kerple_power),
    "sandwich": ({}, {"wave": sandwich_wave(16), "ratio": published_slopes(HEADS)}, {}, sandwich),
    "fox": ({}, {}, {"log_forget": (2, HEADS, N)}, fox),
    "scalable_softmax": ({}, {}, {"speed": (HEADS,)}, scalable_softmax),
    "llama4_global": ({"floor_scale": 4}, {}, {}, llama4),
    "t5_decoder": ({}, {}, {"table": (HEADS, 32)}, t5_decoder),
    "checkerboard": ({}, {}, {}, checkerboard),
    "graphormer_edge": (
        {},
        {"path": PATH.int(), "edge": EDGE.int()},
        {"table": (HEADS, 6), "bias": (3, HEADS, 5)},
        graphormer_edge,
    ),
    "token_merging": (
        {},
        {"size": SIZES},
        {},
        lambda scores, _: scores + SIZES.double().log()[:, None, None],
    ),
    "grok1": ({}, {}, {}, lambda scores, _: masked(30.0 * torch.tanh(scores / 30.0))),
    "alibi_documents": (
        {},
        {"slopes": published_slopes(HEADS), "doc": DOC.int()},
        {},
        lambda scores, _: masked(
            scores - by_head(published_slopes(HEADS)) * DISTANCE,
            OUTSIDE | (DOC[:, :, None] != DOC[:, None, :])[:, None],
        ),
    ),
}


@pytest.mark.parametrize("name", PAPERS)
def test_a_score_and_its_gradients_are_the_papers(name: str) -> None:
    consts, given, shapes, paper = PAPERS[name]
    tensors = [x.requires_grad_() for x in qkv(q_len=N, k_len=N)]
    learned = learn(**{key: draw(*shape, seed=5 + n) for n, (key, shape) in enumerate(shapes.items())})
    q, k, v = tensors
    expected = torch.softmax(paper(q @ k.mT / 4.0, learned), -1) @ v
    ours = by_reference(name, tensors, learned, consts, **given)
    assert_same(ours, expected, {**learned, "q": q, "k": k, "v": v})


def test_what_is_not_here_only_masks() -> None:
    import attngen
    from attngen.ir.nodes import SCORE

    for name in set(MORE_MASKS) - set(PAPERS):
        assert attngen.load(name).ir.final_score is SCORE, name
