"""One training run in several processes: each has its part of every batch, and all step by the mean gradient.

Triton's interpreter runs the programs of a kernel one after another: two processes keep two cores busy.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from torch import Tensor


@dataclass(frozen=True)
class Member:
    """One of ``size`` processes. The first, of rank 0, has a link to each other; they have one to it."""

    rank: int = 0
    size: int = 1
    links: Sequence[Connection] = ()

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each CPU tensor by its mean over all members, in place: the same bits in each of them."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        if self.rank == 0:
            for link in self.links:
                flat += _receive(link)
            flat /= self.size
            for link in self.links:
                link.send(flat.numpy())
        else:
            self.links[0].send(flat.numpy())
            flat = _receive(self.links[0])
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


ALONE = Member()


@contextmanager
def together(size: int, work: Callable[[Member], object]) -> Iterator[Member]:
    """Be the first of ``size`` members. Each of the others runs ``work(member)`` in a process of its own."""
    fresh = multiprocessing.get_context("spawn")
    pairs = [fresh.Pipe() for _ in range(1, size)]
    others = [
        fresh.Process(target=work, args=(Member(rank, size, [theirs]),), daemon=True)
        for rank, (_, theirs) in enumerate(pairs, start=1)
    ]
    for other, (_, theirs) in zip(others, pairs, strict=True):
        other.start()
        theirs.close()  # so that its end is noticed here
    try:
        yield Member(0, size, [ours for ours, _ in pairs])
    finally:
        for other in others:
            other.terminate()
            other.join()


def _receive(link: Connection) -> Tensor:
    try:
        return torch.from_numpy(link.recv())
    except (EOFError, ConnectionError):
        raise RuntimeError("another process of this training run has ended early; see its message") from None
