"""The tuner: which tiles it tries, how its journal survives, and what it writes; with a clock of our own."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from tune_jobs import doubled
from typer.testing import CliRunner

from attngen.bench.measure import relative_errors
from attngen.bench.peers import make_case
from attngen.bench.rows import Shape
from attngen.cli import app
from attngen.commands import tune as command
from attngen.errors import BuildError
from attngen.plan.shared_memory import triton_bytes
from attngen.plan.table import parse_table, shipped
from attngen.plan.tile import HopperTile, Tile, tile_text
from attngen.plan.tiles import TARGETS
from attngen.source import Source
from attngen.tune import gpu, session
from attngen.tune.candidates import consumer_registers, distance, gluon_candidates, triton_candidates
from attngen.tune.journal import Journal, Measurement
from attngen.tune.search import Search, searches_of, variants_of
from attngen.tune.workers import Workers

SM_90 = TARGETS["sm_90"].shared
ABOUT = {"device": "a card", "dtype": "bfloat16"}


@cache
def searches(
    *names: str, kernels: tuple[str, ...] = ("forward", "dkdv", "dq"), most: int = 12, head_dim: int = 128
) -> list[Search]:
    return searches_of(
        variants_of(names),
        [head_dim],
        kernels,
        ["triton", "gluon"],
        shipped(),
        target="sm_90",
        shared=SM_90,
        most=most,
    )


# ---- What is tried -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["forward", "dkdv", "dq"])
def test_candidates_fit_and_come_by_their_distance(kernel: str) -> None:
    current = Tile(64, 64, 4, 2)

    def fits(tile: Tile) -> bool:
        return triton_bytes("sm_90", kernel, tile, 128) <= SM_90

    found = triton_candidates("sm_90", kernel, current, (), fits)
    assert current not in found and len(found) == len(set(found)) > 10
    assert all(map(fits, found))
    assert [distance(current, t) for t in found] == sorted(distance(current, t) for t in found)
    assert min(t.block_n if kernel == "dkdv" else t.block_m for t in found) == 64  # of a warpgroup's product
    assert triton_candidates("sm_90", kernel, current, (), lambda tile: False) == []


def test_tiles_that_serve_other_classes_are_tried_first() -> None:
    current, far = Tile(64, 64, 4, 2), Tile(128, 128, 8, 1)
    assert triton_candidates("sm_90", "dq", current, [far, current], lambda t: True)[0] == far
    triton, _ = searches("kerple_log", kernels=("forward",))
    others = {row.tile for row in shipped().rows if row.key[:3] == triton.key[:3] and row.head_dim == 128}
    assert len(others) > 2 and triton.current in others
    assert {*triton.candidates[: len(others) - 1]} == others - {triton.current}


def test_gluons_candidates_share_out_the_registers_as_the_shipped_tiles_do() -> None:
    shipped_ones = [row.tile for row in shipped().rows if isinstance(row.tile, HopperTile)]
    assert {(t.registers, consumer_registers(t.parts, t.programs)) for t in shipped_ones} == {
        (160, 160),
        (232, 232),
        (232, 240),  # beside two consumers the producer has 40
        (240, 240),
    }
    for tile in shipped_ones:
        assert tile in gluon_candidates(replace(tile, stages=9), (), lambda t: True)


def test_each_kernel_of_a_class_is_searched_once() -> None:
    keys = [search.key for search in searches("causal", "full", "window", "dropout")]
    assert len(keys) == len(set(keys))
    assert [(b, k, cost) for b, _, k, cost, _ in keys] == [
        ("triton", "forward", "light"),
        ("triton", "dkdv", "light"),
        ("triton", "dq", "light"),
        ("gluon", "forward", "masked"),
        ("gluon", "forward", "light"),
        ("gluon", "forward", "masked banded"),
        ("triton", "forward", "dropout"),
        ("triton", "dkdv", "dropout"),
        ("triton", "dq", "dropout"),
        ("gluon", "forward", "masked dropout"),
    ]


def test_a_product_of_rows_is_looked_up_by_both_widths() -> None:
    (search,) = searches("mla_rope", kernels=("dq",))
    assert (search.width, search.row.key) == (192, ("triton", "sm_90", "dq", "products", 192))


def test_without_a_gpu_a_dry_run_lists_the_candidates_and_anything_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    command = ["tune", "causal", "--head-dim", "64", "--passes", "dq", "--candidates", "3"]
    listed = CliRunner().invoke(app, [*command, "--dry-run"])
    assert listed.exit_code == 0, listed.output
    assert listed.output.splitlines()[1:3] == [
        "triton dq light 64: causal B4 H32 S4096 D64",
        f"  current  {tile_text(one(64).current)}",
    ]
    assert len(listed.output.splitlines()) == 6
    refused = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "own.csv")])
    assert isinstance(refused.exception, BuildError)
    assert "no CUDA device" in str(refused.exception)


def test_an_unknown_pass_is_named() -> None:
    found = CliRunner().invoke(app, ["tune", "causal", "--passes", "forward,dv", "--dry-run"])
    assert found.exit_code == 2
    assert "'dv'" in found.output


# ---- The journal -------------------------------------------------------------------------------------------


def test_a_journal_goes_on_where_a_cut_write_ended(tmp_path: Path) -> None:
    path = tmp_path / "own.csv.journal"
    kept, cut = (Measurement("dq", name, 1.0, 2.0, 8.0) for name in ("a", "b"))
    journal = Journal(path, ABOUT, resume=False)
    journal.add(kept)
    journal.add(cut)
    path.write_bytes(path.read_bytes()[:-9])
    again = Journal(path, ABOUT, resume=True)
    assert again.found == [kept]
    assert again.has("dq", "a") and not again.has("dq", "b")
    again.add(cut)
    assert Journal(path, ABOUT, resume=True).found == [kept, cut]


def test_a_journal_of_another_run_or_machine_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.csv.journal"
    Journal(path, ABOUT, resume=True).add(Measurement("dq", "a", 1.0, 2.0))
    with pytest.raises(BuildError, match=r"another run.*--resume"):
        Journal(path, ABOUT, resume=False)
    with pytest.raises(BuildError, match="is of a card, bfloat16, and this is a card, float16"):
        Journal(path, {**ABOUT, "dtype": "float16"}, resume=True)
    path.write_text(json.dumps(ABOUT) + "\n{}\n")
    with pytest.raises(BuildError, match=r"own\.csv\.journal:2: error: no line of a journal"):
        Journal(path, ABOUT, resume=True)


# ---- What is measured, and what becomes of it --------------------------------------------------------------


Times = dict[Tile | HopperTile, float | str]


class FakeTimer:
    """Milliseconds by tile; what it is not told takes 10. ``lucky`` tiles are fast in heats alone."""

    def __init__(
        self, ms: Mapping[Tile | HopperTile, float | str] | None = None, lucky: set[Tile] | None = None
    ):
        self.ms, self.lucky = dict(ms or {}), lucky or set()
        self.races: list[tuple[str, int, bool]] = []

    def race(self, search: Search, tiles: Sequence[Tile | HopperTile], *, final: bool) -> Times:
        assert tiles[0] == search.current
        self.races.append((search.key[2], len(tiles) - 1, final))
        luck = {} if final else dict.fromkeys(self.lucky, 1.0)
        return {tile: luck.get(tile, self.ms.get(tile, 10.0)) for tile in tiles}

    def work(self, search: Search) -> float:
        return 1e12


def journal_of(folder: Path) -> Journal:
    return Journal(folder / "own.csv.journal", ABOUT, resume=True)


def run(search: Search, timer: FakeTimer, folder: Path) -> list[session.Step]:
    return list(session.run([search], timer, journal_of(folder)))


def one(head_dim: int = 128) -> Search:
    (search,) = searches("causal", kernels=("dq",), head_dim=head_dim)
    return search


def test_a_tile_that_wins_its_final_becomes_a_row(tmp_path: Path) -> None:
    search = one()
    best = search.candidates[9]
    timer = FakeTimer({best: 8.0, search.candidates[0]: 9.0})
    steps = run(search, timer, tmp_path)
    assert timer.races == [("dq", 8, False), ("dq", 4, False), ("dq", 1, True)]
    assert sum(step.done for step in steps) == 12
    assert steps[-1].line.endswith(f"{tile_text(best)}, 1.25x (of 12 timed)")
    (row,) = session.rows_of([search], journal_of(tmp_path), "here")
    assert (row.key, row.tile, row.tflops, row.origin) == (search.key, best, 125.0, "causal, here")


def test_a_tile_that_was_only_lucky_or_within_the_noise_changes_nothing_but_the_number(
    tmp_path: Path,
) -> None:
    search = one()
    for number, timer in enumerate(
        (FakeTimer(lucky={search.candidates[1]}), FakeTimer({search.candidates[1]: 9.9}))  # type: ignore[arg-type]
    ):
        folder = tmp_path / str(number)
        run(search, timer, folder)
        (row,) = session.rows_of([search], journal_of(folder), "here")
        assert (row.tile, row.tflops) == (search.current, 100.0)
        assert timer.races[-1] == ("dq", 1, True) if number == 0 else not timer.races[-1][2]


def test_a_run_goes_on_with_what_is_left(tmp_path: Path) -> None:
    search = one()
    seconds = iter([1.0, 0.0])
    first = FakeTimer()
    list(session.run([search], first, journal_of(tmp_path), lambda: next(seconds)))
    assert first.races == [("dq", 8, False)]
    second = FakeTimer()
    run(search, second, tmp_path)
    assert second.races == [("dq", 4, False)]
    third = FakeTimer()
    run(search, third, tmp_path)
    assert third.races == []


def test_a_better_candidate_of_a_resumed_run_has_a_final_of_its_own(tmp_path: Path) -> None:
    search = one()
    good, better = search.candidates[0], search.candidates[9]
    timer = FakeTimer({good: 9.0, better: 8.0})
    run(replace(search, candidates=search.candidates[:2]), timer, tmp_path)
    run(search, timer, tmp_path)
    assert [final for _, _, final in timer.races].count(True) == 2
    (row,) = session.rows_of([search], journal_of(tmp_path), "here")
    assert row.tile == better


def test_what_failed_or_spills_is_noted_and_not_tried_again(tmp_path: Path) -> None:
    search = one()
    broken, spilling = search.candidates[:2]
    journal = journal_of(tmp_path)
    timer = FakeTimer({broken: "OutOfResources: shared memory"})
    skip = {(search.id, spilling): "40 registers spilled"}
    list(session.run([search], timer, journal, skip=skip))
    assert {m.why for m in journal.found} == {"", "OutOfResources: shared memory", "40 registers spilled"}
    again = FakeTimer()
    list(session.run([search], again, journal_of(tmp_path)))
    assert again.races == []


def test_measurements_beside_another_tile_do_not_count(tmp_path: Path) -> None:
    search = one()
    run(search, FakeTimer({search.candidates[0]: 5.0}), tmp_path)
    other = replace(search, row=replace(search.row, tile=search.candidates[0]))
    assert session.rows_of([other], journal_of(tmp_path), "here") == []


def test_a_class_keeps_the_tile_that_it_had_from_a_row_that_changes(tmp_path: Path) -> None:
    light, medium = searches("causal", "softcap", kernels=("dq",))
    assert light.row.key == medium.row.key != medium.key
    best = light.candidates[0]

    class Timer(FakeTimer):
        def race(self, search: Search, tiles: Sequence[Tile | HopperTile], *, final: bool) -> Times:
            return {**super().race(search, tiles, final=final), **({best: 5.0} if search is light else {})}

    journal = journal_of(tmp_path)
    list(session.run([light, medium], Timer(), journal))
    found = session.rows_of([light, medium], journal, "here")
    assert [(row.key, row.tile) for row in found] == [(light.key, best), (medium.key, medium.current)]
    assert session.rows_of([medium], journal, "here") == []


@pytest.mark.parametrize(("gluon_ms", "wanted"), [(5.0, None), (9.8, None), (12.0, "triton")])
def test_auto_changes_where_the_other_back_end_gains(
    tmp_path: Path, gluon_ms: float, wanted: str | None
) -> None:
    both = searches("causal", kernels=("forward",), most=1)
    gluon = [tile for s in both if s.key[0] == "gluon" for tile in (s.current, *s.candidates)]
    timer = FakeTimer(dict.fromkeys(gluon, gluon_ms))
    journal = journal_of(tmp_path)
    list(session.run(both, timer, journal))
    found = session.choices(both, journal, shipped(), "here")
    assert [(row.key, row.tile) for row in found] == (
        [(("auto", "sm_90", "forward", "masked", 128), wanted)] if wanted else []
    )


def test_an_interrupt_keeps_what_was_measured_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    search = one()
    timer = FakeTimer({search.candidates[2]: 8.0})

    def interrupted(*arguments: object, **named: object) -> None:
        if len(timer.races) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "_compile", lambda *arguments: {})
    monkeypatch.setattr(gpu, "GpuTimer", lambda dtype: timer)
    wanted = command.Wanted((), (), "bfloat16", (), (), 60.0, 12, 1, tmp_path / "own.csv", False, False)
    with monkeypatch.context() as patched:
        race = timer.race
        patched.setattr(timer, "race", lambda *a, **n: interrupted() or race(*a, **n))
        command._measure(wanted, [search], shipped())
    assert (
        "4 candidates are not measured yet: the same command with --resume goes on" in capfd.readouterr().err
    )
    command._measure(replace(wanted, resume=True), [search], shipped())
    assert timer.races == [("dq", 8, False), ("dq", 4, False), ("dq", 1, True)]
    (row,) = parse_table(Source((tmp_path / "own.csv").read_text())).rows
    assert row.tile == search.candidates[2]


def test_rows_go_into_a_table_beside_those_it_has(tmp_path: Path) -> None:
    search = one()
    own = tmp_path / "own.csv"
    first, second = (replace(search.row, head_dim=n, origin=f"row {n}") for n in (64, 128))
    command._write(own, [first, second])
    command._write(own, [replace(second, origin="again")])
    table = parse_table(Source(own.read_text()))
    assert [row.origin for row in table.rows] == ["row 64", "again"]
    command._write(tmp_path / "none.csv", [])
    assert not (tmp_path / "none.csv").exists()


def test_a_job_that_kills_its_process_takes_no_other_along() -> None:
    workers = Workers(doubled, 2, -1)
    found = dict(workers.results([1, 13, 2, 7, 3, 4], time.monotonic() + 60))
    assert found == {1: 2, 13: -1, 2: 4, 7: 14, 3: 6, 4: 8}
    assert list(workers.results([1, 2], time.monotonic() - 1)) == []


def test_leaving_early_ends_what_hangs() -> None:
    started = time.monotonic()
    results = Workers(doubled, 2, -1).results([1, 99, 99, 99], started + 60)
    assert next(results) == (1, 2)
    results.close()
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(("longest", "until", "grace"), [(8.0, 60.0, 60.0), (60.0, 8.0, 1.0)])
def test_a_job_that_hangs_is_lost_when_its_time_or_that_of_all_has_passed(
    longest: float, until: float, grace: float
) -> None:
    started = time.monotonic()
    found = dict(Workers(doubled, 2, -1, longest).results([99, 1], started + until, grace))
    assert found == {99: -1, 1: 2}
    assert time.monotonic() - started < 40


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "kernel", ["forward", pytest.param("dkdv", marks=slow), pytest.param("dq", marks=slow)]
)
def test_a_kernel_launched_with_a_candidate_gives_the_same_results(kernel: str) -> None:
    (search,) = searches_of(
        variants_of(["causal"]), [16], [kernel], ["triton"], shipped(), target="interpreter", shared=SM_90
    )
    case = make_case(search.variant, Shape("few", 1, 2, 40, 16), torch.float32, torch.device("cpu"))
    usual, other = (gpu.noted(search, tile, case) for tile in (search.current, Tile(16, 32, 1, 1)))
    errors = relative_errors(other.results, usual.results)
    assert 0 < max(errors.values()) < 1e-5  # another order of sums, so another tile did run
    own = {"forward": "out", "dkdv": "k", "dq": "q"}[kernel]
    wanted = other.results[own].clone()
    other.results[own].zero_()
    other.launch()
    assert torch.equal(other.results[own], wanted)
