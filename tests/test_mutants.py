"""Every planted mutant fails its check, the package itself passes it, and the table says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutants import BY_NAME, MUTANTS, SPECS, Mutant
from planting import ROOT, TABLE, outcome_of, planted, property_run, row, run_in

CHECKS = sorted({mutant.caught_by for mutant in MUTANTS})
FEW = 12  # calls, enough for the sample below

named = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)


@named
def test_a_mutants_text_stands_once_and_is_changed(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.new != mutant.old
    assert mutant.caught_by in SPECS or (ROOT / mutant.caught_by.split("::")[0]).exists()


def test_there_are_mutants_of_the_templates_the_emitter_the_plan_and_the_analyses() -> None:
    assert len(MUTANTS) == len(BY_NAME) >= 50
    folders = {"/".join(mutant.file.split("/")[:2]) for mutant in MUTANTS}
    assert folders == {"templates/triton", "attngen/emit", "attngen/plan", "attngen/analysis"}
    assert set(SPECS) <= set(CHECKS)


@pytest.mark.parametrize("name", ["group_not_summed", "log2_e_forgotten", "one_key_beyond_the_end"])
def test_a_few_mutants_are_caught_by_a_few_calls(name: str) -> None:
    assert BY_NAME[name].caught_by == "full"
    assert outcome_of("full", BY_NAME[name], FEW).error == "AssertionError"


def test_the_package_itself_passes_these_calls() -> None:
    found = outcome_of("full", None, FEW)
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
    rows = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(MUTANTS)
    for line, mutant in zip(rows, MUTANTS, strict=True):
        assert line.startswith(row(mutant) + " ")
        assert len(line) > len(row(mutant)) + len(" said |")
