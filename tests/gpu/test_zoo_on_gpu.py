"""The zoo's kernels on the GPU, against the reference, by the criterion."""

from __future__ import annotations

import pytest

import attngen
from attngen.spec_file import zoo_names
from attngen.testing.run import run_property_tests
from attngen.testing.tensor import STRIDES

USUAL = ("contiguous", "transposed")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", zoo_names())
def test_random_calls_meet_the_criterion(name: str, dtype: str) -> None:
    variant = attngen.load(name)
    report = run_property_tests(
        variant, examples=8, device="cuda", dtypes=(dtype,), head_dims=(64,), strides=USUAL, max_length=300
    )
    assert report.passed, report.failure
    assert report.examples >= 4


@pytest.mark.parametrize("head_dim", [16, 24, 80, 96, 128, 256])
def test_any_head_dim_and_v_dim_meet_the_criterion(head_dim: int) -> None:
    report = run_property_tests(
        attngen.load("alibi"),
        examples=4,
        device="cuda",
        dtypes=("bfloat16",),
        head_dims=(head_dim, 40),
        strides=USUAL,
        max_length=200,
    )
    assert report.passed, report.failure


@pytest.mark.parametrize("strides", STRIDES)
def test_any_memory_layout_meets_the_criterion(strides: str) -> None:
    report = run_property_tests(
        attngen.load("softcap"),
        examples=6,
        device="cuda",
        dtypes=("bfloat16",),
        head_dims=(64,),
        strides=(strides,),
    )
    assert report.passed, report.failure
