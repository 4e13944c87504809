"""The standard words mean what their sources say: T5's buckets are Transformers', at every distance."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attngen.ir.build import build
from attngen.ir.nodes import Expr, Op, postorder
from attngen.ir.types import Type
from attngen.source import Source
from attngen.syntax.parse import parse

# float32, as the words are computed in a kernel.
TABLE: dict[Op, Callable[..., Tensor]] = {
    Op.ADD: torch.add, Op.SUB: torch.sub, Op.MUL: torch.mul, Op.NEG: torch.neg, Op.ABS: torch.abs,
    Op.MIN: torch.minimum, Op.MAX: torch.maximum, Op.DIV: torch.div, Op.LOG: torch.log, Op.EXP: torch.exp,
    Op.TANH: torch.tanh, Op.SIGMOID: torch.sigmoid, Op.FLOORDIV: torch.floor_divide, Op.MOD: torch.remainder,
    Op.LT: torch.lt, Op.LE: torch.le, Op.EQ: torch.eq, Op.AND: torch.logical_and, Op.OR: torch.logical_or,
    Op.WHERE: torch.where, Op.TO_FLOAT: Tensor.float, Op.TO_INT: Tensor.long,
}  # fmt: skip
DTYPES = {Type.BOOL: torch.bool, Type.INT: torch.int64, Type.FLOAT: torch.float32}


def evaluate(root: Expr, **words: Tensor) -> Tensor:
    values: dict[Expr, Tensor] = {}
    for node in postorder(root):
        if node.op is Op.CONST:
            values[node] = torch.tensor(node.value, dtype=DTYPES[node.type])
        elif node.op in (Op.WORD, Op.PARAM):
            values[node] = words[str(node.value)]
        else:
            values[node] = TABLE[node.op](*(values[a] for a in node.args))
    return values[root]


def expr(text: str, kind: str = "float") -> Expr:
    clause = "mask" if kind == "bool" else "score"
    source = Source(f"variant x\nparam s: float\nparam i: int\n{clause} = {text}")
    ir = build(parse(source), source)
    return ir.mask if kind == "bool" else ir.score[0]


def transformers_bucket(relative_position: Tensor, bidirectional: bool, buckets: int, reach: int) -> Tensor:
    """T5Attention._relative_position_bucket of Transformers, transcribed."""
    relative_buckets = torch.zeros_like(relative_position)
    if bidirectional:
        buckets //= 2
        relative_buckets = relative_buckets + (relative_position > 0).to(torch.long) * buckets
        relative_position = torch.abs(relative_position)
    else:
        relative_position = -torch.min(relative_position, torch.zeros_like(relative_position))
    exact = buckets // 2
    is_small = relative_position < exact
    if_large = exact + (
        torch.log(relative_position.float() / exact) / math.log(reach / exact) * (buckets - exact)
    ).to(torch.long)
    if_large = torch.min(if_large, torch.full_like(if_large, buckets - 1))
    return relative_buckets + torch.where(is_small, relative_position, if_large)


@pytest.mark.parametrize("reach", [64, 128, 200, 256, 512, 1024])
@pytest.mark.parametrize("buckets", [8, 20, 32, 40, 64, 128])
@pytest.mark.parametrize("word", ["t5_bucket", "t5_causal_bucket"])
def test_t5_buckets_are_transformers_at_every_distance(word: str, buckets: int, reach: int) -> None:
    if word == "t5_causal_bucket" and reach <= buckets // 2:
        pytest.skip("Transformers divides by log(1) there")
    positions = torch.arange(-4096, 4097)
    found = evaluate(expr(f"{word}(i, {buckets}, {reach})").args[0], i=positions)
    expected = transformers_bucket(positions, word == "t5_bucket", buckets, reach)
    assert torch.equal(found, expected), positions[found != expected]


def test_wavlms_buckets_are_transformers_too() -> None:
    """Of 320 up to 800: the distance 713 lies 5e-7 under a bucket's edge, as a part of the range."""
    positions = torch.arange(-2000, 2001)
    found = evaluate(expr("t5_bucket(i, 320, 800)").args[0], i=positions)
    assert torch.equal(found, transformers_bucket(positions, True, 320, 800))


@pytest.mark.parametrize("ulps", [-2, -1, 1, 2])
def test_t5_buckets_stand_on_their_edges_however_the_logarithm_rounds(ulps: int) -> None:
    edges = torch.tensor([16, 32, 64, 128, -16, -32, -64])
    exact = evaluate(expr("t5_bucket(i, 32, 128)").args[0], i=edges)
    kept = TABLE[Op.LOG]
    try:
        TABLE[Op.LOG] = lambda x: torch.log(x) * (1 + ulps * 2.0**-24)
        assert torch.equal(evaluate(expr("t5_bucket(i, 32, 128)").args[0], i=edges), exact)
    finally:
        TABLE[Op.LOG] = kept


def python_mask(rule: Callable[[int, int], bool]) -> Tensor:
    return torch.tensor([[rule(q, k) for k in range(24)] for q in range(24)])


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("full", lambda q, k: True),
        ("causal", lambda q, k: k <= q),
        ("sliding_window(4)", lambda q, k: q - 4 < k <= q),
        ("band(3, 2)", lambda q, k: q - 3 <= k <= q + 2),
        ("chunked(5)", lambda q, k: k <= q and q // 5 == k // 5),
        ("dilated(3)", lambda q, k: k <= q and (q - k) % 3 == 0),
        ("prefix_causal(6)", lambda q, k: k <= q or k < 6),
    ],
)
def test_masks_keep_what_they_say(text: str, rule: Callable[[int, int], bool]) -> None:
    q, k = torch.arange(24)[:, None], torch.arange(24)[None, :]
    found = evaluate(expr(text, "bool"), q=q, k=k, pos=q).expand(24, 24)
    assert torch.equal(found, python_mask(rule))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("square(s)", lambda x: x * x),
        ("sign(s)", torch.sign),
        ("relu(s)", torch.relu),
        ("silu(s)", torch.nn.functional.silu),
        ("softplus(s)", lambda x: torch.nn.functional.softplus(x.double()).float()),
        ("softcap(s, 3)", lambda x: 3 * torch.tanh(x / 3)),
    ],
)
def test_functions_are_torchs(text: str, expected: Callable[[Tensor], Any]) -> None:
    x = torch.linspace(-30, 30, 121)
    assert torch.allclose(evaluate(expr(text), s=x).float(), expected(x), rtol=1e-5, atol=1e-6)


def test_alibi_slopes_are_the_papers() -> None:
    i = torch.arange(8)
    slopes = evaluate(expr("alibi_slope(i, 8)"), i=i)
    assert torch.allclose(slopes, torch.tensor([2.0 ** -(j + 1) for j in range(8)]), rtol=1e-5)
