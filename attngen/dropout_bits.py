"""Which weights dropout keeps: Philox4x32-7 in int64 torch arithmetic, the same bits as every kernel draws.

The counter is (q without bit 3, k without bit 3, b * heads + h, 0), the key the seed's low and high 32
bits; one call serves four scores, and word ``2 * bit3(q) + bit3(k)`` is this score's.
Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_BIT = 8  # bit 3 of a coordinate

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """The high and low 32 bits of ``a * b`` (both below 2**32), in halves, as int64 cannot hold it all."""
    low, high = a * (b & 0xFFFF), a * (b >> 16)
    return (high + (low >> 16)) >> 16, (((high & 0xFFFF) << 16) + low) & _MASK


def philox(counter: Words, key: tuple[int, int], rounds: int = 7) -> Words:
    """Philox4x32 of each counter (four broadcastable int64 tensors of values in [0, 2**32))."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def threshold(p: float) -> int:
    """The uint32 that a word must reach for its weight to be kept; ``p`` in [0, 1] is the chance to drop."""
    return min(round(p * 2**32), 2**32 - 1)


def words(seed: int, q: Tensor, k: Tensor, batch: int, heads: int) -> Tensor:
    """The random word of each score: int64 (batch, heads, len(q), len(k)) of values in [0, 2**32).

    ``q`` and ``k`` are 1-D int64 tensors of query rows and key indices; ``seed`` is 64 bits, signed or not.
    """
    rows, row_of = torch.unique(q & ~_BIT, return_inverse=True)
    columns, column_of = torch.unique(k & ~_BIT, return_inverse=True)
    planes = torch.arange(batch * heads, device=q.device)
    shape = (batch * heads, len(rows), len(columns))
    c0 = rows.view(1, -1, 1).expand(shape)
    c1 = columns.view(1, 1, -1).expand(shape)
    c2 = planes.view(-1, 1, 1).expand(shape)
    drawn = torch.stack(philox((c0, c1, c2, torch.zeros_like(c0)), (seed & _MASK, (seed >> 32) & _MASK)), -1)
    which = 2 * (q & _BIT).ne(0).long().view(-1, 1) + (k & _BIT).ne(0).long().view(1, -1)
    picked = drawn[:, row_of.view(-1, 1), column_of.view(1, -1), which]
    return picked.view(batch, heads, len(q), len(k))


def kept(p: float, seed: int, q: Tensor, k: Tensor, batch: int, heads: int) -> Tensor:
    """True where dropout keeps the weight: bool (batch, heads, len(q), len(k))."""
    return words(seed, q, k, batch, heads) >= threshold(p)
