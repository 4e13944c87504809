"""What is measured: a row is a variant with its consts and inputs, a shape the sizes that it runs at.

``ROWS`` are the rows of docs/performance.md; ``row_of`` makes one of any spec, with plausible inputs.

Work is counted over the scores that the mask keeps, and no others: 4·D floating-point operations a score in
the forward (two products), 2.5 times that in the backward (five).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from attngen import eager, reference
from attngen.ir.nodes import AttentionIR
from attngen.ir.types import Scalar

BACKWARD_WORK = 2.5  # five matrix products for the forward's two

_BLOCK_SCORES = 2**24  # counted at a time


@dataclass(frozen=True)
class Shape:
    """The sizes of a call: q (batch, heads, length, head_dim), k and v with ``heads // group`` heads."""

    name: str
    batch: int
    heads: int
    length: int
    head_dim: int
    group: int = 1

    @property
    def q(self) -> tuple[int, int, int, int]:
        return (self.batch, self.heads, self.length, self.head_dim)

    @property
    def k(self) -> tuple[int, int, int, int]:
        return (self.batch, self.heads // self.group, self.length, self.head_dim)

    @property
    def tokens(self) -> int:
        return self.batch * self.length

    def with_length(self, length: int, *, keep_tokens: bool = True) -> Shape:
        """As many tokens in sequences of another length, at least one of them; or one sequence alone."""
        batch = max(1, self.tokens // length) if keep_tokens else 1
        return replace(self, name=f"{self.name} at {length}", batch=batch, length=length)

    def __str__(self) -> str:
        return f"B{self.batch} H{self.heads} S{self.length} D{self.head_dim}"


def parse_shape(text: str) -> Shape:
    """A name of SHAPES, or sizes as ``B2,H16,S8192,D128`` (``G4``: four query heads a key head).

    ValueError names what was expected.
    """
    if text in SHAPES:
        return SHAPES[text]
    found = {}
    for part in text.replace(" ", "").split(","):
        letter, number = part[:1].upper(), part[1:]
        if (
            letter not in "BHSDG"
            or not letter
            or not number.isdecimal()
            or int(number) < 1
            or letter in found
        ):
            break
        found[letter] = int(number)
    else:
        if found.keys() >= set("BHSD"):
            group = found.get("G", 1)
            if found["H"] % group == 0:
                return Shape(text, found["B"], found["H"], found["S"], found["D"], group)
    known = ", ".join(SHAPES)
    raise ValueError(f"{text!r} is no shape: expected {known}, or sizes as B2,H16,S8192,D128 (G4 divides H)")


SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("d128", 2, 16, 8192, 128),
        Shape("d64", 4, 32, 4096, 64),
        Shape("d256", 2, 8, 8192, 256),
    )
}

Inputs = Callable[[Shape, torch.device], dict[str, Tensor]]


def no_inputs(shape: Shape, device: torch.device) -> dict[str, Tensor]:
    return {}


def alibi_slopes(shape: Shape, device: torch.device) -> dict[str, Tensor]:
    """The paper's slopes: 2 ** (-8 (h + 1) / heads)."""
    head = torch.arange(1, shape.heads + 1, dtype=torch.float32, device=device)
    return {"slopes": torch.exp2(-8.0 * head / shape.heads)}


def prefix_1024(shape: Shape, device: torch.device) -> dict[str, Tensor]:
    prefix = min(1024, shape.length // 2)
    return {"prefix": torch.full((shape.batch,), prefix, dtype=torch.int32, device=device)}


def eight_documents(shape: Shape, device: torch.device) -> dict[str, Tensor]:
    """Documents of unequal lengths packed into each sequence, other ones for each of the batch."""
    generator = torch.Generator().manual_seed(8)
    starts = torch.stack(
        [torch.randperm(shape.length - 1, generator=generator)[:7] + 1 for _ in range(shape.batch)]
    )
    place = torch.arange(shape.length)
    return {"doc": (place[None, :, None] >= starts[:, None, :]).sum(-1).to(device, torch.int32)}


def distance_table(shape: Shape, device: torch.device) -> dict[str, Tensor]:
    """A learned table of 257 relative positions a head."""
    generator = torch.Generator().manual_seed(257)
    return {"table": (0.1 * torch.randn(shape.heads, 257, generator=generator)).to(device)}


def bias_of_all(shape: Shape, device: torch.device) -> dict[str, Tensor]:
    """A bias for every query and key of each head, one for the whole batch."""
    generator = torch.Generator(device).manual_seed(77)
    sizes = (1, shape.heads, shape.length, shape.length)
    return {"bias": 0.1 * torch.randn(sizes, generator=generator, device=device)}


@dataclass(frozen=True)
class Row:
    """A variant as it is measured. ``spec`` is a zoo name or a path; ``group`` query heads share a key head.

    ``frozen``: learned inputs are given, but nobody asks for their gradient.
    """

    name: str
    title: str
    spec: str
    consts: Mapping[str, Scalar] = field(default_factory=dict)
    params: Mapping[str, Scalar] = field(default_factory=dict)
    inputs: Inputs = no_inputs
    group: int = 1
    dropout: float = 0.0
    frozen: bool = False

    def at(self, shape: Shape) -> Shape:
        """The shape with this row's key heads, or its own where the row leaves them open."""
        return replace(shape, group=self.group) if self.group > 1 else shape


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row("full", "full", "full"),
        Row("causal", "causal", "causal"),
        Row("gqa", "causal, 4 query heads a key head", "causal", group=4),
        Row("alibi", "ALiBi, causal", "alibi", inputs=alibi_slopes),
        Row("softcap", "softcap 50, causal", "softcap", params={"cap": 50.0}),
        Row("window", "window 1024", "sliding_window", consts={"window": 1024}),
        Row("gemma2", "Gemma-2", "gemma2_local", consts={"window": 1024}, params={"cap": 50.0}, group=4),
        Row("prefix", "prefix LM 1024", "prefix_lm", inputs=prefix_1024),
        Row("documents", "8 documents", "packed_documents", inputs=eight_documents),
        Row("streaming", "streaming 4 + 1024", "streaming_llm", consts={"window": 1024, "keep": 4}),
        Row("chunked", "chunks of 2048", "chunked", consts={"chunk": 2048}),
        Row("neighbours", "13x13 of 64x128", "neighbourhood_2d", consts={"width": 128, "radius": 6}),
        Row("dropout", "dropout 0.1, causal", "dropped", params={"p": 0.1}, dropout=0.1),
        Row("table", "learned table [H,257]", "relative_table", inputs=distance_table),
        Row("table_frozen", "the table, not learned", "relative_table", inputs=distance_table, frozen=True),
        Row("bias", "dense bias [1,H,S,S]", "dense_bias", inputs=bias_of_all),
        Row("bias_frozen", "dense bias, no gradient", "dense_bias", inputs=bias_of_all, frozen=True),
    )
}


def kept_scores(
    ir: AttentionIR,
    shape: Shape,
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Scalar],
    device: torch.device,
) -> int:
    """How many of the batch·heads·length² scores the spec's mask keeps, counted one by one."""
    q, k = (torch.empty(1, device=device).expand(sizes) for sizes in (shape.q, shape.k))
    env = reference.bind(ir, q, k, k, inputs, params)
    rows = max(1, _BLOCK_SCORES // max(1, shape.length))
    total = 0
    for first in range(0, shape.length, rows):
        grid = replace(env.grid, first_row=first, last_row=min(first + rows, shape.length))
        mask = eager.evaluate(ir.mask, replace(env, grid=grid), torch.float32)
        area = grid.batch * grid.heads * (grid.last_row - grid.first_row) * grid.k_len
        total += int(mask.sum()) * (area // mask.numel())  # what the mask does not depend on repeats
    return total


def forward_work(scores: int, head_dim: int) -> int:
    """Floating-point operations of a forward over this many kept scores."""
    return 4 * head_dim * scores
