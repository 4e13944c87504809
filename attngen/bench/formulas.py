"""The rows' maths as FlexAttention takes it, written by hand: nothing here comes from a spec.

``score(score, b, h, q, k)`` and ``mask(b, h, q, k)`` work on index tensors that broadcast, so that standard
attention evaluates the same functions on the whole square of scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Score = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
Mask = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Sink = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Formula:
    """A row's functions, made from its inputs; None where there is nothing to say.

    ``sink(b, h, q)`` is one more logit of each row.
    """

    score: Callable[[Mapping[str, Tensor]], Score] | None = None
    mask: Callable[[Mapping[str, Tensor]], Mask] | None = None
    mask_reads_batch: bool = False
    mask_reads_heads: bool = False
    sink: Callable[[Mapping[str, Tensor]], Sink] | None = None


def _causal(inputs: Mapping[str, Tensor]) -> Mask:
    def causal(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return q >= k

    return causal


def _window_1024(inputs: Mapping[str, Tensor]) -> Mask:
    def window(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (q - k < 1024)

    return window


def _prefix(inputs: Mapping[str, Tensor]) -> Mask:
    prefix = inputs["prefix"]

    def prefix_lm(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) | (k < prefix[b])

    return prefix_lm


def _documents(inputs: Mapping[str, Tensor]) -> Mask:
    doc = inputs["doc"]

    def documents(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (doc[b, q] == doc[b, k])

    return documents


def _streaming(inputs: Mapping[str, Tensor]) -> Mask:
    def streaming(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & ((q - k < 1024) | (k < 4))

    return streaming


def _chunks_of_2048(inputs: Mapping[str, Tensor]) -> Mask:
    def chunked(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (q // 2048 == k // 2048)

    return chunked


def _neighbours(inputs: Mapping[str, Tensor]) -> Mask:
    def neighbours(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return ((q % 128 - k % 128).abs() <= 6) & ((q // 128 - k // 128).abs() <= 6)

    return neighbours


def _alibi(inputs: Mapping[str, Tensor]) -> Score:
    slopes = inputs["slopes"]

    def alibi(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return score + slopes[h] * (k - q)  # below the diagonal: -slope * |q - k|

    return alibi


def _softcap_50(inputs: Mapping[str, Tensor]) -> Score:
    def softcap(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return 50.0 * torch.tanh(score / 50.0)

    return softcap


def _distance_table(inputs: Mapping[str, Tensor]) -> Score:
    table = inputs["table"]

    def biased(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return score + table[h, torch.clamp(q - k, -128, 128) + 128]

    return biased


def _dense_bias(inputs: Mapping[str, Tensor]) -> Score:
    bias = inputs["bias"]

    def biased(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return score + bias[0, h, q, k]

    return biased


FORMULAS: dict[str, Formula] = {
    "full": Formula(),
    "causal": Formula(mask=_causal),
    "alibi": Formula(score=_alibi, mask=_causal),
    "softcap": Formula(score=_softcap_50, mask=_causal),
    "window": Formula(mask=_window_1024),
    "gemma2": Formula(score=_softcap_50, mask=_window_1024),
    "prefix": Formula(mask=_prefix, mask_reads_batch=True),
    "documents": Formula(mask=_documents, mask_reads_batch=True),
    "streaming": Formula(mask=_streaming),
    "chunked": Formula(mask=_chunks_of_2048),
    "neighbours": Formula(mask=_neighbours),
    "dropout": Formula(mask=_causal),
    "table": Formula(score=_distance_table),
    "table_frozen": Formula(score=_distance_table),
    "bias": Formula(score=_dense_bias),
    "bias_frozen": Formula(score=_dense_bias),
}
