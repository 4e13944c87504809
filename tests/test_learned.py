"""Learned inputs and sinks in the kernels: every index map, every broadcast, the same bits every time."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from kernel_calls import qkv, small_tiles, variant_of
from torch import Tensor

from attngen.analysis.diagonal import NOWHERE, Reach
from attngen.analysis.simplify import simplify_ir
from attngen.ir.build import build
from attngen.plan.learned import Learned, Route, learned_inputs
from attngen.plan.products import products_of
from attngen.source import Source
from attngen.syntax.parse import parse
from attngen.testing import assert_matches_reference
from attngen.testing.tensor import Recipe
from attngen.variant import Variant

pytestmark = pytest.mark.usefixtures("one_thread")


# ---- The plan ---------------------------------------------------------------------------------------------


def plan(*lines: str) -> tuple[Learned, ...]:
    source = Source("\n".join(["variant x", *lines]) + "\n", "x.attn")
    ir = simplify_ir(build(parse(source), source))
    return learned_inputs(ir, products_of(ir))


@pytest.mark.parametrize(
    ("dims", "read", "axes"),
    [
        ("[]", "x", ()),
        ("[1]", "x[0]", ("",)),
        ("[heads]", "x[h]", ("h",)),
        ("[kv_heads, batch]", "x[h_kv, b]", ("h_kv", "b")),
        ("[batch, heads, q_len, 1]", "x[b, h, q, k]", ("b", "h", "q", "")),
    ],
)
def test_what_all_keys_of_a_query_read_is_summed_by_query(
    dims: str, read: str, axes: tuple[str, ...]
) -> None:
    (found,) = plan(f"input x: float32{dims} grad", f"score = score + {read} * dist")
    assert (found.route, found.axes) == (Route.SUMS, axes)


@pytest.mark.parametrize(
    ("dims", "read"),
    [
        ("[heads]", "x[h_kv]"),  # another size than the word's
        ("[heads]", "x[h // 2]"),
        ("[heads, 4]", "x[h, q % 4]"),
        ("[k_len]", "x[pos]"),  # may lie before the first key
        ("[batch, k_len]", "x[b, k]"),
        ("[heads, heads]", "x[h, h]"),
        ("[q_len, k_len]", "x[q, k] * x[q, q]"),
        ("[heads, 9]", "x[h, dist + k]"),
        ("[heads, 9]", "x[h, dist] * x[h, -dist]"),
    ],
)
def test_what_is_not_is_put_in_its_place(dims: str, read: str) -> None:
    (found,) = plan(f"input x: float32{dims} grad", f"score = score + {read}")
    assert found.route is Route.PLACES
    assert not found.reads_once


@pytest.mark.parametrize(
    ("dims", "read", "axes", "once"),
    [
        ("[batch, heads, q_len, k_len]", "x[b, h, q, k]", ("b", "h", "q", "k"), True),
        ("[q_len, k_len]", "x[q, k]", ("q", "k"), False),
        ("[k_len, kv_heads, q_len]", "x[k, h_kv, q]", ("k", "h_kv", "q"), False),
    ],
)
def test_an_element_for_each_pair_is_stored_by_who_owns_its_tile(
    dims: str, read: str, axes: tuple[str, ...], once: bool
) -> None:
    (found,) = plan(f"input x: float32{dims} grad", f"score = score * {read}")
    assert (found.route, found.axes, found.reads_once) == (Route.DENSE, axes, once)


def test_the_end_of_a_dimension_ends_the_reach() -> None:
    (found,) = plan("input x: float32[heads, 40] grad", "score = score + x[h, 2 * dist - 3]")
    assert found.reach == Reach(1, 21)


@pytest.mark.parametrize(
    ("index", "low", "high"),
    [
        ("clamp(dist, -128, 128) + 128", -128, 128),
        ("min(abs(dist), 8)", -8, 8),
        ("min(max(k - pos, 0), 5)", -5, 0),
        ("dist < 3 and dist > -2", -2, 3),
        ("t5_bucket(-dist, 32, 128)", -91, 91),
        ("max(dist, 0) // 64", 63, NOWHERE),
        ("abs(dist)", -NOWHERE, NOWHERE),
        ("q - k + 4", -NOWHERE, NOWHERE),
        ("2 * (k - q) + at[h]", -NOWHERE, NOWHERE),
    ],
)
def test_a_function_of_the_distance_is_summed_along_diagonals_within_its_reach(
    index: str, low: int, high: int
) -> None:
    index = index if " and " not in index else f"where({index}, 1, 0)"
    lines = "input at: int32[heads]", "input x: float32[heads, n] grad", f"score = score + x[h, {index}]"
    (found,) = plan(*lines)
    assert (found.route, found.reach) == (Route.BANDS, Reach(low, high))


def test_what_decides_only_a_mask_has_no_gradient() -> None:
    (found,) = plan("input x: float32[heads] grad", "mask = dist < x[h]", "score = score + floor(x[h])")
    assert (found.route, found.reads) == (Route.NONE, ())


@pytest.mark.parametrize(
    ("clauses", "told"),
    [
        (("sink = x[h]",), "one number for each query's sink, then torch's sum"),
        (("score = score + x[h] * dist",), "each query's sum over its keys, then torch's sum"),
        (("score = score + x[h] * dist", "sink = x[h]"), "each query's sum over its keys and its sink, then"),
        (("mask = dist < x[h]",), "nothing differentiable reads it; zeros."),
    ],
)
def test_the_header_says_what_each_query_adds_up(clauses: tuple[str, ...], told: str) -> None:
    text = variant_of("input x: float32[heads] grad", *clauses).source
    assert f"x: {told}" in " ".join(text.split('"""')[1].split())


# ---- The kernels ------------------------------------------------------------------------------------------

SPECS = {
    "scalar": ("input x: float32[] grad", "score = score * x"),
    "only element": ("input x: float32[1] grad", "score = score * x[0]", "mask = causal"),
    "head": ("input x: float32[heads] grad", "score = score - x[h] * abs(dist)", "mask = causal"),
    "other head": ("input x: float32[heads] grad", "score = score - x[heads - 1 - h] * abs(dist)"),
    "scale": ("input x: float32[heads] grad", "scale = x[h] * 0.3", "score = tanh(score)"),
    "scale by key head": ("input x: float32[batch, kv_heads] grad", "scale = x[b, h_kv]"),
    "scale and score": ("input x: float32[heads] grad", "scale = x[h]", "score = score - x[h] * dist"),
    "row": ("input x: float16[batch, heads, q_len] grad", "score = score * x[b, h, q]", "mask = dist < 5"),
    "row from the end": ("input x: float32[k_len] grad", "score = score * (1.0 + x[pos])"),
    "row bucket": ("input x: float32[5, heads] grad", "score = score * x[q // 3, h]"),
    "column": ("input x: float16[batch, kv_heads, k_len] grad", "score = score + x[b, h_kv, k]"),
    "column bucket": ("input x: float32[4] grad", "score = score * x[k % 4]", "mask = causal"),
    "distance": ("input x: float32[kv_heads, 8] grad", "score = score - x[h_kv, clamp(dist, 0, 7)]"),
    "t5": ("input x: float32[heads, 32] grad", "score = score + x[h, t5_bucket(-dist, 32, 20)]"),
    "every distance": (
        "input x: float32[heads, 40] grad",
        "score = score + x[h, abs(dist)]",
        "mask = causal",
    ),
    "offset": ("input x: float16[batch, 60] grad", "score = score + x[b, q - k + 30]"),
    "one side": (
        "input x: float32[heads, 9] grad",
        "score = score * (1.0 + x[h, clamp(dist, 0, 8)])",
        "mask = sliding_window(30)",
    ),
    "table and gate": (
        "input x: float32[heads, 32] grad",
        "input gate: float32[batch, heads, q_len] grad",
        "score = score + gate[b, h, q] * x[h, t5_bucket(-dist, 32, 20)]",
        "mask = k < 25",
    ),
    "two tables": (
        "input x: float32[5] grad",
        "input y: float32[heads, 7] grad",
        "score = softcap(score + x[clamp(dist, 0, 4)], 2.0) + y[h, abs(clamp(dist, -6, 6))]",
        "dropout = 0.2",
    ),
    "table beside a sink": (
        "input sinks: float32[heads] grad",
        "input x: float32[heads, 9] grad",
        "scale = 0.2 + 0.1 * sinks[h]",
        "score = score + x[h, clamp(dist, -4, 4) + 4]",
        "sink = sinks[h]",
        "mask = causal and (dist < 9 or k < 3)",
    ),
    "dense": ("input x: float16[batch, heads, q_len, k_len] grad", "score = score + x[b, h, q, k]"),
    "dense by key head": (
        "input x: float16[k_len, kv_heads, q_len] grad",
        "score = score * x[k, h_kv, q]",
        "mask = dist < 9",
    ),
    "dense by head": ("input x: float32[heads, q_len, k_len] grad", "score = score + 2.0 * x[h, q, k]"),
    "masked dense": (
        "input x: float32[batch, heads, q_len, k_len] grad",
        "score = softcap(score + x[b, h, q, k], 3.0)",
        "mask = sliding_window(9)",
    ),
    "twice": (
        "input x: float32[heads, 16] grad",
        "score = score + x[h, q % 16] * x[h, k % 16]",
        "mask = causal",
    ),
    "indirect": (
        "input at: int32[batch, k_len]",
        "input x: float32[n] grad",
        "score = score + x[at[b, k]]",
    ),
    "square": ("input x: float32[heads] grad", "score = score * score * x[h]", "mask = sliding_window(7)"),
    "silu": ("input x: float32[heads] grad", "score = score * sigmoid(x[h] * score)"),
    "reciprocal": ("input x: float32[heads] grad", "score = x[h] / (2.0 + sin(score))"),
    "log": ("input x: float32[heads] grad", "score = log(1.0 + exp(score)) * x[h]"),
    "chosen": (
        "input x: float32[heads] grad",
        "input y: float32[q_len, k_len] grad",
        "score = where(dist < 4, score + x[h], score * y[q, k])",
    ),
    "bounds": ("input x: float32[heads] grad", "score = max(min(score, x[h]), -x[h])"),
    "sink": ("input x: float32[heads] grad", "sink = x[h]", "mask = sliding_window(8)"),
    "sink of four": ("input x: float32[4] grad", "sink = x[h % 4]", "mask = causal"),
    "sink and score": (
        "input x: float32[heads] grad",
        "sink = x[h] * 2.0",
        "score = score + x[h] * dist * 0.01",
    ),
    "bent sink": ("input x: float32[batch, kv_heads] grad", "sink = exp(x[b, h_kv])", "mask = 0 < dist < 4"),
    "long sink": (
        "input x: float32[heads] grad",
        "input y: float32[heads] grad",
        "mask = causal",
        "sink = log(1.0 + exp(x[h])) * tanh(y[h]) + exp(tanh(x[h] * y[h]) + log(1.0 + exp(x[h])))",
    ),
    "sink and dropout": ("input x: float32[heads] grad", "sink = x[h]", "dropout = 0.3"),
    "sink of a param": (
        "param c: float = 0.7",
        "input x: float32[] grad",
        "sink = c",
        "score = score + x * k",
    ),
    "the kernels' own names": (
        "input out: float32[heads] grad",
        "input d_score: float32[q_len] grad",
        "score = score + out[h] * d_score[q] * k",
    ),
    "mask only": ("input x: float32[heads] grad", "mask = dist < 10.0 * x[h]"),
}

CALLS = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 2),
        "kv_heads": st.integers(1, 2),
        "group": st.integers(1, 2),
        "q_len": st.integers(1, 24),
        "k_len": st.integers(1, 36),
        "dtype": st.sampled_from(["float16", "float32"]),
    }
)


def inputs_of(variant: Variant, q: Tensor, k: Tensor, broadcast: int = 0) -> dict[str, Tensor]:
    """Values for each input; bit n of ``broadcast`` gives every n-th dimension the size 1."""
    words = dict(zip(("batch", "heads", "q_len"), q.shape, strict=False))
    words |= {"kv_heads": k.shape[1], "k_len": k.shape[2], "n": 7}
    made = {}
    for seed, item in enumerate(variant.ir.inputs):
        shape = [d if isinstance(d, int) else words[d] for d in item.dims]
        shape = [1 if broadcast >> axis & 1 else size for axis, size in enumerate(shape)]
        if item.dtype == "int32":
            made[item.name] = torch.randint(-2, 9, shape, dtype=torch.int32)
        else:
            made[item.name] = Recipe(tuple(shape), item.dtype, seed=70 + seed).build() * 0.5
    return made


_SLOW = {"every distance", "two tables", "table beside a sink"}
_NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in _SLOW else name for name in SPECS]


@pytest.mark.parametrize("name", _NAMES)
@settings(max_examples=3, deadline=None)
@given(call=CALLS, broadcast=st.sampled_from([0, 0, 1, 2, 4, 8, 15]))
def test_gradients_match_the_reference(name: str, call: dict[str, int], broadcast: int) -> None:
    variant = variant_of(*SPECS[name])
    group = call.pop("group")
    q, k, v = qkv(**call, heads=call["kv_heads"] * group)  # type: ignore[arg-type]
    with small_tiles(variant):
        assert_matches_reference(variant, q, k, v, **inputs_of(variant, q, k, broadcast))


@pytest.mark.parametrize(("q_len", "k_len"), [(1, 67), (1, 33), (40, 67), (67, 40), (33, 33)])
@pytest.mark.parametrize("mask", ["q >= k and q - k < 16", "pos >= k and dist < 16", "k < q_len"])
def test_tiles_that_nothing_is_visited_of_are_near_no_diagonal_either(
    mask: str, q_len: int, k_len: int
) -> None:
    """Where a loop has no tiles, it may begin within one; far and near tiles are apart all the same."""
    variant = variant_of(
        "input x: float32[heads, 32] grad", f"score = score + x[h, clamp(k - pos, 0, 31)]\nmask = {mask}"
    )
    q, k, v = qkv(q_len=q_len, k_len=k_len)
    x = Recipe((1, 32), "float32", seed=7).build().requires_grad_()
    with small_tiles(variant):
        assert_matches_reference(variant, q, k, v, x=x)


def test_a_far_tile_may_compute_with_what_it_reads_before_its_loop() -> None:
    """Found by fuzzing: what stands in for the read had blanks in its name."""
    variant = variant_of(
        "input x: float32[heads, 8] grad",
        "let near = x[h, clamp(dist, 0, 7)]",
        "score = score + near * near\nscore = clamp(score, -4.0, 4.0)",
    )
    q, k, v = qkv(q_len=40, k_len=40)
    x = Recipe((1, 8), "float32", seed=7).build().requires_grad_()
    with small_tiles(variant):
        assert_matches_reference(variant, q, k, v, x=x)


def test_query_heads_that_share_a_dense_bias_are_those_of_its_key_head() -> None:
    variant = variant_of(*SPECS["dense by key head"])
    q, k, v = qkv(batch=2, heads=4, kv_heads=2, q_len=9)
    with small_tiles(variant):
        assert_matches_reference(variant, q, k, v, **inputs_of(variant, q, k))


def test_without_keys_what_is_read_by_pairs_has_no_gradient() -> None:
    variant = variant_of(
        "input sinks: float32[heads]",
        "input x: float32[q_len, k_len] grad",
        "input y: float32[5] grad",
        "score = score + x[q, k] + y[clamp(dist, 0, 4)]",
        "sink = sinks[h]",
    )
    q, k, v = qkv(heads=2, q_len=3, k_len=0)
    x, y = torch.zeros(3, 0, requires_grad=True), torch.zeros(5, requires_grad=True)
    out = variant(q, k, v, sinks=torch.zeros(2), x=x, y=y)
    found = torch.autograd.grad(out.sum(), [x, y])
    assert [g.shape for g in found] == [(3, 0), (5,)]
    assert not found[1].any()


@pytest.mark.parametrize("name", ["table and gate", "dense by head", "twice", "column", "sink and score"])
def test_the_same_call_gives_the_same_bits(name: str) -> None:
    """Whatever the order in which programs run."""
    variant = variant_of(*SPECS[name])
    q, k, v = qkv(heads=4, kv_heads=2, q_len=50, dtype="float16")
    made = inputs_of(variant, q, k)

    def gradients() -> list[Tensor]:
        learned = {n: x.clone().requires_grad_(variant.ir.input(n).grad) for n, x in made.items()}
        out = variant(q.clone().requires_grad_(), k, v, **learned)
        wanted = [x for x in learned.values() if x.requires_grad]
        return list(torch.autograd.grad(out.float().square().sum(), wanted))

    with small_tiles(variant):
        first, second = gradients(), gradients()
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_whole_numbers_hold_tiny_and_huge_gradients_alike() -> None:
    """The unit follows the size of the parts, to the ends of float32."""
    variant = variant_of(*SPECS["distance"])
    q, k, v = qkv(heads=2, q_len=20)
    made = inputs_of(variant, q, k)
    expected = None
    for scale in (1.0, 2.0**-90, 2.0**90):
        x = made["x"].clone().requires_grad_()
        (found,) = torch.autograd.grad(variant(q, k, v, x=x), [x], torch.full(q.shape, scale))
        expected = found if expected is None else expected
        torch.testing.assert_close(found / scale, expected, rtol=1e-5, atol=1e-7)


def test_what_is_not_finite_is_not_hidden() -> None:
    variant = variant_of(*SPECS["distance"])
    q, k, v = qkv(heads=2, q_len=20)
    x = inputs_of(variant, q, k)["x"].requires_grad_()
    d_out = torch.ones(q.shape)
    d_out[0, 0, 3, 2] = float("nan")
    (found,) = torch.autograd.grad(variant(q, k, v, x=x), [x], d_out)
    assert found.isnan().any()


def test_a_sink_alone_is_all_that_a_row_without_keys_has() -> None:
    variant = variant_of("input x: float32[heads] grad", "sink = x[h]", "mask = k < 0")
    q, k, v = qkv(heads=2, q_len=3)
    x = torch.tensor([0.5, -2.0]).requires_grad_()
    out, lse = variant(q, k, v, x=x, return_lse=True)
    assert torch.equal(out, torch.zeros_like(out))
    torch.testing.assert_close(lse, x.detach()[None, :, None].expand(1, 2, 3))
    (found,) = torch.autograd.grad([lse], [x], [torch.ones_like(lse)])
    torch.testing.assert_close(found, torch.full((2,), 3.0))


def test_a_sink_of_minus_infinity_is_none() -> None:
    sunk = variant_of("input x: float32[heads]", "sink = x[h]", "mask = 0 < dist")
    without = variant_of("mask = 0 < dist")
    q, k, v = qkv(heads=2, q_len=20)
    x = torch.full((2,), float("-inf"))
    for one, two in zip(sunk(q, k, v, x=x, return_lse=True), without(q, k, v, return_lse=True), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("through_operators", [True, False])
def test_gradients_with_nothing_to_add_share_no_memory(
    through_operators: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = variant_of(
        "input a: float32[batch, heads, q_len] grad",
        "input c: float32[batch, heads, q_len] grad",
        "score = score * a[b, h, q] - c[b, h, q] * abs(dist)",
    )
    if through_operators:
        monkeypatch.setattr(variant.module, "is_plain", lambda *tensors: False)
    q, k, v = qkv(batch=2, heads=2, q_len=9)
    named = {name: torch.randn(2, 2, 9) for name in "ac"}
    assert_matches_reference(variant, q, k, v, **named)
    leaves = [x.requires_grad_() for x in named.values()]
    one, two = torch.autograd.grad(variant(q, k, v, **named).sum(), leaves)
    assert one.is_contiguous() and one.untyped_storage().nbytes() == 4 * one.numel()
    assert one.untyped_storage().data_ptr() != two.untyped_storage().data_ptr()


def test_a_gradient_that_nobody_wants_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = variant_of(*SPECS["t5"])
    q, k, v = qkv(heads=2, q_len=20)
    x = inputs_of(variant, q, k)["x"]

    def forbidden(*_: object) -> None:
        raise AssertionError("gathered")

    monkeypatch.setattr(variant._module, "gather_learned", forbidden)
    leaf = q.clone().requires_grad_()
    torch.autograd.grad(variant(leaf, k, v, x=x).sum(), [leaf])
    with pytest.raises(AssertionError, match="gathered"):
        torch.autograd.grad(variant(leaf, k, v, x=x.requires_grad_()).sum(), [x])
