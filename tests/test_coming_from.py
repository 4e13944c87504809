"""docs/coming-from.md keeps its word: each block runs, each pair of sides agrees, each spec is its formula.

The page's first Python block is what the others begin with. A block leaves ``ours`` and ``theirs``; each
``attn`` block is a file of its variant's name. FlashAttention's package is not needed: what the page says of
it is written below as its documentation states it, dense, by hand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import attngen

PAGE = (Path(__file__).parent.parent / "docs" / "coming-from.md").read_text("utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SPECS = {text.split()[1]: text for kind, text in BLOCKS if kind == "attn"}
PREAMBLE, *SNIPPETS = [text for kind, text in BLOCKS if kind == "python"]

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the page's specs in it."""
    for name, text in SPECS.items():
        (tmp_path / f"{name}.attn").write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    torch._dynamo.reset()  # each snippet has functions of its own: no limit on recompilations is near
    torch.manual_seed(0)
    return tmp_path


def all_close(ours: Any, theirs: Any) -> None:
    """Tensors, or tuples of them; infinities where the other has them."""
    if isinstance(ours, Tensor):
        ours, theirs = (ours,), (theirs,)
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.detach(), other.detach().to(mine.dtype), rtol=2e-5, atol=2e-5)


def test_the_page_has_only_blocks_that_are_tested() -> None:
    assert {kind for kind, _ in BLOCKS} == {"attn", "python"}
    assert PAGE.count("```") == 2 * len(BLOCKS)
    assert len(SNIPPETS) >= 15
    assert len(SPECS) == sum(kind == "attn" for kind, _ in BLOCKS), "two specs of one name"
    assert set(SPECS) == set(FORMULAS)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_both_sides_of_a_snippet_agree(number: int, folder: Path) -> None:
    names: dict[str, Any] = {}
    exec(compile(PREAMBLE, "preamble", "exec"), names)
    exec(compile(SNIPPETS[number], f"snippet {number}", "exec"), names)
    all_close(names["ours"], names["theirs"])


# ---- The formulas -----------------------------------------------------------------------------------------


@dataclass
class Call:
    """One call in float64: scores (B,H,Sq,Sk) already scaled by 1 / sqrt(head_dim); rows and keys from 0."""

    score: Tensor
    q: Tensor  # (Sq, 1)
    k: Tensor  # (1, Sk)
    given: dict[str, Any]

    @property
    def place(self) -> Tensor:
        """FlashAttention's i + seqlen_k - seqlen_q."""
        return self.q + self.k.shape[1] - self.q.shape[0]

    def per_head(self, name: str) -> Tensor:
        tensor: Tensor = self.given[name]
        return tensor[:, None, None]


Scores = tuple[Tensor, Tensor]  # the logits, and which of them count
Formula = Callable[[Call], Scores]


def cap(x: Tensor, c: float) -> Tensor:
    return c * torch.tanh(x / c)


def both_ways(c: Call) -> Scores:
    return cap(c.score, c.given["cap"]) - c.per_head("slopes") * (c.q - c.k).abs(), c.q >= c.k


def fa_bias(c: Call) -> Tensor:
    """As documented: -alibi_slope * |i + seqlen_k - seqlen_q - j|."""
    return -c.per_head("slopes") * (c.place - c.k).abs()


def relative(c: Call) -> Scores:
    table: Tensor = c.given["table"]
    return c.score + table[:, (c.place - c.k).clamp(0, table.shape[1] - 1)], c.k <= c.place


def varlen(c: Call) -> Scores:
    """Each document's own square, bottom right, by a loop over documents as cu_seqlens would have it."""
    keep = torch.zeros(c.score.shape[-2:], dtype=torch.bool)
    for rows, columns in DOCUMENTS:
        mine = torch.ones(len(rows), len(columns), dtype=torch.bool).tril(len(columns) - len(rows))
        keep[rows.start : rows.stop, columns.start : columns.stop] = mine
    return c.score, keep


def filled_cache(c: Call) -> Scores:
    """Of each row of the batch the first used[b] keys, bottom right among them."""
    keep = torch.zeros(len(c.given["used"]), 1, *c.score.shape[-2:], dtype=torch.bool)
    for b, n in enumerate(c.given["used"].tolist()):
        keep[b, 0, :, :n] = torch.ones(c.q.shape[0], n, dtype=torch.bool).tril(n - c.q.shape[0])
    return c.score, keep


def every(c: Call) -> Tensor:
    return torch.ones(c.score.shape[-2:], dtype=torch.bool)


FORMULAS: dict[str, Formula] = {
    "both_ways": both_ways,
    "top_left": lambda c: (c.score, c.k <= c.q),
    "cap_then_bias": lambda c: (cap(c.score, c.given["cap"]) + fa_bias(c), c.k <= c.place),
    "bias_then_cap": lambda c: (cap(c.score + fa_bias(c), c.given["cap"]), c.k <= c.place),
    "scaled": lambda c: (c.score * math.sqrt(HEAD_DIM) * c.given["factor"], every(c)),
    "two_sided": lambda c: (c.score, (c.place - 7 <= c.k) & (c.k <= c.place + 3)),
    "relative": relative,
    "with_sink": lambda c: (c.score, c.k <= c.place),
    "varlen": varlen,
    "filled_cache": filled_cache,
}

HEADS, HEAD_DIM = 2, 16
DOCUMENTS = [(range(5), range(9)), (range(5, 6), range(9, 24)), (range(6, 24), range(24, 40))]


def countdown(which: int) -> Tensor:
    """How many of its document's queries (0) or keys (1) follow each."""
    return torch.cat([torch.arange(len(d[which])).flip(0) for d in DOCUMENTS]).int()


def owner(which: int) -> Tensor:
    return torch.cat([torch.full((len(d[which]),), n) for n, d in enumerate(DOCUMENTS)]).int()


def arguments(name: str) -> dict[str, Any]:
    slopes = torch.tensor([0.5, 0.0625])
    return {
        "both_ways": {"cap": 2.0, "slopes": slopes},
        "cap_then_bias": {"cap": 2.0, "slopes": slopes},
        "bias_then_cap": {"cap": 2.0, "slopes": slopes},
        "scaled": {"factor": 0.3},
        "relative": {"table": torch.randn(HEADS, 9).requires_grad_()},
        "with_sink": {"sinks": torch.randn(HEADS).requires_grad_()},
        "varlen": {"q_doc": owner(0), "k_doc": owner(1), "q_left": countdown(0), "k_left": countdown(1)},
        "filled_cache": {"used": torch.tensor([40, 13], dtype=torch.int32)},
    }.get(name, {})


def dense(formula: Formula, q: Tensor, k: Tensor, v: Tensor, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """(out, lse) of all scores at once; rows that keep nothing give 0 and -inf."""
    score = q @ k.mT / math.sqrt(HEAD_DIM)
    call = Call(score, torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])[None, :], given)
    logits, keep = formula(call)
    some = keep.any(-1)
    logits = logits.masked_fill(~keep & some[..., None], -math.inf)
    if "sinks" in given:
        assert some.all()
        sink = call.per_head("sinks").expand(*score.shape[:3], 1)
        logits = torch.cat([logits, sink], -1)
    out = torch.softmax(logits, -1)[..., : k.shape[2]] @ v
    return torch.where(some[..., None], out, 0.0), torch.where(some, torch.logsumexp(logits, -1), -math.inf)


@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_a_spec_of_the_page_is_its_formula_with_its_gradients(name: str, folder: Path) -> None:
    q = torch.randn(2, HEADS, 24, HEAD_DIM, requires_grad=True)
    k, v = (torch.randn(2, HEADS, 40, HEAD_DIM, requires_grad=True) for _ in range(2))
    given = arguments(name)
    wide = {n: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for n, x in given.items()}
    leaves = [q, k, v, *(x for x in given.values() if isinstance(x, Tensor) and x.requires_grad)]
    out, lse = attngen.load(f"{name}.attn")(q, k, v, **given, return_lse=True)
    exact = dense(FORMULAS[name], q.double(), k.double(), v.double(), wide)
    all_close((out, lse), exact)

    d_out, d_lse = torch.randn_like(out), torch.randn_like(lse)
    results = []
    for x, y in ((out, lse), exact):
        finite = torch.where(lse.isfinite(), y, 0.0)
        results.append(torch.autograd.grad((x * d_out).sum() + (finite * d_lse).sum(), leaves))
    for mine, theirs in zip(*results, strict=True):
        assert mine.abs().sum() > 0
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


# ---- What the page says in words --------------------------------------------------------------------------


def kept(spec: str, q_len: int, k_len: int) -> list[list[int]]:
    """Which keys a variant keeps: uniform scores, one key's value at a time."""
    q, k = torch.zeros(1, 1, q_len, 16), torch.zeros(1, 1, k_len, 16)
    v = torch.eye(k_len, max(k_len, 16))[None, None]
    out = attngen.load(spec)(q, k, v)
    return (out[0, 0, :, :k_len] > 0).int().tolist()


def test_causal_is_flash_attentions_picture_of_its_mask_since_2_1() -> None:
    """The pictures of its documentation, 2 queries of 5 keys and 5 queries of 2."""
    assert kept("causal", 2, 5) == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert kept("causal", 5, 2) == [[0, 0], [0, 0], [0, 0], [1, 0], [1, 1]]


def test_top_left_is_flash_attentions_picture_of_its_mask_before_2_1(folder: Path) -> None:
    assert kept("top_left.attn", 2, 5) == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]
    assert kept("top_left.attn", 5, 2) == [[1, 0], [1, 1], [1, 1], [1, 1], [1, 1]]


def tensors() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 2, 24, 16), torch.randn(2, 2, 40, 16), torch.randn(2, 2, 40, 16)


def test_sdpas_float_mask_is_a_dense_bias() -> None:
    q, k, v = tensors()
    bias = torch.randn(1, 2, 24, 40)
    ours = attngen.load("dense_bias")(q, k, v, bias=bias)
    all_close(ours, F.scaled_dot_product_attention(q, k, v, attn_mask=bias))


def test_sdpas_bool_mask_is_an_input_and_true_keeps() -> None:
    q, k, v = tensors()
    keep = torch.rand(2, 1, 24, 40) < 0.5
    keep[0, 0, 3] = False
    spec = "variant kept\ninput keep: bool[batch, heads, q_len, k_len]\nmask = keep[b, h, q, k]"
    ours = attngen.compile(spec)(q, k, v, keep=keep)
    all_close(ours, F.scaled_dot_product_attention(q, k, v, attn_mask=keep))
    assert (ours[0, :, 3] == 0).all()


def test_slopes_may_be_given_for_each_row_of_the_batch() -> None:
    q, k, v = tensors()
    slopes = torch.rand(2, 2)
    spec = "variant batched\ninput slopes: float32[batch, heads]\nscore = score - slopes[b, h] * abs(dist)"
    ours = attngen.compile(spec)(q, k, v, slopes=slopes)
    alone = attngen.compile(
        "variant alone\ninput slopes: float32[heads]\nscore = score - slopes[h] * abs(dist)"
    )
    each = [alone(q[n, None], k[n, None], v[n, None], slopes=slopes[n]) for n in range(2)]
    all_close(ours, torch.cat(each))


def test_a_softcap_brings_back_what_a_score_line_had_masked() -> None:
    q, k, v = tensors()
    lines = "variant hidden\nscore = score if k < 30 else -inf\n"
    hidden = attngen.compile(lines)(q, k, v)
    all_close(hidden, F.scaled_dot_product_attention(q, k[:, :, :30], v[:, :, :30]))
    capped = attngen.compile(lines + "score = softcap(score, 2.0)")(q, k, v)
    logits = 2.0 * torch.tanh(torch.where(torch.arange(40) < 30, q @ k.mT / math.sqrt(16), -math.inf) / 2.0)
    all_close(capped, torch.softmax(logits, -1) @ v)


@pytest.mark.filterwarnings("ignore:invalid value encountered in log:RuntimeWarning")
def test_the_mask_comes_after_every_score_line_wherever_it_stands() -> None:
    q, k, v = tensors()
    lines = ["score = score * 2", "mask = k < 3", "score = log(3.5 - k) * score"]  # NaN at masked keys alone
    first = attngen.compile("\n".join(["variant first", lines[1], lines[0], lines[2]]))(q, k, v)
    last = attngen.compile("\n".join(["variant last", lines[0], lines[2], lines[1]]))(q, k, v)
    assert first.isfinite().all()
    assert torch.equal(first, last)


def test_keys_of_batch_one_expand_as_flex_broadcasts_them(folder: Path) -> None:
    q, k, v = tensors()
    k, v = k[:1], v[:1]
    ours = attngen.load("full")(q, k.expand(2, -1, -1, -1), v.expand(2, -1, -1, -1))
    block_mask = create_block_mask(lambda b, h, q, k: q >= 0, 2, None, 24, 40, device="cpu")
    all_close(ours, flex_attention(q, k, v, block_mask=block_mask))


def test_of_six_heads_and_two_the_first_three_read_the_first() -> None:
    q, k, v = torch.randn(1, 6, 5, 16), torch.randn(1, 2, 5, 16), torch.randn(1, 2, 5, 16)
    each = [
        F.scaled_dot_product_attention(q[:, h, None], k[:, h // 3, None], v[:, h // 3, None])
        for h in range(6)
    ]
    all_close(attngen.load("full")(q, k, v), torch.cat(each, 1))


def test_dropout_is_of_the_seed_alone_and_torchs_seed_reproduces_it() -> None:
    q, k, v = (x[:1] for x in tensors())
    attn = attngen.load("dropped")
    out, lse = attn(q, k, v, p=0.3, seed=11, return_lse=True)
    turned = attn(*(x.transpose(1, 2) for x in (q, k, v)), p=0.3, seed=11, layout="bshd")
    assert torch.equal(turned.transpose(1, 2), out)
    assert torch.equal(attn(q, k, v, p=0.3, seed=torch.tensor([11])), out)
    assert torch.equal(attngen.load("causal")(q, k, v, return_lse=True)[1], lse)
    drawn = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        drawn.append(attn(q, k, v, p=0.3))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
