"""The forward for sm_90 against the reference, each call in a process of its own: a hang ends with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attngen.spec_file import zoo_names

CHECK = Path(__file__).parents[2] / "benchmarks" / "hopper_check.py"
SECONDS = 120  # compiling takes most of them

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability()[0] != 9, reason="needs an sm_90 GPU"
)


def checked(spec: str, head_dim: int, v_dim: int, dtype: str) -> str:
    """The line of the check: it begins with ok where both forwards agree with the reference."""
    command = [sys.executable, str(CHECK), "one", spec, str(head_dim), str(v_dim), dtype]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize("name", zoo_names())
def test_every_spec_agrees_with_the_reference(name: str, head_dim: int) -> None:
    assert checked(name, head_dim, head_dim, "bfloat16").startswith("ok")


@pytest.mark.parametrize(("head_dim", "v_dim"), [(40, 40), (96, 64), (64, 128), (128, 256), (192, 128)])
def test_any_head_dim_and_v_dim_agrees_with_the_reference(head_dim: int, v_dim: int) -> None:
    assert checked("softcap", head_dim, v_dim, "float16").startswith("ok")
