"""Every planted mutant fails its check, the package itself passes it, and the table says so."""

from __future__ import annotations

from pathlib import Path

import planting_on_gpu
import pytest
from mutants import BY_NAME, MUTANTS, SPECS, Mutant
from mutants_on_gpu import GPU_MUTANTS, GPU_SPECS, GpuMutant
from planting import ROOT, TABLE, outcome_of, planted, property_run, row, run_in

CHECKS = sorted({mutant.caught_by for mutant in MUTANTS})
FEW = 2  # calls, enough for the sample below: of several tiles by several

named = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)


@named
def test_a_mutants_text_stands_once_and_is_changed(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.new != mutant.old
    assert mutant.caught_by in SPECS or (ROOT / mutant.caught_by.split("::")[0]).exists()


def test_there_are_mutants_of_the_templates_the_emitter_the_plan_and_the_analyses() -> None:
    assert len(MUTANTS) == len(BY_NAME) >= 50
    assert len(GPU_MUTANTS) == len({m.name for m in GPU_MUTANTS}) >= 8
    folders = {"/".join(mutant.file.split("/")[:2]) for mutant in (*MUTANTS, *GPU_MUTANTS)}
    assert folders == {
        *("templates/triton", "templates/hopper"),
        *("attngen/emit", "attngen/plan", "attngen/analysis"),
    }
    assert set(SPECS) <= set(CHECKS)


@pytest.mark.parametrize("mutant", GPU_MUTANTS, ids=lambda m: m.name)
def test_a_mutants_text_of_a_gpus_kernels_stands_once_and_is_changed(mutant: GpuMutant) -> None:
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.new != mutant.old and mutant.spec in GPU_SPECS


@pytest.mark.parametrize("name", ["top_left_alignment", "dq_masks_only_the_end", "right_edge_rounded_up"])
def test_a_few_mutants_are_caught_by_two_calls(name: str) -> None:
    assert BY_NAME[name].caught_by == "causal"
    assert outcome_of("causal", BY_NAME[name], FEW).error == "AssertionError"


def test_the_package_itself_passes_these_calls() -> None:
    found = outcome_of("causal", None, FEW)
    assert found.error == "", found.message


@pytest.mark.slow
@named
def test_each_mutant_is_caught(mutant: Mutant) -> None:
    """By an assertion, not by a module that does not load or a kernel that does not run."""
    found = outcome_of(mutant.caught_by, mutant)
    assert found.error == "AssertionError", f"{found.error or 'survived'}: {found.message}"


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_the_package_itself_passes_each_check(check: str) -> None:
    found = outcome_of(check, None)
    assert found.error == "", f"{found.error}: {found.message}"


@pytest.mark.slow
def test_a_shrunk_counter_example_fails_again_as_printed_and_only_with_the_mutant(tmp_path: Path) -> None:
    """This one shows in calls of several tiles alone: the snippet must say how small those are."""
    mutant = BY_NAME["left_edge_rounded_down"]
    with planted(mutant) as folder:
        found = property_run(mutant.caught_by, folder, shrink_seconds=10.0)
        report, snippet = found.message.split("To reproduce:\n\n")
        script = tmp_path / "again.py"
        script.write_text(snippet)
        again = run_in(folder, script)
    assert found.error == "AssertionError" and again.returncode == 1
    assert f"AssertionError: {report}" in again.stderr
    with planted(None) as folder:
        assert run_in(folder, script).returncode == 0


def test_the_table_is_what_the_list_says() -> None:
    table = TABLE.read_text(encoding="utf-8").partition("| the error ")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(MUTANTS)
    for line, mutant in zip(rows, MUTANTS, strict=True):
        assert line.startswith(row(mutant) + " ")
        assert len(line) > len(row(mutant)) + len(" said |")


def test_the_table_of_a_gpus_mutants_is_what_the_list_says() -> None:
    text = (ROOT / "docs" / "mutants_on_gpu.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert [line.rsplit(" | ", 1)[0] + " |" for line in rows] == [planting_on_gpu.row(m) for m in GPU_MUTANTS]
