"""The fused backward for sm_90, without a GPU: what is emitted, what is launched, what ptxas makes of it."""

from __future__ import annotations

import ast

import pytest
import torch

from attngen.compile_check.binary import compile_launch
from attngen.compile_check.launches import launches
from attngen.compile_check.module import load
from attngen.pipeline import Compilation, compile_spec
from attngen.plan.tiles import TARGETS
from attngen.source import Source
from attngen.spec_file import find_spec
from attngen.testing import assert_matches_reference
from attngen.variant import build_variant

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")


def built(*lines: str) -> Compilation:
    return compile_spec(Source("\n".join(["variant tried", *lines]), "tried.attn"), backend="hopper")


def launched(compilation: Compilation, head_dim: int, dtype: str) -> list[str]:
    """The names of the kernels of a forward and its backwards on sm_90."""
    found = launches(load(compilation.text), compilation.ir, TARGETS["sm_90"], head_dim, dtype)
    return [launch.kernel.__name__ for launch in found]


@pytest.mark.parametrize("name", ["causal", "dropped", "packed_documents", "t5"])
def test_the_fused_backward_stands_beside_the_two_kernels_only_where_hopper_is_asked_for(name: str) -> None:
    with_it, without = (compile_spec(find_spec(name), backend=b).text for b in ("hopper", "triton"))
    assert "def hopper_backward_kernel(" in with_it
    assert "def dkdv_kernel(" in with_it and "def dq_kernel(" in with_it
    assert "gluon" not in without


@pytest.mark.parametrize(
    ("lines", "seed"),
    [
        ([], "-0.6931471805599453 / scale"),
        (
            ["input slopes: float32[heads]", "score = score - slopes[h] * abs(dist)"],
            "-0.6931471805599453 / scale",
        ),
        (["scale = 1.0"], "-0.6931471805599453"),
        (["scale = 0.125"], "-0.6931471805599453 / 0.125"),
        (["scale = -1.0"], ""),  # the score of a row that kept nothing must become -inf
        (["param t: float", "scale = t"], ""),
        (["score = 30.0 * tanh(score / 30.0)"], ""),
        (["score = 2.0 * score"], ""),
    ],
)
def test_the_product_starts_at_the_log_sum_exp_only_where_the_score_is_linear_in_it(
    lines: list[str], seed: str
) -> None:
    compilation = built(*lines)
    found = [line.split("= ")[1] for line in compilation.text.split("\n") if "    per_lse2 = " in line]
    assert [text.split("  #")[0] for text in found] == (
        [seed] * 2 if seed else []
    )  # the wide heads' is the second


@pytest.mark.compiled
def test_the_launcher_runs_the_fused_backward_unless_deterministic() -> None:
    compilation = built("input bias: float32[heads, q_len, k_len] grad", "score = score + bias[h, q, k]")
    found = launches(load(compilation.text), compilation.ir, TARGETS["sm_90"], 128, "bfloat16")
    names = [launch.kernel.__name__.removesuffix("_kernel") for launch in found]
    assert names.index("dq") < names.index("hopper_backward") < names.index("finish_dq")


@pytest.mark.compiled
@pytest.mark.parametrize(("head_dim", "dtype"), [(256, "float32"), (128, "float32"), (100, "bfloat16")])
def test_what_no_backward_for_sm_90_can_take_goes_to_the_two_kernels(head_dim: int, dtype: str) -> None:
    names = launched(built(), head_dim, dtype)
    assert {"dkdv_kernel", "dq_kernel"} < set(names)
    assert not [name for name in names if name.startswith("hopper") and "forward" not in name]


@pytest.mark.compiled
@pytest.mark.parametrize("head_dim", [136, 192, 256])
def test_wide_heads_take_a_kernel_for_each_gradient_even_when_deterministic(head_dim: int) -> None:
    names = launched(built(), head_dim, "bfloat16")
    wide = ["hopper_wide_dkdv_kernel"] * 2 + ["hopper_wide_dq_kernel"]
    assert names[names.index(wide[0]) :] == [*wide, "dkdv_kernel", "dq_kernel"]  # the last of expanded keys
    assert "hopper_backward_kernel" not in names


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("lines", "wide"),
    [
        # A learned input's gradient comes with dQ of Triton's; a call without it is launched, too.
        (["input gate: float32[heads] grad", "score = score * gate[h]"], True),
        # Rows of 256 leave no room for tiles of an input, nor registers for an address for every score.
        (["input bias: bfloat16[heads, q_len, k_len]", "score = score + bias[h, q, k]"], False),
        (["input table: float32[heads, 9]", "score = score + table[h, clamp(dist, 0, 8)]"], False),
    ],
)
def test_wide_heads_have_kernels_of_their_own_unless_scores_read_an_input_each_at_its_place(
    lines: list[str], wide: bool
) -> None:
    compilation = built(*lines)
    assert compilation.plan.backend.hopper is not None
    assert compilation.plan.backend.hopper.wide_backward == wide
    names = launched(compilation, 256, "bfloat16")
    assert "dq_kernel" in names
    assert ("hopper_wide_dq_kernel" in names) == wide


SLOPES = ("input slopes: float32[heads] grad", "score = score - slopes[h] * abs(dist)")
TABLE = ("input table: float32[heads, 9] grad", "score = score + table[h, clamp(dist, -4, 4) + 4]")
SINK = ("input sinks: float32[heads] grad", "sink = sinks[h]")


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("lines", "kernels"),
    [
        (SLOPES, {"hopper_backward_kernel"}),
        (SINK, {"hopper_backward_kernel", "sink_sums_kernel"}),
        ((*SLOPES, *SINK), {"hopper_backward_kernel", "sink_sums_kernel"}),
        (TABLE, {"hopper_backward_kernel", "band_kernel", "spread_table"}),
        ((*TABLE, *SINK), {"hopper_backward_kernel", "band_kernel", "spread_table", "sink_sums_kernel"}),
    ],
    ids=["slopes", "sink", "slopes and sink", "table", "table and sink"],
)
def test_the_fused_backward_gives_the_gradients_of_what_heads_and_sinks_read(
    lines: tuple[str, ...], kernels: set[str]
) -> None:
    compilation = built(*lines)
    assert "        if not deterministic and takes_hopper_backward(" in compilation.text
    assert kernels <= set(launched(compilation, 128, "bfloat16"))


@pytest.mark.compiled
def test_beside_64_columns_learned_sums_of_every_score_are_left_to_two_kernels() -> None:
    assert "sink_sums_kernel" not in launched(built(*SLOPES, *SINK), 64, "bfloat16")
    assert "sink_sums_kernel" in launched(built(*TABLE, *SINK), 64, "bfloat16")


@pytest.mark.parametrize(
    "lines",
    [
        (
            "input heat: float32[heads] grad",
            "score = score * heat[h]",
        ),  # its derivative is the product itself
        ("input x: float32[heads, q_len] grad", "score = score + x[h, q]"),
        ("input x: float32[heads, k_len] grad", "score = score + x[h, k]"),
        ("input x: float32[heads] grad", "score = score + x[h] * sin(cos(exp(log(2.0 + abs(dist)))))"),
        ("input x: float32[heads] grad", "score = score + x[h]", "sink = x[h]"),
        # One sum by key and one by query are of different lengths.
        ("input x: float32[1, heads] grad", "score = score + x[0, h]", "sink = x[b, h]"),
        ("input x: float32[heads, k_len] grad", "score = score + x[h, abs(dist)]"),  # a reach without end
    ],
)
def test_learned_inputs_that_take_more_registers_leave_the_backward_to_two_kernels(
    lines: tuple[str, ...],
) -> None:
    text = built(*lines).text
    assert "        if not deterministic and not learned and takes_hopper_backward(" in text
    assert "KeySums" not in text and "sink_sums_kernel" not in text


def test_wide_heads_have_the_gradient_of_a_sink_but_not_of_what_scores_read() -> None:
    assert "        if takes_wide_backward(" in built(*SINK).text
    assert "        if not learned and takes_wide_backward(" in built(*SLOPES).text
    assert "        if not learned and takes_wide_backward(" in built(*SLOPES, *SINK).text


@pytest.mark.compiled
def test_other_gpus_never_see_it() -> None:
    compilation = built()
    for target in TARGETS.keys() - {"sm_90"}:
        found = launches(load(compilation.text), compilation.ir, TARGETS[target], 128, "bfloat16")
        assert not [x for x in found if "hopper" in x.kernel.__name__]


def test_on_the_cpu_the_same_module_runs_its_triton_kernels_whatever_deterministic_says() -> None:
    variant = build_variant(find_spec("causal"), overrides={}, backend="hopper")
    q, k, v = (torch.randn(1, 2, 20, 16, dtype=torch.float16, requires_grad=True) for _ in range(3))
    assert_matches_reference(variant, q, k, v)
    wanted, *others = (
        torch.autograd.grad(variant(q, k, v, return_lse=True, deterministic=flag)[0].sum(), (q, k, v))
        for flag in (None, True, False)
    )
    for found in others:
        assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))


@pytest.mark.slow
def test_opcheck_finds_no_fault_with_the_flag_that_its_operators_take() -> None:
    variant = build_variant(find_spec("causal"), overrides={}, backend="hopper")
    q, k, v = (torch.randn(1, 2, 20, 16, dtype=torch.float16, requires_grad=True) for _ in range(3))
    for deterministic in (True, False):
        torch.library.opcheck(variant.module.forward_operator, (q, k, v, deterministic))


# A spill in the loop, or a wgmma that ptxas makes wait for the one before, costs a third of the speed.
@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("name", ["causal", "full", "softcap", "gemma2_local", "sliding_window"])
def test_the_fused_backward_spills_nothing_and_no_product_waits_for_another(name: str) -> None:
    compilation = compile_spec(find_spec(name), backend="hopper")
    found = launches(load(compilation.text), compilation.ir, TARGETS["sm_90"], 128, "bfloat16")
    fused = next(launch for launch in found if launch.kernel.__name__ == "hopper_backward_kernel")
    binary = compile_launch(fused, TARGETS["sm_90"])
    assert (binary.spills, binary.warnings) == (0, ())
    assert binary.shared <= TARGETS["sm_90"].shared


@pytest.mark.parametrize(("name", "auto"), [("causal", True), ("softcap", True), ("kerple_log", False)])
def test_auto_leaves_wide_heads_with_heavy_scores_to_triton(name: str, auto: bool) -> None:
    asked, chosen = (compile_spec(find_spec(name), backend=b) for b in ("hopper", "auto"))
    assert "def hopper_wide_dq_kernel(" in asked.text
    assert ("def hopper_wide_dq_kernel(" in chosen.text) == auto
    assert ("wide heads" in chosen.text) == auto  # nor do the module's own words speak of them


# What they spill lies before the producer's loop, and in the steps of gemma2_local that a mask cuts.
@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("name", ["causal", "full", "softcap", "gemma2_local", "sliding_window", "dropped"])
def test_of_wide_heads_no_product_waits_for_another_and_hardly_a_register_is_spilled(name: str) -> None:
    compilation = compile_spec(find_spec(name), backend="hopper")
    found = launches(load(compilation.text), compilation.ir, TARGETS["sm_90"], 256, "bfloat16")
    wide = [launch for launch in found if "wide" in launch.kernel.__name__]
    assert len(wide) == 3
    for launch in wide:
        binary = compile_launch(launch, TARGETS["sm_90"])
        assert binary.warnings == ()
        assert binary.spills <= 192
        assert binary.shared <= TARGETS["sm_90"].shared


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize(
    "lines",
    [
        ["input window: int32[heads]", "mask = 0 <= dist < window[h]"],
        [
            "input doc: int32[heads, k_len] sorted",
            "mask = doc[h, q] == doc[h, k]",
        ],  # searched by one warp, too
    ],
)
def test_bounds_that_differ_from_head_to_head_are_found_where_the_tiles_are_loaded(lines: list[str]) -> None:
    compilation = built(*lines)
    found = launches(load(compilation.text), compilation.ir, TARGETS["sm_90"], 128, "bfloat16")
    fused = next(launch for launch in found if launch.kernel.__name__ == "hopper_backward_kernel")
    assert compile_launch(fused, TARGETS["sm_90"]).warnings == ()


# ---- What the first warps hand over ------------------------------------------------------------------------


def _reached(text: str) -> dict[str, list[str]]:
    """For each kernel that specialises its warps, the functions its own lines call, those they call at once
    unfolded, in order; what ``warp_specialize`` is given comes after."""
    tree = {n.name: n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef)}

    def calls(node: ast.AST, seen: tuple[str, ...] = ()) -> list[str]:
        found: list[str] = []
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                name = ast.unparse(child.func)
                if name == "gl.warp_specialize":
                    found.append(name)
                    continue
                found += calls(child, seen)
                found.append(name)
                if name in tree and name not in seen:
                    found += calls(tree[name], (*seen, name))
            else:
                found += calls(child, seen)
        return found

    every = {name: calls(node) for name, node in tree.items() if name.endswith("_kernel")}
    return {name: found for name, found in every.items() if "gl.warp_specialize" in found}


@pytest.mark.parametrize("name", ["packed_documents", "shared_prefix", "alibi_documents", "causal"])
def test_between_a_search_by_all_warps_and_what_they_hand_over_they_meet(name: str) -> None:
    # A sum over warps goes through shared memory. Triton 3.6 puts the arguments of warp_specialize in the
    # same place, no barrier between: warps that had not read the sum yet found those. (racecheck saw it.)
    kernels = _reached(compile_spec(find_spec(name), backend="hopper").text)
    assert {"hopper_forward_kernel", "hopper_backward_kernel", "hopper_wide_dq_kernel"} <= set(kernels)
    for kernel, calls in kernels.items():
        before = calls[: calls.index("gl.warp_specialize")]
        if "hopper_search" in before:
            assert "meet" in before[len(before) - before[::-1].index("hopper_search") :], kernel
        else:
            assert "meet" not in before, kernel  # a barrier for nothing
    searching = {k for k, calls in kernels.items() if "hopper_search" in calls}
    assert bool(searching) == (name != "causal")
