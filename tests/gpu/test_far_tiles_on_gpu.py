"""Tiles far from the diagonal, and sums of learned inputs, in the kernels for sm_90 on such a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attngen.pipeline import compile_spec
from attngen.source import Source

CHECKS = Path(__file__).parents[2] / "benchmarks"

is_hopper = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9
pytestmark = pytest.mark.skipif(not is_hopper, reason="needs an sm_90 GPU")

TABLE = "input table: float32[heads, 81] grad\nscore = score + table[h, clamp(dist, -40, 40) + 40]"
ONE_SIDE = "input table: float32[heads, 65] grad\nscore = score + table[h, clamp(dist, 0, 64)]"
SLOPES = "input slopes: float32[heads] grad\nscore = score - slopes[h] * abs(dist)"
SINK = "input sinks: float32[heads] grad\nsink = sinks[h]"
BUCKETS = "input table: float16[kv_heads, 32] grad\nscore = score + table[h_kv, t5_bucket(-dist, 32, 128)]"
TWO = (
    "input x: float32[heads, 9] grad\ninput y: bfloat16[batch, 32] grad\n"
    "score = score + x[h, abs(clamp(dist, -8, 8))] + 2.0 * y[b, t5_bucket(-dist, 32, 100)]"
)
DOCUMENTS = "input doc: int32[batch, k_len] sorted\nmask = causal and doc[b, k] == doc[b, pos]"
SPECS = {
    "both sides": TABLE,
    "causal": f"{TABLE}\nmask = causal",
    "keys ahead": f"{TABLE}\nmask = dist >= -300",
    "late": f"{TABLE}\nmask = dist >= 100",
    "window": f"{TABLE}\nmask = sliding_window(300)",
    "window of a head": f"{TABLE}\ninput spans: int32[heads]\nmask = causal and dist < spans[h] * 100",
    "buckets": BUCKETS,
    "buckets and dropout": f"{BUCKETS}\nmask = causal\ndropout = 0.2",
    "two tables": f"{TWO}\nmask = causal",
    "one side": f"{ONE_SIDE}\nmask = causal",
    "softcap": f"{ONE_SIDE}\nscore = softcap(score, 20.0)",
    "dropout": f"{TABLE}\ndropout = 0.2",
    "both of a softcap": f"{TABLE}\nscore = softcap(score, 20.0)",
    "documents": f"{TABLE}\n{DOCUMENTS}",
    "window by head alone": f"{SLOPES}\ninput spans: int32[heads]\nmask = causal and dist < spans[h] * 100",
    "of a batch": "input x: bfloat16[batch, heads] grad\nscore = score + x[b, h] * dist * 0.01",
    "bent sink": "input x: float16[kv_heads] grad\nsink = tanh(x[h_kv]) + log(1.0 + exp(tanh(x[h_kv])))",
    "slopes": f"{SLOPES}\nmask = causal",
    "slopes and dropout": f"{SLOPES}\ndropout = 0.2",
    "sink": f"{SINK}\nmask = sliding_window(200)",
    "table and sink": f"{TABLE}\n{SINK}",
    "slopes and sink": f"{SLOPES}\n{SINK}\nmask = causal",
}


UNGATHERED = {"softcap", "both of a softcap"}  # the derivative takes the product itself


@pytest.mark.parametrize("name", SPECS)
def test_they_take_the_paths_that_they_are_here_for(name: str) -> None:
    plan = compile_spec(Source(f"variant far\n{SPECS[name]}\n", "far.attn"), backend="hopper").plan
    assert (plan.far_in_gluon is not None) == ("table" in SPECS[name] or name == "two tables")
    assert plan.gathers_sums == (name not in UNGATHERED)


@pytest.mark.parametrize("check", ["hopper_check.py", "hopper_backward_check.py"])
@pytest.mark.parametrize("name", SPECS)
def test_they_match_the_reference(name: str, check: str, tmp_path: Path) -> None:
    spec = tmp_path / "far.attn"
    spec.write_text(f"variant far\n{SPECS[name]}\n")
    command = [sys.executable, str(CHECKS / check), "check", "--specs", str(spec), "--dims", "64,128,96:128"]
    command += ["--limit", "120", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
