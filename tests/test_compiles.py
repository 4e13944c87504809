"""What a call may change without a new compilation: lengths, head counts, params, sizes."""

from __future__ import annotations

from typing import Any

import pytest
from zoo_share import share

import attngen
from attngen.spec_file import zoo_names
from attngen.variant import Variant

pytestmark = pytest.mark.compiled

RICH = """
variant rich
input slopes: float32[heads]
input table: float32[n, batch]
param p: float
param w: int = 3
param f: bool = True
score = (score if f else 2 * score) - slopes[h] * dist + table[k, b] / n
mask = dist < w
scale = 0.1 * p
dropout = p
"""


def kernels(variant: Variant) -> dict[str, Any]:
    return {n: k for n, k in vars(variant._module).items() if n.endswith("_kernel")}


@pytest.mark.parametrize("name", ["rich", *share(zoo_names(), 3)])
def test_kernels_are_specialised_on_strides_alone(name: str) -> None:
    """Triton compiles again for an integer that becomes 1 or divisible by 16, where it may look at it."""
    variant = attngen.compile(RICH) if name == "rich" else attngen.load(name)
    assert {"forward_kernel", "delta_kernel", "dkdv_kernel", "dq_kernel"} <= set(kernels(variant))
    for kernel in kernels(variant).values():
        for argument in kernel.params:
            is_number = not argument.is_constexpr and argument.name.islower()
            if (
                is_number
                and "stride" not in argument.name
                and not argument.name.endswith(("_ptr", "_source", "_target"))
            ):
                assert argument.do_not_specialize, argument.name


def test_params_sizes_and_lengths_are_arguments_not_constants() -> None:
    for kernel in kernels(attngen.compile(RICH)).values():
        constants = {p.name for p in kernel.params if p.is_constexpr}
        assert not constants & {"p", "w", "f", "n", "q_len", "k_len", "heads", "kv_heads", "scale"}
