"""ATTNGEN_DEBUG=1 finds inputs that are not sorted as declared, and without it nobody looks."""

from __future__ import annotations

import pytest
import torch
from kernel_calls import qkv

import attngen
from attngen.variant import Variant

SPEC = """variant documents
input doc: int32[batch, k_len] sorted
input order: int32[batch, k_len]
mask = causal and doc[b, pos] == doc[b, k] and order[b, k] >= 0
"""


def built(monkeypatch: pytest.MonkeyPatch, setting: str | None) -> Variant:
    if setting is None:
        monkeypatch.delenv("ATTNGEN_DEBUG", raising=False)
    else:
        monkeypatch.setenv("ATTNGEN_DEBUG", setting)
    return attngen.compile(SPEC)


def rows(*values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def call(variant: Variant, doc: torch.Tensor) -> torch.Tensor:
    q, k, v = qkv(batch=2, q_len=4)
    return variant(q, k, v, doc=doc, order=rows([3, 2, 1, 0], [0, 0, 0, 0]))


def test_a_fall_is_named_by_input_index_and_both_values(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = built(monkeypatch, "1")
    with pytest.raises(
        ValueError, match=r"^doc: declared sorted, but doc\[1, 2\] = 4 comes after doc\[1, 1\] = 7$"
    ):
        call(variant, rows([0, 0, 1, 1], [2, 7, 4, 3]))


@pytest.mark.parametrize("doc", [rows([0, 0, 1, 1], [-2, 5, 5, 9]), rows([1, 2, 2, 3]), rows([0], [0])])
def test_what_rises_or_broadcasts_passes(monkeypatch: pytest.MonkeyPatch, doc: torch.Tensor) -> None:
    """An input without the promise may fall: ``order`` does."""
    assert call(built(monkeypatch, "1"), doc).shape == (2, 1, 4, 16)


@pytest.mark.parametrize("setting", [None, "0", ""])
def test_nobody_looks_unless_asked(monkeypatch: pytest.MonkeyPatch, setting: str | None) -> None:
    assert call(built(monkeypatch, setting), rows([0, 0, 1, 1], [2, 7, 4, 3])).shape == (2, 1, 4, 16)


def test_a_wrong_argument_is_still_the_calls_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = built(monkeypatch, "1")
    with pytest.raises(TypeError, match=r"doc: expected torch\.int32"):
        call(variant, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="doc: expected dimensions"):
        call(variant, torch.zeros((), dtype=torch.int32))
