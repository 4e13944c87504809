"""The plan: which loops a tile runs, and where the scale is computed."""

from __future__ import annotations

import pytest

from attngen.analysis.simplify import simplify_ir
from attngen.ir.build import build
from attngen.plan.plan import Options, Plan, make_plan
from attngen.plan.table import ROW_TARGETS
from attngen.source import Source
from attngen.syntax.parse import parse


def plan(*lines: str) -> Plan:
    source = Source("\n".join(["variant x", *lines]) + "\n", "x.attn")
    return make_plan(simplify_ir(build(parse(source), source)), Options())


@pytest.mark.parametrize(
    ("mask", "keys", "queries"),
    [
        ("True", (True, False), (True, False)),
        ("causal", (True, False), (True, True)),
        ("sliding_window(200)", (True, True), (True, True)),
        ("sliding_window(9)", (False, False), (False, False)),
        ("q % 3 == k % 3", (False, False), (False, False)),
        ("causal and (dist < 200 or k < 4)", (True, True), (True, True)),
    ],
)
def test_an_interior_needs_no_mask(mask: str, keys: tuple[bool, bool], queries: tuple[bool, bool]) -> None:
    found = plan(f"mask = {mask}")
    assert (found.key_loops.has_interior, found.key_loops.has_gaps) == keys
    assert (found.query_loops.has_interior, found.query_loops.has_gaps) == queries


@pytest.mark.parametrize(
    ("scale", "const", "on_host"),
    [
        ("0.5", True, True),
        ("1 / sqrt(head_dim)", False, True),
        ("p * 0.5", False, False),
        ("slopes[h]", False, False),
    ],
)
def test_the_scale_is_computed_as_early_as_it_can_be(scale: str, const: bool, on_host: bool) -> None:
    found = plan("param p: float", "input slopes: float32[heads]", f"scale = {scale}")
    assert (found.scale_is_const, found.scale_on_host) == (const, on_host)


@pytest.mark.parametrize(
    ("score", "uniform"),
    [("score + p", True), ("score * p", True), ("tanh(score)", False), ("score * k", False)],
)
def test_a_derivative_that_is_one_number_a_program_is_seen(score: str, uniform: bool) -> None:
    assert plan("param p: float", f"score = {score}").derivative_is_uniform is uniform


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ValueError, match="'cuda'"):
        Options(backend="cuda")
    with pytest.raises(ValueError, match="'fast'"):
        Options(math="fast")


def test_every_target_has_tiles_for_every_head_dimension() -> None:
    tiles = plan().tiles
    assert list(tiles) == list(ROW_TARGETS)
    for target, rows in tiles.items():
        assert max(rows) == 256, target
        assert list(rows) == sorted(rows), target
        for of_kernels in rows.values():
            assert len(of_kernels) == 3
