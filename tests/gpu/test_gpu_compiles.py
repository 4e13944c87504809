"""Lengths and params are arguments of the kernels, not part of them: changing them compiles nothing."""

from __future__ import annotations

import pytest

import attngen
from attngen.bench.compiles import compiles_over_lengths


@pytest.mark.parametrize("name", ["causal", "softcap", "dropped", "prefix_lm", "packed_documents"])
@pytest.mark.parametrize("head_dim", [64, 80])
def test_no_length_and_no_param_compiles_again(name: str, head_dim: int) -> None:
    _, *later = compiles_over_lengths(attngen.load(name), head_dim=head_dim)
    assert {step.call: step.added for step in later if step.added} == {}


def test_another_head_dim_compiles_other_kernels() -> None:
    """The count is not blind."""
    first, *_ = compiles_over_lengths(attngen.load("full"), head_dim=48, lengths=(20,))
    assert {"forward", "backward"} <= {part for kernel in first.added for part in kernel.split("_")}
