"""A small character GPT in plain PyTorch. Its attention is whatever function it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from members import ALONE, Member
from torch import Tensor, nn
from torch.nn import functional as F

#: (q, k, v) to out: q (B, H, S, D), k and v (B, Hkv, S, D), out (B, H, S, D).
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Size:
    """How large the model and its batches are."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    length: int
    batch: int
    steps: int
    learning_rate: float

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


class Block(nn.Module):
    """Attention with grouped-query heads, then a two-layer perceptron, both pre-norm and residual."""

    def __init__(self, size: Size, attend: Attend) -> None:
        super().__init__()
        self.size = size
        self.attend = attend
        self.norm1 = nn.LayerNorm(size.width)
        self.norm2 = nn.LayerNorm(size.width)
        self.query = nn.Linear(size.width, size.width, bias=False)
        self.key_value = nn.Linear(size.width, 2 * size.kv_heads * size.head_dim, bias=False)
        self.out = nn.Linear(size.width, size.width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(size.width, 4 * size.width), nn.GELU(), nn.Linear(4 * size.width, size.width)
        )

    def forward(self, x: Tensor) -> Tensor:  # [B, S, width]
        batch, length, width = x.shape
        normed = self.norm1(x)
        # The heads are split off as views: the kernel takes any strides.
        q = self.query(normed).view(batch, length, self.size.heads, -1).transpose(1, 2)
        kv = self.key_value(normed).view(batch, length, 2 * self.size.kv_heads, -1).transpose(1, 2)
        k, v = kv.chunk(2, dim=1)
        mixed = self.attend(q, k, v)  # [B, H, S, D]
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class CharGPT(nn.Module):
    """One attention function a layer, in turn: ``attends`` is cycled through the layers."""

    def __init__(self, size: Size, vocabulary: int, attends: Sequence[Attend]) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, size.width)
        self.places = nn.Embedding(size.length, size.width)
        self.blocks = nn.ModuleList(Block(size, attends[i % len(attends)]) for i in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:  # [B, S] to [B, S, vocabulary]
        x = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def train(
    size: Size,
    text: str,
    attends: Sequence[Attend],
    *,
    seed: int,
    device: str,
    member: Member = ALONE,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:
    """The loss (nats a character) of each step. The seed fixes the weights and the order of the batches.

    A ``member`` of several takes its equal part of every batch; losses and gradients are those of the whole.
    """
    alphabet = sorted(set(text))
    number = {character: i for i, character in enumerate(alphabet)}
    data = torch.tensor([number[character] for character in text])
    torch.manual_seed(seed)
    model = CharGPT(size, len(alphabet), attends).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=size.learning_rate, betas=(0.9, 0.95))
    draw = torch.Generator().manual_seed(seed)
    losses = []
    for step in range(size.steps):
        for group in optimizer.param_groups:  # a short warm-up
            group["lr"] = size.learning_rate * min(1.0, (step + 1) / 20)
        starts = torch.randint(len(data) - size.length - 1, (size.batch,), generator=draw)
        mine = starts.tolist()[member.rank :: member.size]
        rows = torch.stack([data[s : s + size.length + 1] for s in mine]).to(device)
        logits = model(rows[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        loss = loss.detach()
        member.average([loss, *(p.grad for p in model.parameters())])
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        on_step(step, losses[-1])
    return losses
