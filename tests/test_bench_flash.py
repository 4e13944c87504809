"""FlashAttention's packages as peers: what each is called with, by stand-ins that compute what they would."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from attngen.bench.peers import PEERS, make_case
from attngen.bench.rows import ROWS, Row, Shape

SHAPE = Shape("small", 2, 4, 40, 16)
SMALL = {
    **{name: ROWS[name] for name in ("full", "causal", "gqa", "softcap", "alibi")},
    "window": replace(ROWS["window"], consts={"window": 7}),
    "gemma2": replace(ROWS["gemma2"], consts={"window": 7}, params={"cap": 2.0}),
}


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    softmax_scale: float,
    causal: bool,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
) -> Tensor:
    """What flash_attn_func documents, [batch, length, heads, dim]."""
    q, k, v = (x.transpose(1, 2).float() for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    score = q @ k.mT * softmax_scale
    if softcap:
        score = softcap * torch.tanh(score / softcap)
    dist = torch.arange(q.shape[2])[:, None] - torch.arange(k.shape[2])
    if alibi_slopes is not None:
        score = score - alibi_slopes[:, None, None] * dist.abs()
    left, right = window_size if window_size != (-1, -1) else (math.inf, math.inf)
    hidden = (dist > left) | (dist < (0 if causal else -right))
    return (score.masked_fill(hidden, -math.inf).softmax(-1) @ v).transpose(1, 2)


def install(monkeypatch: pytest.MonkeyPatch, module: str, found: Any) -> None:
    for name in (module.split(".")[0], module):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[module], "flash_attn_func", found, raising=False)


@pytest.mark.parametrize(
    ("peer", "module"),
    [("flash2", "flash_attn"), ("flash3", "flash_attn_interface"), ("flash4", "flash_attn.cute")],
)
@pytest.mark.parametrize("name", SMALL)
def test_a_package_is_asked_for_what_the_spec_says(
    peer: str, module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_lse(*args: Tensor, **given: Any) -> tuple[Tensor, None]:
        return attention(*args, **given), None

    install(monkeypatch, module, attention if peer == "flash2" else with_lse)
    row = SMALL[name]
    if reason := PEERS[peer].refuses(row):
        assert (name, reason) == ("alibi", "takes no alibi") and peer != "flash2"
        return
    case = make_case(row, SHAPE, torch.float32, torch.device("cpu"))
    want, got = (PEERS[p].prepare(case)(case.q, case.k, case.v) for p in ("standard", peer))
    if name not in ("window", "gemma2"):  # whose formulas by hand are of 1024 keys
        torch.testing.assert_close(got, want)
    exact = PEERS["attngen"].prepare(case)
    torch.testing.assert_close(got, exact(case.q, case.k, case.v), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("peer", ["flash2", "flash3", "flash4", "flex_flash"])
def test_a_package_that_is_not_there_says_so(peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("flash_attn", "flash_attn_interface", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, module, None)
    assert PEERS[peer].refuses(ROWS["causal"]) == "not installed"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROWS["documents"], "takes no such mask"),
        (ROWS["streaming"], "takes no such mask"),
        (ROWS["table"], "takes no such score"),
        (ROWS["dropout"], "takes no dropout"),
    ],
    ids=lambda x: x.name if isinstance(x, Row) else "",
)
def test_what_its_arguments_cannot_say_is_refused(
    row: Row, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "flash_attn_interface", attention)
    assert PEERS["flash3"].refuses(row) == reason
