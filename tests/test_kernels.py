"""The emitted kernels, in Triton's interpreter, against the reference: shapes, strides, gradients, dropout.

What a spec can say is tested in test_kernel_language.py; what a call may not be in test_calls.py.
"""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import pytest
import torch
from kernel_calls import gradients, judge, qkv, same_bits, small_tiles, variant_of
from torch import Tensor

from attngen.dropout_bits import kept
from attngen.testing import assert_matches_reference
from attngen.testing.tensor import STRIDES, Recipe
from attngen.variant import Variant

pytestmark = pytest.mark.usefixtures("one_thread")

INF = float("inf")
DROPPED = ("param p: float", "score = softcap(score, 3.0)", "mask = causal", "dropout = p")


def biased() -> Variant:
    """A bit of everything: a bias of each head's own, a softcap, a window on both sides."""
    return variant_of(
        "input slopes: float32[heads]",
        "score = softcap(score, 5.0) - slopes[h] * abs(dist)",
        "mask = -3 <= dist < 90",
    )


def slopes(heads: int = 1) -> dict[str, Tensor]:
    return {"slopes": torch.linspace(0.1, 0.02, heads)}


# ---- Sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("q_len", "k_len"), [(1, 1), (1, 33), (33, 1), (2, 128), (129, 3), (127, 129), (128, 128), (129, 127)]
)
def test_lengths_that_divide_nothing(q_len: int, k_len: int) -> None:
    dtype = "float16" if q_len % 2 else "float32"
    judge(biased(), q_len=q_len, k_len=k_len, dtype=dtype, call=slopes())


@pytest.mark.parametrize(("q_len", "k_len"), [(16, 32), (33, 31), (70, 20), (20, 70)])
def test_several_small_tiles_along_each_side(q_len: int, k_len: int) -> None:
    with small_tiles(biased()), small_tiles(variant_of(*DROPPED)):
        judge(biased(), q_len=q_len, k_len=k_len, dtype="float16", call=slopes())
        judge(variant_of(*DROPPED), q_len=q_len, k_len=k_len, call={"p": 0.3, "seed": 5})


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("q_len", "k_len"), [(255, 257), (257, 255), (300, 20), (20, 300), (384, 384)])
def test_several_tiles_along_each_side(q_len: int, k_len: int, dtype: str) -> None:
    judge(biased(), q_len=q_len, k_len=k_len, dtype=dtype, call=slopes())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("batch", "q_len", "k_len"), [(1, 0, 5), (1, 5, 0), (1, 0, 0), (0, 5, 5), (0, 0, 0), (2, 7, 0)]
)
def test_nothing_to_attend_to_gives_zeros(batch: int, q_len: int, k_len: int, dtype: torch.dtype) -> None:
    q = torch.randn(batch, 2, q_len, 16, dtype=dtype, requires_grad=True)
    k = torch.randn(batch, 1, k_len, 16, dtype=dtype, requires_grad=True)
    v = torch.randn(batch, 1, k_len, 24, dtype=dtype, requires_grad=True)
    out, lse = biased()(q, k, v, return_lse=True, **slopes(2))
    assert torch.equal(out, torch.zeros(batch, 2, q_len, 24, dtype=dtype))
    assert torch.equal(lse, torch.full((batch, 2, q_len), -INF))
    for x, dx in zip((q, k, v), torch.autograd.grad(out.sum(), (q, k, v)), strict=True):
        assert torch.equal(dx, torch.zeros_like(x))


@pytest.mark.parametrize("head_dim", [1, 16, 24, 80, 256])
def test_any_head_dim(head_dim: int) -> None:
    dtype = "float32" if head_dim % 16 else "float16"
    judge(biased(), q_len=9, head_dim=head_dim, dtype=dtype, call=slopes())


@pytest.mark.parametrize(
    ("head_dim", "v_dim", "dtype"),
    [(16, 40, "float16"), (40, 16, "float32"), (24, 1, "float16"), (3, 130, "float32")],
)
def test_values_of_another_dim_than_the_keys(head_dim: int, v_dim: int, dtype: str) -> None:
    judge(biased(), q_len=9, head_dim=head_dim, v_dim=v_dim, dtype=dtype, call=slopes())


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 1), (8, 2), (3, 3)])
def test_grouped_query_heads_of_any_ratio(heads: int, kv_heads: int) -> None:
    judge(biased(), heads=heads, kv_heads=kv_heads, q_len=6, k_len=8, call=slopes(heads))


def test_the_batch_is_independent() -> None:
    judge(biased(), batch=3, heads=2, q_len=6, call=slopes(2))
    q, k, v = qkv(batch=3, heads=2, q_len=6)
    order = torch.tensor([2, 0, 1])
    whole = biased()(q, k, v, **slopes(2))
    assert torch.equal(biased()(q[order], k[order], v[order], **slopes(2)), whole[order])


# ---- Memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize(("layout", "dtype"), [("bhsd", "float16"), ("bshd", "float32")])
def test_strides_change_nothing(strides: str, layout: str, dtype: str) -> None:
    """Neither those of q, k and v nor those of dO; what lies between the elements is NaN."""
    sizes = {"batch": 2, "q_len": 5, "k_len": 9, "v_dim": 24, "dtype": dtype, "layout": layout}
    q, k, v = qkv(**sizes, strides=strides)  # type: ignore[arg-type]
    dout = Recipe((*q.shape[:3], 24), dtype, strides, seed=5).build()
    assert_matches_reference(biased(), q, k, v, dout=dout, layout=layout, **slopes())


def test_the_layout_is_only_a_transposition() -> None:
    q, k, v = qkv(batch=2, heads=2, kv_heads=1, q_len=7, k_len=9)
    want = gradients(biased(), q, k, v, **slopes(2))
    swapped = [x.transpose(1, 2).contiguous().requires_grad_() for x in (q, k, v)]
    out, lse = biased()(*swapped, return_lse=True, layout="bshd", **slopes(2))
    assert out.shape == (2, 7, 2, 16)
    assert out.is_contiguous()
    assert torch.equal(out.transpose(1, 2), want[0])
    assert torch.equal(lse, want[1])
    d_out = Recipe((2, 2, 7, 16), seed=7).build().transpose(1, 2)
    d_lse = Recipe((2, 2, 7), seed=8).build()
    for dx, expected in zip(torch.autograd.grad([out, lse], swapped, [d_out, d_lse]), want[2:], strict=True):
        assert torch.equal(dx.transpose(1, 2), expected)


@pytest.mark.parametrize("rows_outside", list(itertools.product((False, True), repeat=3)))
def test_results_lie_in_memory_as_q_k_and_v_do(rows_outside: tuple[bool, ...]) -> None:
    """So that a model that splits its heads off as views merges them by a view."""
    leaves = [
        (x.transpose(1, 2).contiguous().transpose(1, 2) if swapped else x).requires_grad_()
        for x, swapped in zip(qkv(heads=2, kv_heads=2, q_len=5, k_len=7), rows_outside, strict=True)
    ]
    out = biased()(*leaves, **slopes(2))
    assert isinstance(out, Tensor) and out.stride() == leaves[0].stride()
    for x, gradient in zip(leaves, torch.autograd.grad(out.sum(), leaves), strict=True):
        assert gradient.stride() == x.stride()


def test_strides_of_dimensions_of_size_1_are_ignored() -> None:
    q, k, v = qkv(q_len=5)
    want = gradients(biased(), q, k, v, **slopes())
    odd = [torch.as_strided(x.contiguous(), x.shape, (3, 7, 16, 1)) for x in (q, k, v)]
    leaves = [x.detach().requires_grad_() for x in odd]
    assert leaves[0].stride() == (3, 7, 16, 1)
    out, lse = biased()(*leaves, return_lse=True, **slopes())
    assert torch.equal(out, want[0])
    cotangents = [Recipe(tuple(out.shape), seed=7).build(), Recipe(tuple(lse.shape), seed=8).build()]
    assert same_bits(torch.autograd.grad([out, lse], leaves, cotangents), want[2:])


def test_a_head_dim_of_1_may_have_any_stride() -> None:
    wide = torch.randn(3, 1, 1, 5, 4)
    q, k, v = (x[..., :1] for x in wide)
    assert_matches_reference(biased(), q, k, v, **slopes())


def test_overlapping_rows_are_read_as_they_stand() -> None:
    rows = torch.randn(60)
    q, k, v = (rows[n:].as_strided((1, 1, 5, 16), (0, 3, 2, 1)) for n in range(3))
    torch.testing.assert_close(
        biased()(q, k, v, **slopes()), biased()(q.clone(), k.clone(), v.clone(), **slopes()), rtol=0, atol=0
    )


def test_the_gradient_of_a_sum_comes_expanded() -> None:
    leaves = [x.requires_grad_() for x in qkv(q_len=6)]
    got = torch.autograd.grad(biased()(*leaves, **slopes()).sum(), leaves)
    want = torch.autograd.grad(biased().reference(*leaves, **slopes()).sum(), leaves)  # type: ignore[union-attr]
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_the_log_sum_exps_sum_comes_expanded_too() -> None:
    leaves = [x.requires_grad_() for x in qkv(q_len=6)]
    lse = biased()(*leaves, return_lse=True, **slopes())[1]
    want_lse = biased().reference(*leaves, return_lse=True, **slopes())[1]
    got = torch.autograd.grad(lse.sum(), leaves[:2])
    want = torch.autograd.grad(want_lse.sum(), leaves[:2])
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_every_element_is_written() -> None:
    """With what torch leaves uninitialised filled with NaN, no result holds one."""
    torch.use_deterministic_algorithms(True)  # fills new memory with NaN
    try:
        assert torch.empty(3).isnan().all()
        assert torch.empty(1).new_empty(3).isnan().all()
        for layout in ("bhsd", "bshd"):
            judge(biased(), q_len=130, k_len=5, head_dim=24, layout=layout, call=slopes())
        judge(variant_of("mask = False"), q_len=5, k_len=7)
    finally:
        torch.use_deterministic_algorithms(False)


def test_nothing_is_read_outside_a_tiles_range() -> None:
    """With causal tiles of 128, the first 128 rows never touch the keys, values and queries beyond."""
    causal = variant_of("mask = causal")
    q, k, v = qkv(q_len=140)
    want = causal(q, k, v)[..., :128, :]
    for x in (q, k, v):
        x[..., 128:, :] = float("nan")
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = causal(*leaves)
    assert torch.equal(out[..., :128, :], want)
    d_out = torch.zeros_like(out)
    d_out[..., :128, :] = 1.0
    dq = torch.autograd.grad(out, leaves[0], d_out)[0]
    assert dq[..., :128, :].isfinite().all()


# ---- Gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [(), ("score = tanh(score)", "mask = causal"), ("dropout = 0.3",)])
def test_the_gradient_through_the_log_sum_exp_alone_leaves_v_at_exactly_0(lines: tuple[str, ...]) -> None:
    variant = variant_of(*lines)
    q, k, v = qkv(q_len=6, k_len=9)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    lse = variant(*leaves, return_lse=True, seed=1)[1]
    weights = torch.rand(lse.shape)
    dq, dk, dv = torch.autograd.grad(lse, leaves, weights)
    assert torch.equal(dv, torch.zeros_like(v))
    want = variant.reference(*leaves, return_lse=True, seed=1)[1]
    for x, y in zip((dq, dk), torch.autograd.grad(want, leaves[:2], weights.double()), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_a_log_sum_exp_that_nobody_uses_changes_no_bit() -> None:
    q, k, v = qkv(q_len=6)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    alone = biased()(*leaves, **slopes())
    beside, lse = biased()(*leaves, return_lse=True, **slopes())
    assert torch.equal(alone, beside)
    assert lse.dtype == torch.float32
    d_out = torch.randn_like(alone)
    expected = torch.autograd.grad(alone, leaves, d_out)
    assert same_bits(torch.autograd.grad(beside, leaves, d_out), expected)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_any_of_q_k_v_may_want_its_gradient(wanted: tuple[int, ...]) -> None:
    q, k, v = qkv(q_len=6)
    d_out = torch.randn(1, 1, 6, 16)
    every = [x.clone().requires_grad_() for x in (q, k, v)]
    want = torch.autograd.grad(biased()(*every, **slopes()), every, d_out)
    some = [x.clone().requires_grad_(n in wanted) for n, x in enumerate((q, k, v))]
    biased()(*some, **slopes()).backward(d_out)
    for n, x in enumerate(some):
        assert (x.grad is not None) == (n in wanted)
        assert x.grad is None or torch.equal(x.grad, want[n])


def test_nothing_is_recorded_where_no_gradient_is_wanted() -> None:
    q, k, v = qkv(q_len=6)
    want = biased()(q, k, v, **slopes())
    assert not want.requires_grad
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    with torch.no_grad():
        out = biased()(*leaves, **slopes())
    assert not out.requires_grad
    assert torch.equal(out, want)
    with torch.inference_mode():
        inside = biased()(*(x + 0 for x in leaves), **slopes())
    assert inside.is_inference()
    assert torch.equal(inside, want)


def test_a_gradient_of_a_gradient_is_refused() -> None:
    leaves = [x.requires_grad_() for x in qkv(q_len=4)]
    out = biased()(*leaves, **slopes())
    dq = torch.autograd.grad(out.sum(), leaves[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="backward"):
        dq.sum().backward()


def test_a_second_backward_says_that_the_graph_is_gone() -> None:
    leaves = [x.requires_grad_() for x in qkv(q_len=4)]
    loss = biased()(*leaves, **slopes()).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_a_kept_graph_gives_the_same_gradients_again() -> None:
    leaves = [x.requires_grad_() for x in qkv(q_len=4)]
    loss = (biased()(*leaves, **slopes()) ** 2).sum()
    once = torch.autograd.grad(loss, leaves, retain_graph=True)
    assert same_bits(torch.autograd.grad(loss, leaves), once)


def test_forward_mode_differentiation_is_refused_not_zero() -> None:
    q, k, v = qkv(q_len=4)
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda x: biased()(x, k, v, **slopes()), (q,), (torch.ones_like(q),))


def test_the_same_call_gives_the_same_bits() -> None:
    q, k, v = qkv(q_len=30, k_len=40, dtype="float16")
    assert same_bits(gradients(biased(), q, k, v, **slopes()), gradients(biased(), q, k, v, **slopes()))


# ---- Rows that keep nothing, and scores that are not finite ----------------------------------------------


@pytest.mark.parametrize(
    "mask", ["False", "k < 0", "causal and q_len > k_len + 100", "q % 3 == 0", "k < q - 3", "dist > 4"]
)
def test_rows_that_keep_nothing_give_zeros(mask: str) -> None:
    variant = variant_of(f"mask = {mask}")
    judge(variant, q_len=12, k_len=9)
    q, k, v = qkv(q_len=12, k_len=9)
    out, lse = variant(q, k, v, return_lse=True)
    want = variant.reference(q, k, v, return_lse=True)[1]
    assert (want == -INF).any()
    assert torch.equal(lse == -INF, want == -INF)
    assert torch.equal(out[lse == -INF], torch.zeros_like(out[lse == -INF]))


def test_more_queries_than_keys_leave_the_first_rows_empty() -> None:
    judge(variant_of("mask = causal"), q_len=140, k_len=8)
    judge(variant_of("mask = causal"), q_len=12, k_len=5, dtype="float16")


@pytest.mark.parametrize(
    "score",
    [
        "score / where(causal, 1.0, 0.0)",
        "score * where(causal, 1.0, inf)",
        "score + log(float(dist) + 0.5)",
        "tanh(score) * log(float(dist) + 0.5)",
        "where(causal, score, inf)",
        "where(causal, score, score * log(float(dist)))",
        "exp(score * where(causal, 0.5, 1e30))",
        "sqrt(where(causal, 1.0, -1.0)) * score",
    ],
)
def test_scores_that_are_not_finite_change_nothing_where_they_are_masked(score: str) -> None:
    judge(variant_of(f"score = {score}", "mask = causal"), q_len=9, k_len=11)


def test_a_score_of_minus_infinity_counts_as_masked() -> None:
    judge(variant_of("score = where(causal, score, -inf)"), q_len=9, k_len=7)
    judge(variant_of("score = score + where(k == q, -inf, 0.0)", "mask = causal"), q_len=9, k_len=7)
    judge(variant_of("score = score + log(float(k))", "mask = k < 4"), q_len=9, k_len=7)


@pytest.mark.parametrize("score", ["score + bias[b, h, q, k]", "tanh(score) + bias[b, h, q, k]"])
def test_a_bias_of_minus_infinity_counts_as_masked(score: str) -> None:
    bias = torch.randn(1, 2, 9, 9)
    bias[0, 0, 3] = -INF  # a whole row
    bias[0, 1, :, 5] = -INF  # a whole column
    bias[0, 1, 4, 6:] = -INF
    judge(
        variant_of("input bias: float32[batch, heads, q_len, k_len]", f"score = {score}"),
        heads=2,
        q_len=9,
        call={"bias": bias},
    )


BIASED = ("input bias: float32[batch, heads, q_len, k_len]", "score = score + bias[b, h, q, k]")


def test_a_bias_of_the_least_float32_counts_as_masked() -> None:
    """docs/language.md: scores are held in base 2, where it has no finite neighbour."""
    least = torch.finfo(torch.float32).min
    q, k, v = qkv(heads=1, q_len=3, k_len=20)
    bias = torch.zeros(1, 1, 3, 20)
    bias[0, 0, 1], bias[0, 0, 2, 5:] = least, least
    out, lse = variant_of(*BIASED)(q, k, v, bias=bias, return_lse=True)
    assert not out[0, 0, 1].any() and lse[0, 0, 1] == -INF
    alone, _ = variant_of("mask = k < 5")(q, k, v, return_lse=True)
    torch.testing.assert_close(out[0, 0, 2], alone[0, 0, 2])


def test_a_row_of_hugely_negative_scores_has_its_gradients_in_float32() -> None:
    bias = torch.zeros(1, 2, 9, 40)
    bias[0, 0, 3] = -1e9
    judge(variant_of(*BIASED), heads=2, q_len=9, k_len=40, dtype="float32", call={"bias": bias})


def test_a_masked_key_may_be_nan_in_the_forward() -> None:
    q, k, v = qkv(q_len=9, k_len=40)
    spoilt = k.clone()
    spoilt[:, :, 20:] = float("nan")
    masked = variant_of("mask = k < 20")
    assert same_bits(gradients(masked, q, spoilt, v)[:2], gradients(masked, q, k, v)[:2])


def test_large_scores_do_not_overflow() -> None:
    q = torch.full((1, 1, 4, 256), 16.0, dtype=torch.float16)  # a product of 65,536, twice float16's largest
    out, lse = variant_of("scale = 1.0")(q, q, q, return_lse=True)
    torch.testing.assert_close(out, q)
    torch.testing.assert_close(lse, torch.full((1, 1, 4), 65536.0 + 1.3863))


def test_a_number_added_to_every_score_changes_only_the_log_sum_exp() -> None:
    q, k, v = qkv(q_len=9)
    out, lse = variant_of("mask = causal")(q, k, v, return_lse=True)
    shifted, more = variant_of("score = score + 3.0", "mask = causal")(q, k, v, return_lse=True)
    torch.testing.assert_close(shifted, out)
    torch.testing.assert_close(more, lse + 3.0)


# ---- Dropout ----------------------------------------------------------------------------------------------


def test_dropout_of_0_equals_no_dropout_to_the_bit() -> None:
    q, k, v = qkv(q_len=9, k_len=12)
    dropped, plain = variant_of(*DROPPED), variant_of("score = softcap(score, 3.0)", "mask = causal")
    assert same_bits(gradients(dropped, q, k, v, p=0.0, seed=3), gradients(plain, q, k, v))


def test_dropout_of_1_gives_zeros() -> None:
    q, k, v = qkv(q_len=9)
    out, lse, *rest = gradients(variant_of(*DROPPED), q, k, v, p=1.0, seed=3)
    assert torch.equal(out, torch.zeros_like(out))
    assert torch.equal(rest[2], torch.zeros_like(v))
    assert torch.equal(
        lse, variant_of("score = softcap(score, 3.0)", "mask = causal")(q, k, v, return_lse=True)[1]
    )
    judge(variant_of(*DROPPED), q_len=9, call={"p": 1.0, "seed": 3})


@pytest.mark.parametrize(
    ("p", "seed", "dtype"),
    [(0.5, 0, "float32"), (0.1, 2**64 - 1, "float16"), (0.9, -7, "float32"), (0.3, 2**63 + 11, "float16")],
)
def test_dropout_draws_the_references_bits(p: float, seed: int, dtype: str) -> None:
    judge(
        variant_of(*DROPPED), heads=2, kv_heads=1, q_len=9, k_len=20, dtype=dtype, call={"p": p, "seed": seed}
    )


def test_every_tile_draws_the_bits_of_its_own_place() -> None:
    """Uniform weights over values that are an identity show each weight: the kept ones, where Philox says."""
    variant = variant_of("param p: float", "scale = 0.0", "dropout = p")
    q, k = torch.zeros(2, 2, 140, 16), torch.zeros(2, 1, 137, 16)
    v = torch.eye(137).expand(2, 1, 137, 137)
    out = variant(q, k, v, p=0.4, seed=5)
    want = kept(0.4, 5, torch.arange(140), torch.arange(137), 2, 2)
    assert torch.equal(out > 0, want)
    torch.testing.assert_close(out[want], torch.full_like(out[want], 1 / 137 / 0.6))
    assert abs(want.float().mean().item() - 0.6) < 0.01


def test_seeds_decide_and_repeat() -> None:
    variant, (q, k, v) = variant_of(*DROPPED), qkv(q_len=9)
    first = gradients(variant, q, k, v, p=0.5, seed=1)
    assert same_bits(first, gradients(variant, q, k, v, p=0.5, seed=1))
    assert same_bits(first, gradients(variant, q, k, v, p=0.5, seed=torch.tensor([1])))
    assert same_bits(first, gradients(variant, q, k, v, p=0.5, seed=torch.tensor(1)))
    assert not torch.equal(first[0], variant(q, k, v, p=0.5, seed=2))
    minus = variant(q, k, v, p=0.5, seed=-1)
    assert torch.equal(minus, variant(q, k, v, p=0.5, seed=2**64 - 1))


def test_without_a_seed_torchs_generator_decides() -> None:
    variant, (q, k, v) = variant_of(*DROPPED), qkv(q_len=9)
    torch.manual_seed(4)
    one, two = (variant(q, k, v, p=0.5) for _ in range(2))
    torch.manual_seed(4)
    assert torch.equal(variant(q, k, v, p=0.5), one)
    assert not torch.equal(one, two)


def test_dropout_does_not_touch_the_log_sum_exp() -> None:
    variant, (q, k, v) = variant_of(*DROPPED), qkv(q_len=9)
    assert torch.equal(
        variant(q, k, v, p=0.5, seed=1, return_lse=True)[1], variant(q, k, v, p=0.0, return_lse=True)[1]
    )


def test_checkpointing_replays_the_dropout() -> None:
    variant = variant_of(*DROPPED)
    leaves = [x.requires_grad_() for x in qkv(q_len=9)]
    torch.manual_seed(4)
    plain = torch.autograd.grad(variant(*leaves, p=0.5).square().sum(), leaves)
    torch.manual_seed(4)
    out = torch.utils.checkpoint.checkpoint(lambda *x: variant(*x, p=0.5), *leaves, use_reentrant=False)
    assert same_bits(torch.autograd.grad(out.square().sum(), leaves), plain)


def test_dropout_is_what_consts_params_and_sizes_make_it() -> None:
    variant = variant_of("param p: float", "const half: float = 0.5", "dropout = p * half + 1 / k_len")
    judge(variant, q_len=9, k_len=10, call={"p": 0.3, "seed": 2})


def test_columns_far_apart_are_addressed_in_64_bits() -> None:
    """A head dimension that is not innermost may have a stride whose multiples pass 2**31."""
    stride = 2**31 // 63 + 1
    base = torch.empty(63 * stride + 40, dtype=torch.float16)  # never touched but for a few pages
    q, k, v = qkv(q_len=20, k_len=20, head_dim=64, dtype="float16")
    far = torch.as_strided(base, (1, 1, 20, 64), (1, 1, 1, stride))
    far.copy_(k)
    plain = variant_of("mask = causal")
    assert torch.equal(plain(q, far, v), plain(q, k, v))


def test_a_row_of_nan_is_nan_not_empty() -> None:
    q, k, v = qkv(q_len=5)
    q[0, 0, 2] = float("nan")
    _, lse = variant_of("mask = causal")(q, k, v, return_lse=True)
    assert lse.isnan().tolist() == [[[False, False, True, False, False]]]


def test_kernels_get_rows_that_are_dense_however_tensors_lie_in_memory() -> None:
    """TMA takes rows; and with V by columns a kernel of Triton 3.6 addressed memory out of range on sm_90."""
    module: Any = variant_of().module
    strides = []

    class Recorder(module.Launcher):
        def launch(self, kernel: Any, grid: Any, *arguments: Any, **constants: Any) -> Any:
            if kernel is not module.delta_kernel:  # which multiplies no tiles
                strides.extend(x for x in arguments if isinstance(x, tuple))
            return super().launch(kernel, grid, *arguments, **constants)

    q, k, v = (x.transpose(2, 3).contiguous().transpose(2, 3) for x in qkv(q_len=5))
    rows = [torch.empty(q.shape[:3], dtype=torch.float32) for _ in range(3)]
    out, d_out = torch.empty_like(q), torch.ones(q.shape, dtype=q.dtype)
    module.launch_forward(q, k, v, out, *rows, launcher=Recorder())
    assert all(x.stride(3) != 1 for x in (q, k, v)) and len(strides) == 4
    grads = [torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v)]
    flags = [False] if "deterministic" in inspect.signature(module.launch_backward).parameters else []
    module.launch_backward(q, k, v, out, *rows, d_out, None, *grads, *flags, launcher=Recorder())
    assert all(stride == 1 for *_, stride in strides[:3] + strides[4:])


@pytest.mark.parametrize("dims", [(16, 16), (24, 16), (64, 16), (128, 32), (256, 16), (16, 64)], ids=str)
def test_vs_tile_is_not_narrower_than_ks_below_128_bytes(dims: tuple[int, int]) -> None:
    """Narrower, and off every alignment, Triton 3.6 reads past it in shared memory on sm_90."""
    head_dim, v_dim = dims
    q, v = torch.zeros(1, 1, 4, head_dim), torch.zeros(1, 1, 4, v_dim)
    found = variant_of().module.constants_of(q, v, (16, 16, 4, 1), False)
    assert found["BLOCK_DV"] >= max(v_dim, min(64, found["BLOCK_D"]))
    assert found["BLOCK_D"] >= head_dim
