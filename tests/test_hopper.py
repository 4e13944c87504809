"""The back end for sm_90: what a module holds, when its launcher takes it, what the assembler says of it."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import fuzz_specs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lowering import in_triton
from torch._subclasses.fake_tensor import FakeTensorMode

from attngen.commands.common import Backend
from attngen.commands.show import text_of
from attngen.compile_check.binary import Binary, compile_launch
from attngen.compile_check.launches import Launch, launches
from attngen.compile_check.module import load
from attngen.errors import AttnGenError
from attngen.pipeline import Compilation, compile_spec
from attngen.plan.table import shipped
from attngen.plan.tile import HopperTile
from attngen.plan.tiles import TARGETS
from attngen.source import Source
from attngen.spec_file import find_spec, zoo_names

# The launcher asks a tensor's address for its alignment only; a FakeTensor's is 0.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")

ROOT = Path(__file__).parents[1]
KERNEL = "hopper_forward_kernel"
FEW = 128  # bytes spilled: three warpgroups leave each thread 160 registers


@cache
def zoo(name: str, backend: str = "hopper") -> Compilation:
    return compile_spec(find_spec(name), backend=backend)


def launched(built: Compilation, target: str, head_dim: int, dtype: str = "bfloat16") -> dict[str, Launch]:
    found = launches(load(built.text), built.ir, TARGETS[target], head_dim, dtype)
    return {launch.kernel.__name__: launch for launch in found}


def compiled(built: Compilation, head_dim: int, dtype: str = "bfloat16") -> Binary:
    return compile_launch(launched(built, "sm_90", head_dim, dtype)[KERNEL], TARGETS["sm_90"])


def functions(text: str) -> set[str]:
    return {node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}


# ---- The module --------------------------------------------------------------------------------------------


def test_only_where_gluon_is_wanted_does_a_module_speak_it() -> None:
    assert "gluon" not in zoo("softcap", "triton").text
    assert "gluon" in zoo("softcap", "auto").text
    assert "gluon" not in zoo("swin_window_bias", "auto").text
    text = zoo("softcap").text
    assert {KERNEL, "forward_kernel", "dkdv_kernel", "dq_kernel"} <= functions(text)
    assert "compute capability 9.x" in (ast.get_docstring(ast.parse(text)) or "")


def test_beside_the_gluon_kernels_the_module_is_the_triton_one() -> None:
    both, plain = zoo("alibi").text, zoo("alibi", "triton").text
    assert functions(plain) < functions(both)
    shared = ("logits", "keeps", "key_range", "attend", "forward_kernel", "dkdv_kernel")
    for name in shared:
        assert _source(both, name) == _source(plain, name)


def _source(text: str, name: str) -> str:
    (node,) = (n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == name)
    return ast.get_source_segment(text, node) or ""


def test_modules_with_gluon_are_clean_as_rendered(tmp_path: Path) -> None:
    for name in ("full", "causal", "dropped", "packed_documents", "gpt_oss", "dense_bias", "gemma2_local"):
        (tmp_path / f"{name}.py").write_text(zoo(name).text)
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", "--output-format", "concise"]
    command = [sys.executable, "-m", "ruff", "check", *config, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_spec_takes_no_name_of_the_gluon_kernels() -> None:
    text = "variant x\nparam slot: float\ninput ring: float32[heads]\nscore = slot * score + ring[h]"
    built = compile_spec(Source(text), backend="hopper").text
    assert "slot_ * " in built and "ring_input_ptr" in built
    assert "ring_input_ptr" not in compile_spec(Source(text), backend="triton").text


def test_the_plan_says_which_back_end_and_why() -> None:
    for backend in Backend:
        text = text_of(find_spec("causal"), "plan", {}, backend)
        chosen = text[text.index("backend: Backend") :]
        name = "triton" if backend is Backend.TRITON else "hopper"
        assert f"name: {name}" in chosen
        assert "reason: a" in chosen
        assert ("HopperTile" in chosen) == (name == "hopper")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("relu_attention", "know the softmax alone, not normalize = relu"),
        ("clipped_softmax", "take no weight clause"),
        ("low_rank_bias", "take no products of rows"),
        ("block_sparse", "visit tiles by bounds, not those that a list picks"),
        ("natten_tiled", "visit tiles by bounds, not those that a list picks"),
    ],
)
def test_what_the_gluon_kernels_lack_keeps_triton_alone_and_plan_and_module_say_so(
    name: str, reason: str
) -> None:
    built = zoo(name)
    assert built.plan.backend.reason == f"Gluon's kernels for sm_90 {reason}"
    assert f"reason: {built.plan.backend.reason}" in text_of(find_spec(name), "plan", {}, Backend.HOPPER)
    said = " ".join((ast.get_docstring(ast.parse(built.text)) or "").split())
    assert f" Triton's kernels alone: {built.plan.backend.reason}. " in said
    assert functions(built.text) == functions(zoo(name, "triton").text)


@pytest.mark.compiled
@pytest.mark.parametrize(("name", "kernel"), [("causal", KERNEL), ("sliding_window", "forward_kernel")])
def test_a_head_dim_without_a_tile_keeps_tritons_forward(name: str, kernel: str) -> None:
    found = launched(compile_spec(find_spec(name)), "sm_90", 64)  # a usual call's kernels come first
    assert next(name for name in found if name in (KERNEL, "forward_kernel")) == kernel


@pytest.mark.parametrize("name", ["t5", "relative_table"])
def test_the_gluon_kernels_have_loops_of_their_own_for_far_tiles(name: str) -> None:
    words = words_of(zoo(name).text)
    for producer, consumer in (("producer", "weigh"), ("hopper_backward_kernel", "accumulate_backward")):
        assert {"apart", "near_lo"} <= words[producer]
        assert {"FAR", "far_logits", "table_far", "table_behind", "table_ahead"} <= words[consumer]


def test_only_what_costs_much_to_find_is_listed_by_distance_before() -> None:
    listed, found = words_of(zoo("t5").text), words_of(zoo("relative_table").text)
    for function in ("weigh", "accumulate_backward"):
        assert "near_at" in listed[function] and "logits" not in listed[function]
        assert "near_at" not in found[function] and "logits" in found[function]
    assert "near_kernel" in listed and "near_kernel" not in found


@pytest.mark.parametrize(
    ("index", "gains"),
    [
        ("clamp(dist, -512, 512) + 512", True),
        ("clamp(dist, -513, 512) + 513", False),  # most tiles of some thousand keys would be near
        ("max(dist, -20) + 20", False),  # no end behind
    ],
)
def test_tables_gain_by_far_tiles_where_these_are_most_of_a_call(index: str, gains: bool) -> None:
    lines = ("variant tried", "input t: float32[heads, n]", f"score = score + t[h, {index}]")
    plan = compile_spec(Source("\n".join(lines), "tried.attn")).plan
    assert plan.splits_far
    assert (plan.far_in_gluon is not None) == gains == (plan.backend.name == "hopper")


def words_of(text: str) -> dict[str, set[str]]:
    """The words of each of a module's functions."""
    nodes = (node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    return {node.name: set(re.findall(r"[A-Za-z_]\w*", ast.unparse(node))) for node in nodes}


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo_names())
def test_every_zoo_spec_is_written_clean_or_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    built = zoo(name)
    assert (KERNEL in functions(built.text)) != built.plan.backend.is_refused
    (tmp_path / "module.py").write_text(built.text)
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", "--output-format", "concise"]
    command = [sys.executable, "-m", "ruff", "check", *config, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(("name", "smaller"), [("full", False), ("dropped", True), ("dense_bias", True)])
def test_what_a_score_costs_decides_how_many_warpgroups_share_the_registers(name: str, smaller: bool) -> None:
    chosen = zoo(name).plan.backend.hopper
    assert chosen is not None
    tile = chosen.tiles[64]
    assert tile is not None
    assert (tile.parts < 3) == smaller


def test_tiles_keep_within_the_registers_of_a_multiprocessor() -> None:
    tiles = [row.tile for row in shipped().rows if isinstance(row.tile, HopperTile)]
    assert tiles
    for tile in tiles:
        threads = 128 * (tile.parts + 1)  # Triton rounds the producer's warp up to a warpgroup
        at_launch = 65536 // tile.programs // threads // 8 * 8
        first = at_launch * (tile.parts + 1) - tile.registers * (tile.parts - 1) - 24
        assert first >= tile.registers, tile  # what is left for the warpgroup that Triton calls the default


# ---- The launcher ------------------------------------------------------------------------------------------


@pytest.mark.compiled
def test_only_sm_90_and_16_bits_take_it() -> None:
    built = zoo("causal")
    of_usual_calls_first = [name for name in launched(built, "sm_90", 64) if name.endswith("forward_kernel")]
    assert of_usual_calls_first == [KERNEL, "forward_kernel"]
    assert KERNEL not in launched(built, "sm_90", 64, "float32")
    for target in ("sm_80", "sm_100", "gfx942"):
        assert KERNEL not in launched(built, target, 64)
        assert "forward_kernel" in launched(built, target, 64)


@pytest.fixture(scope="module")
def causal_module() -> ModuleType:
    return load(zoo("causal").text)


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 256),
    stride=st.integers(1, 600),
    offset=st.integers(0, 9),
    dense=st.booleans(),
)
def test_it_takes_exactly_the_strides_that_tma_addresses(
    causal_module: ModuleType, width: int, stride: int, offset: int, dense: bool
) -> None:
    stride += width
    base = torch.empty(4 * 3 * 5 * stride * 2 + offset, dtype=torch.bfloat16)[offset:]
    steps = (15 * stride, 5 * stride, stride, 1) if dense else (30 * stride, 10 * stride, 2 * stride, 2)
    x = base.as_strided((4, 3, 5, width), steps)
    aligned = stride % 8 == 0 and base.data_ptr() % 16 == 0
    assert causal_module.takes_tma(x) == (aligned and dense)


def test_calls_that_tma_cannot_address_run_the_triton_kernel(causal_module: ModuleType) -> None:
    found = []
    with FakeTensorMode():
        for width in (64, 60):
            wide = torch.empty(2, 4, 256, width, dtype=torch.bfloat16, device="cuda")
            with patch.object(causal_module, "target_of", lambda q: "sm_90"):
                found.append(causal_module.takes_hopper(wide, wide, wide, wide))
    assert found == [True, False]


# ---- The compiler ------------------------------------------------------------------------------------------


@pytest.mark.compiled
def test_the_assembler_neither_spills_nor_serialises_the_products() -> None:
    binary = compiled(zoo("gemma2_local"), 128)
    assert binary.spills == 0
    assert binary.warnings == ()
    assert binary.shared <= TARGETS["sm_90"].shared


@pytest.mark.compiled
@pytest.mark.slow
@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize("name", zoo_names())
def test_no_zoo_spec_serialises_its_products(name: str, head_dim: int) -> None:
    built = zoo(name)
    if built.plan.backend.is_refused:
        pytest.skip(built.plan.backend.reason)
    binary = compiled(built, head_dim)
    assert binary.warnings == ()
    assert binary.shared <= TARGETS["sm_90"].shared
    assert binary.spills <= (512 if "t5_bucket" in built.source.text else FEW)


@pytest.mark.compiled
@pytest.mark.slow
@pytest.mark.parametrize("score", ["1.5", "float(q) ** 2", "-float(k)"])
@pytest.mark.parametrize("backend", ["triton", "hopper"])
def test_a_score_that_is_not_of_the_product_compiles(score: str, backend: str) -> None:
    built = compile_spec(Source(f"variant x\nscore = {score}"), backend=backend)
    for launch in launched(built, "sm_90", 64).values():
        assert compile_launch(launch, TARGETS["sm_90"]).registers > 0


@pytest.mark.compiled
@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_gluon_takes_whatever_spec_is_drawn(number: int) -> None:
    """Up to its IR: layouts and shapes are settled there, and it takes a second."""
    taken = 0
    for text in fuzz_specs.block(11, number, 40):
        assert isinstance(text.spec, str)
        try:
            built = compile_spec(Source(text.spec, "x.attn"), backend="hopper")
            found = launched(built, "sm_90", 64)
        except (AttnGenError, ValueError):  # no spec, or a dropout that is no probability
            continue
        if built.plan.backend.is_refused:
            continue
        with in_triton(found[KERNEL]):
            taken += 1
    assert taken > 5


@pytest.mark.compiled
@pytest.mark.slow
@pytest.mark.parametrize(("head_dim", "v_dim"), [(192, 128), (64, 128), (128, 256), (40, 24)])
def test_any_head_dim_and_v_dim_compiles(
    causal_module: ModuleType, head_dim: int, v_dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    with FakeTensorMode():
        q, k, v, out = (
            torch.empty(2, heads, 1000, width, dtype=torch.float16, device="cuda")
            for heads, width in ((8, head_dim), (4, head_dim), (4, v_dim), (8, v_dim))
        )
        lse = torch.empty(2, 8, 1000, device="cuda")
        kernel = causal_module.hopper_forward_kernel

        def note(*arguments: Any, grid: Any, warmup: bool, **named: Any) -> None:
            options = {n: named.pop(n) for n in ("num_warps", "maxnreg")}
            bound = inspect.signature(kernel.fn).bind(*arguments, **named)
            found.append(Launch(kernel, bound.args, options))

        monkeypatch.setattr(kernel, "run", note)
        monkeypatch.setattr(torch.cuda, "device_of", lambda tensor: nullcontext())
        causal_module.launch_hopper_forward(q, k, v, out, lse)
        binary = compile_launch(found[0], TARGETS["sm_90"])
    assert binary.warnings == ()
    assert binary.spills <= FEW
    assert binary.shared <= TARGETS["sm_90"].shared


def test_auto_takes_what_was_measured_to_gain() -> None:
    names = ("full", "causal", "sliding_window", "dense_bias", "relative_table", "t5", "swin_window_bias")
    names += ("relu_attention",)
    plans = {name: compile_spec(find_spec(name)).plan.backend for name in names}
    assert {name: plan.name for name, plan in plans.items()} == {
        "full": "hopper",
        "causal": "hopper",
        "sliding_window": "hopper",
        "dense_bias": "hopper",  # in tiles
        "relative_table": "hopper",  # an address for every score, but in few tiles
        "t5": "hopper",
        "swin_window_bias": "triton",  # an address for every score
        "relu_attention": "triton",
    }
    causal, window = plans["causal"].hopper, plans["sliding_window"].hopper
    assert causal is not None and window is not None
    assert causal.tiles[32] is None and causal.tiles[64] is not None
    assert window.tiles[64] is None and window.tiles[128] is not None
