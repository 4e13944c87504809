"""The backwards for sm_90 on such a GPU: right for the whole zoo, done in time, and left out where asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpu_calls import run, tensors

from attngen.spec_file import find_spec, zoo_names
from attngen.variant import build_variant

CHECK = Path(__file__).parents[2] / "benchmarks" / "hopper_backward_check.py"

is_hopper = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9
pytestmark = pytest.mark.skipif(not is_hopper, reason="needs an sm_90 GPU")


# A process of its own: warps that wait for each other would hang this one, and a bad address end it.
@pytest.mark.parametrize("name", zoo_names())
def test_its_gradients_match_the_reference_and_come_in_time(name: str) -> None:
    command = [
        sys.executable,
        str(CHECK),
        "check",
        "--specs",
        name,
        "--dims",
        "64,128,80:96,256,192:128",
        "--limit",
        "120",
        "--workers",
        "1",  # a float64 reference takes gigabytes, and other tests run beside this one
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=700)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_both_backwards_agree_and_the_deterministic_one_repeats_its_bits(dtype: torch.dtype) -> None:
    variant = build_variant(find_spec("softcap"), overrides={}, backend="hopper")
    x = tensors(q_len=3000, k_len=2900, head_dim=128, dtype=dtype)
    fused, fixed, again = (run(variant, x, deterministic=flag) for flag in (False, True, True))
    for name in ("dq", "dk", "dv"):
        assert torch.equal(fixed[name], again[name])
        difference = (fused[name].double() - fixed[name].double()).norm() / fixed[name].double().norm()
        assert difference < (4e-3 if dtype == torch.bfloat16 else 5e-4)


def test_the_backward_of_wide_heads_repeats_its_bits_without_being_asked() -> None:
    variant = build_variant(find_spec("softcap"), overrides={}, backend="hopper")
    x = tensors(q_len=1000, k_len=900, head_dim=256, dtype=torch.bfloat16)
    once, again, fixed = (run(variant, x, deterministic=flag) for flag in (False, False, True))
    for name in ("dq", "dk", "dv"):
        assert torch.equal(once[name], again[name]) and torch.equal(once[name], fixed[name])


def test_torchs_own_switch_turns_it_off() -> None:
    variant = build_variant(find_spec("causal"), overrides={}, backend="hopper")
    x = tensors(q_len=700, head_dim=128)
    wanted = run(variant, x, deterministic=True)
    torch.use_deterministic_algorithms(True)
    try:
        found = run(variant, x)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
