"""Gluon's kernels as PTX: before anything in shared memory changes hands, those who used it have met.

racecheck does not follow an mbarrier at which one thread arrives for many, nor a barrier of all warps once
some have met by themselves (benchmarks/hazards.py): these tests read what Triton wrote for it instead.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

import pytest
from lowering import ptx_of

from attngen.compile_check.launches import launches
from attngen.compile_check.module import load
from attngen.pipeline import compile_spec
from attngen.plan.tiles import TARGETS
from attngen.spec_file import find_spec

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from hazards import handed_over

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor"),
]

# What a line of PTX does, as far as it matters here.
STEPS = {
    "wait": r"mbarrier\.try_wait",
    "arrive": r"mbarrier\.arrive\.shared",
    "meet": r"bar\.sync|bar\.warp\.sync|barrier\.sync",
    "load": r"ld\.shared",
    "store": r"st\.shared|stmatrix",
    "fence": r"fence\.proxy\.async",
    "product": r"wgmma\.wait_group",
    "sent": r"cp\.async\.bulk\.wait_group",
    "send": r"cp\.(?:reduce\.)?async\.bulk\.tensor\.\dd\.global",
}
_STEP = re.compile("|".join(f"(?P<{name}>{text})" for name, text in STEPS.items()))


def steps(ptx: str) -> list[tuple[str, str]]:
    """What a kernel's lines do, one after the other, each beside its line; less comments and debug data."""
    body = ptx[ptx.index(".visible .entry") :].split(".section")[0]
    lines = [line.strip() for line in body.splitlines()]
    found = [(match.lastgroup or "", line) for line in lines if (match := _STEP.search(line.split("//")[0]))]
    assert found
    return found


@cache
def kernels(name: str, head_dim: int) -> dict[str, str]:
    """The PTX of a spec's Gluon kernels, by name and number."""
    built = compile_spec(find_spec(name), backend="hopper")
    found = launches(load(built.text), built.ir, TARGETS["sm_90"], head_dim, "bfloat16")
    gluon = [launch for launch in found if launch.kernel.is_gluon()]
    return {f"{launch.kernel.__name__} {n}": ptx_of(launch) for n, launch in enumerate(gluon)}


def last_of(steps: list[tuple[str, str]], *kinds: str) -> str:
    """Which of these kinds the last of some steps is, "" if none is."""
    return next((kind for kind, _ in reversed(steps) if kind in kinds), "")


CASES = [
    ("packed_documents", 64),
    pytest.param("causal", 64, marks=pytest.mark.slow),
    pytest.param("causal", 256, marks=pytest.mark.slow),
    pytest.param("packed_documents", 256, marks=pytest.mark.slow),
    pytest.param("dense_bias", 128, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "head_dim"), CASES)
def test_one_thread_arrives_for_many_only_after_all_have_waited_read_and_met(
    name: str, head_dim: int
) -> None:
    # Else the place is filled anew under those that still read, or their wait sees the phase after next.
    for kernel, ptx in kernels(name, head_dim).items():
        found = steps(ptx)
        arrivals = [n for n, (kind, _) in enumerate(found) if kind == "arrive"]
        assert arrivals, kernel
        for n in arrivals:
            assert last_of(found[:n], "wait", "load", "store", "product", "sent", "meet") == "meet", found[
                n - 5 : n + 1
            ]


@pytest.mark.parametrize(("name", "head_dim"), CASES)
def test_what_the_first_warps_hand_over_lies_where_nobody_still_reads(name: str, head_dim: int) -> None:
    for kernel, ptx in kernels(name, head_dim).items():
        found = steps(ptx)
        begin = next(n for n, (_, line) in enumerate(found) if line.startswith("barrier.sync"))
        while found[begin - 1][0] == "store":
            begin -= 1
        assert handed_over(ptx), kernel
        assert last_of(found[:begin], "load", "meet") in ("meet", ""), found[begin - 5 : begin + 1]


@pytest.mark.parametrize(("name", "head_dim"), CASES)
def test_what_is_sent_to_global_memory_is_fenced_and_met_for_and_left_alone_until_it_has_gone(
    name: str, head_dim: int
) -> None:
    for kernel, ptx in kernels(name, head_dim).items():
        found = steps(ptx)
        sends = [n for n, (kind, _) in enumerate(found) if kind == "send"]
        assert sends, kernel
        for n in sends:
            met = max(m for m in range(n) if found[m][0] == "meet")
            assert last_of(found[met:n], "store") == "", found[n - 5 : n + 1]
            assert last_of(found[:met], "fence", "store") == "fence", found[n - 5 : n + 1]
        for n in (n for n, (kind, _) in enumerate(found) if kind == "sent"):
            assert found[n + 1][0] == "meet", found[n : n + 2]
