"""Telling what racecheck cannot follow from real races, on what it said of Gluon's kernels on an H200.

tests/fixtures/racecheck holds its words, less the host's backtraces: race.txt of packed_documents' backward
when a search's last sum was overwritten by what warp_specialize hands over (the run did not end); mended.txt
of the same call with a barrier between; forward.txt, one hazard of each pair of instructions of causal's
forward; and of these kernels' PTX the lines before each barrier of all warps.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from hazards import (
    HAND_OVER,
    NOTES,
    RESERVED,
    Cut,
    Hazard,
    function_at,
    handed_over,
    hazards_in,
    order_of,
    recorded,
)

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "tests" / "fixtures" / "racecheck"
AREAS = {
    f"hopper_{name}_kernel": handed_over((RECORDS / f"{name}.ptx").read_text())
    for name in ("forward", "backward")
}
# Of the emitted module that ran: the functions of the lines that forward.txt names.
FUNCTIONS = {352: "note", 359: "noted", 708: "hopper_forward_kernel", 762: "hopper_forward_kernel"}


def function_of(file: str, line: int) -> str:
    return FUNCTIONS.get(line, "") if file.startswith("causal_") else ""


def order(hazard: Hazard) -> str | None:
    return order_of(hazard, AREAS, function_of)


@cache
def of(name: str) -> tuple[Hazard, ...]:
    return tuple(recorded((RECORDS / f"{name}.txt").read_text()))


def test_the_bytes_that_are_handed_over_are_read_off_the_ptx() -> None:
    # What each warp is to do (twelve workers, or eight), and the arguments: 32 bytes, 16 at a time.
    assert sorted(AREAS["hopper_forward_kernel"], key=lambda a: a.start) == [
        range(115104, 115112),
        range(115112, 115116),
    ]
    assert sorted(AREAS["hopper_backward_kernel"], key=lambda a: a.start) == [
        range(198656, 198672),
        range(198672, 198688),
        range(199112, 199120),
    ]


def test_what_a_run_without_a_race_reports_is_all_known_to_be_ordered() -> None:
    found = hazards_in((RECORDS / "mended.txt").read_text())
    assert Counter(map(order, found)) == {HAND_OVER: 52}
    assert Counter(map(order, of("forward"))) == {HAND_OVER: 4, NOTES: 12}


def test_a_real_race_is_not_taken_for_the_hand_over_that_it_is_with() -> None:
    found = of("race")
    known, others = [h for h in found if order(h)], [h for h in found if not order(h)]
    assert (len(known), len(others)) == (5, 21)
    sums = [h for h in others if "standard.py" in (h.first.file, h.second.file)]  # read late, or not at all
    assert len(sums) == 20
    assert [h.kind for h in others if h not in sums] == ["WAW"]  # two warps hand over different numbers
    assert {h.address - RESERVED for h in sums} == set(range(198656, 198660))  # the first argument's bytes


@given(st.data())
def test_no_other_memory_no_other_warps_and_no_two_writes_are_taken_for_a_hand_over(
    data: st.DataObject,
) -> None:
    hazard = data.draw(st.sampled_from([h for h in (*of("mended"), *of("forward")) if order(h) == HAND_OVER]))
    handed = [RESERVED + place for area in AREAS[hazard.first.kernel] for place in area]
    elsewhere = data.draw(st.integers(0, 227 * 1024).filter(lambda address: address not in handed))
    assert order(replace(hazard, address=elsewhere)) is None
    first, second = hazard.first, hazard.second
    assert order(replace(hazard, first=replace(first, thread=second.thread))) is None  # a worker writes
    assert order(replace(hazard, second=replace(second, thread=data.draw(st.integers(0, 127))))) is None
    assert order(replace(hazard, kind="WAW", second=replace(second, writes=True))) is None
    assert order(replace(hazard, second=replace(second, kernel="another_kernel"))) is None


@given(st.data())
def test_of_notes_only_a_store_and_a_load_in_different_warps_are_known(data: st.DataObject) -> None:
    hazard = data.draw(st.sampled_from([h for h in of("forward") if order(h) == NOTES]))
    first, second = hazard.first, hazard.second
    warp = first.thread // 32
    same = data.draw(st.integers(32 * warp, 32 * warp + 31))
    assert order(replace(hazard, second=replace(second, thread=same))) is None
    assert (
        order(replace(hazard, first=replace(first, writes=True), second=replace(second, writes=True))) is None
    )
    line = data.draw(st.integers(1, 3000).filter(lambda n: n not in (352, 359)))
    assert order(replace(hazard, first=replace(first, line=line))) is None
    assert order(replace(hazard, second=replace(second, line=line))) is None


def test_a_log_that_does_not_hold_all_hazards_is_refused() -> None:
    whole = (RECORDS / "mended.txt").read_text()
    for text, said in [
        ((RECORDS / "race.txt").read_text(), "did not end"),
        (whole.replace("52 hazards displayed (52 errors", "52 hazards displayed (7530 errors"), "7530"),
        (whole.replace("Read Thread (256,0,0)", "Read Thread somewhere", 1), "expected 52 hazards"),
        ("========= RACECHECK SUMMARY: 3 hazards displayed (3 errors, 0 warnings)\n", "expected 3 hazards"),
    ]:
        with pytest.raises(Cut, match=said):
            hazards_in(text)
    assert hazards_in("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n") == []


def test_a_line_of_an_emitted_module_belongs_to_its_function() -> None:
    text = (ROOT / "generated" / "causal.py").read_text()
    lines = text.splitlines()
    for name in ("note", "noted", "producer"):
        at = next(n for n, line in enumerate(lines, 1) if line.startswith(f"def {name}("))
        assert function_at(text, at) == function_at(text, at + 3) == name
    assert function_at(text, 1) == ""
