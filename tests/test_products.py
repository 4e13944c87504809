"""Products of rows in a score: dot(a[b, h, q], c[b, h_kv, k]) as matrix products, with gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernel_calls import qkv, small_tiles, variant_of
from torch import Tensor

from attngen import blockwise, reference
from attngen.analysis.simplify import simplify_ir
from attngen.ir.build import build
from attngen.ir.nodes import SCORE, Op
from attngen.ir.printer import print_ir
from attngen.pipeline import compile_spec
from attngen.plan.base2 import SCALE
from attngen.plan.learned import Route, Side
from attngen.plan.plan import Options, Plan, make_plan
from attngen.plan.products import Adjoint
from attngen.source import Source
from attngen.spec_file import find_spec
from attngen.syntax.parse import parse
from attngen.testing import assert_matches_reference
from attngen.testing.tensor import Recipe
from attngen.variant import Variant

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = "input a: float16[batch, heads, q_len, rank] grad"
SHARED = "input c: bfloat16[batch, k_len, rank] grad"
PRODUCT = "dot(a[b, h, q], c[b, k])"


# ---- The plan ---------------------------------------------------------------------------------------------


def plan_of(*lines: str) -> Plan:
    source = Source("\n".join(["variant x", *lines]) + "\n", "x.attn")
    return make_plan(simplify_ir(build(parse(source), source)), Options())


@pytest.mark.parametrize(
    ("score", "adjoint", "number"),
    [
        (f"score + {PRODUCT}", Adjoint.SCORE, 1.0),
        (f"score - 0.5 * {PRODUCT}", Adjoint.SCORE, -0.5),
        (f"softcap(score + 0.5 * {PRODUCT}, 2.0)", Adjoint.SCORE, 0.5),
        (f"softcap(score, 2.0) + 0.5 * {PRODUCT}", Adjoint.FINAL, 0.5),
        (f"2.0 * (score + {PRODUCT})", Adjoint.FINAL, 2.0),
        (f"score + tanh({PRODUCT})", Adjoint.OWN, 1.0),
        (f"score * {PRODUCT}", Adjoint.OWN, 1.0),
    ],
)
def test_the_gradients_of_a_products_factors_multiply_the_kernels_ds_where_it_serves(
    score: str, adjoint: Adjoint, number: float
) -> None:
    (found,) = plan_of(ROWS, SHARED, f"score = {score}").products
    assert (found.adjoint, found.number.value) == (adjoint, number)


def test_where_the_term_has_the_scale_as_its_factor_one_accumulator_takes_both_products() -> None:
    plan = plan_of(
        ROWS,
        SHARED,
        "let root = 1 / sqrt(head_dim + rank)",
        f"scale = root\nscore = score + root * {PRODUCT}",
    )
    (product,) = plan.products
    assert plan.joined.nodes == {product.node}
    assert plan.logits.tile is plan.joined.sum
    assert product.number is SCALE


def test_two_products_join_too_and_one_that_is_read_apart_does_not() -> None:
    more = "input u: float16[heads, rank]\ninput w: float16[k_len, rank]"
    both = plan_of(ROWS, SHARED, more, f"scale = 1.0\nscore = score + {PRODUCT} + dot(u[h], w[k])")
    assert len(both.joined.nodes) == 2
    apart = plan_of(ROWS, SHARED, f"scale = 1.0\nlet p = {PRODUCT}\nscore = score + p\nscore = score * p")
    assert apart.joined.sum is SCORE


def test_a_product_that_only_comparisons_read_has_no_gradients() -> None:
    (found,) = plan_of(ROWS, SHARED, f"score = score if {PRODUCT} > 0 else 0.5 * score").products
    assert not found.is_differentiated


@pytest.mark.parametrize(
    ("score", "routes"),
    [
        (f"score + {PRODUCT}", [(Route.PRODUCTS, (Side.ROWS,)), (Route.PRODUCTS, (Side.COLUMNS,))]),
        (
            f"score + {PRODUCT} * a[b, h, q, 0]",
            [(Route.PLACES, (Side.ROWS,)), (Route.PRODUCTS, (Side.COLUMNS,))],
        ),
        (f"score if {PRODUCT} > 0 else 0.5 * score", [(Route.NONE, ()), (Route.NONE, ())]),
    ],
)
def test_the_plan_says_of_a_learned_input_that_products_give_its_gradient(
    score: str, routes: list[tuple[Route, tuple[Side, ...]]]
) -> None:
    found = plan_of(ROWS, SHARED, f"score = {score}").learned
    assert [(x.route, x.factor_of) for x in found] == routes


@pytest.mark.parametrize("name", ["mla_rope", "tupe", "low_rank_bias"])
def test_the_header_names_the_kernel_of_each_factors_gradient(name: str) -> None:
    result = compile_spec(find_spec(name))
    words = " ".join(result.text.split('"""')[1].split())
    for x in result.plan.learned:
        kernel = {Side.ROWS: "dQ", Side.COLUMNS: "dK/dV"}[x.factor_of[0]]
        told = words.rpartition(f" {x.input.name}: ")[2].partition(".")[0]
        assert f"a further matrix product of the {kernel} kernel" in told
    assert "zeros" not in words


def test_the_side_of_the_keys_is_the_one_that_reads_k_wherever_it_stands() -> None:
    (found,) = plan_of(ROWS, SHARED, "score = score + dot(c[b, k], a[b, h, q])").products
    assert (found.rows.input.name, found.columns.input.name) == ("a", "c")


def test_a_product_is_printed_as_it_is_read() -> None:
    text = f"variant x\n{ROWS}\n{SHARED}\nlet rope = {PRODUCT}\nscore = score + rope * rope\n"
    source = Source(text)
    ir = build(parse(source), source)
    again = Source(print_ir(ir))
    assert build(parse(again), again) == ir
    assert f"let rope = {PRODUCT}\n" in again.text
    assert sum(node.op is Op.DOT for node in [*ir.final_score.args[1].args]) == 2


# ---- The kernels ------------------------------------------------------------------------------------------

RANK = 5
SIZES = {"batch": 2, "heads": 2, "kv_heads": 1, "q_len": 18, "k_len": 21, "rank": RANK, "other": 3}


def inputs_of(variant: Variant, **replaced: tuple[int, ...]) -> dict[str, Tensor]:
    """An input of its declared shape for each name, or of the one given."""
    found = {}
    for seed, item in enumerate(variant.ir.inputs):
        shape = replaced.get(item.name, tuple(d if isinstance(d, int) else SIZES[d] for d in item.dims))
        found[item.name] = Recipe(shape, item.dtype, seed=10 + seed).build()
    return found


def judge(variant: Variant, dtype: str = "float16", **given: Any) -> None:
    tensors = qkv(batch=2, heads=2, kv_heads=1, q_len=18, k_len=21, dtype=dtype)
    assert_matches_reference(variant, *tensors, **{**inputs_of(variant), **given})


OTHERS = "input u: float32[kv_heads, other] grad\ninput w: float16[k_len, batch, kv_heads, other] grad"
BY_HEAD = "input c: float16[batch, heads, k_len, rank] grad"
VARIANTS = {
    "joined": (ROWS, SHARED, "let r = 0.4\nscale = r", f"score = score + r * {PRODUCT}", "mask = causal"),
    "apart": (ROWS, SHARED, f"score = score + 0.3 * {PRODUCT}"),
    "each head's own keys": (ROWS, BY_HEAD, "score = score - 0.3 * dot(a[b, h, q], c[b, h, k])"),
    "inside a softcap": (ROWS, SHARED, f"score = softcap(score + 0.5 * {PRODUCT}, 2.0)"),
    "after a softcap": (ROWS, SHARED, f"score = softcap(score, 2.0) + 0.5 * {PRODUCT}", "mask = causal"),
    "bent": (ROWS, SHARED, f"score = score + tanh(0.3 * {PRODUCT} + 0.1 * score)"),
    "two": (ROWS, SHARED, OTHERS, f"score = score + 0.3 * {PRODUCT} - 0.2 * dot(u[h_kv], w[k, b, h_kv])"),
    "one side in two": (
        ROWS,
        SHARED,
        "input u: float32[heads, rank] grad",
        f"score = score + 0.2 * {PRODUCT} + 0.1 * dot(u[h], c[b, k])",
    ),
    "with a learned factor": (
        ROWS,
        SHARED,
        "input s: float32[heads] grad\nlet r = 0.2 + 0.1 * s[h]",
        f"scale = r\nscore = score + r * {PRODUCT}",
    ),
    "beside a learned table": (
        ROWS,
        SHARED,
        "input t: float32[heads, 8] grad",
        f"score = score + 0.3 * {PRODUCT} + t[h, abs(dist)] + 0.1 * c[b, k, 0]",
    ),
    "with dropout and a sink": (
        ROWS,
        SHARED,
        "input sinks: float32[heads] grad",
        f"score = score + 0.3 * {PRODUCT}\nsink = sinks[h]\ndropout = 0.3",
    ),
}


QUICK = ("joined", "each head's own keys", "bent", "two", "with a learned factor")


@pytest.mark.parametrize("name", QUICK)
def test_products_of_rows_and_their_gradients_are_the_references(name: str) -> None:
    judge(variant_of(*VARIANTS[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_so_they_are_across_tiles(name: str) -> None:
    variant = variant_of(*VARIANTS[name])
    with small_tiles(variant):
        judge(variant)


def test_in_float32_the_products_are_exact() -> None:
    judge(variant_of(*VARIANTS["apart"]), dtype="float32")


def test_what_an_input_lacks_or_broadcasts_takes_the_sum_of_all() -> None:
    variant = variant_of(ROWS, BY_HEAD, "score = score + 0.3 * dot(a[b, h, q], c[b, h, k])")
    for a, c in (
        ((1, 2, 18, 5), (2, 1, 21, 5)),
        ((2, 1, 1, 5), (1, 2, 1, 5)),
        ((2, 2, 18, 1), (2, 2, 21, 5)),
    ):
        judge(variant, **inputs_of(variant, a=a, c=c))


def test_a_derivative_by_a_product_that_rounds_alone_has_its_helper() -> None:
    """Found by fuzzing: only the derivative multiplies where a comparison is decided."""
    clamped = f"clamp(inf, {PRODUCT}, 0.0)"
    score = f"score = clamp(clamp(m, dist, 0), 5.0 * inf * {clamped} - {clamped}, 3.0 * pos)"
    text = variant_of(ROWS, SHARED, "param m: int", score).source
    assert " product(" in text.partition("def product_derivatives")[2].partition("@triton.jit")[0]
    assert "def product(" in text


def test_where_both_ranks_broadcast_the_declared_one_is_summed_over() -> None:
    score = "score = score + 0.3 * dot(a[b, h, q], c[b, k])"
    variant = variant_of(ROWS.replace("rank", "5"), SHARED.replace("rank", "5"), score)
    short = inputs_of(variant, a=(2, 2, 18, 1), c=(2, 21, 1))
    judge(variant, **short)
    tensors = qkv(batch=2, heads=2, kv_heads=1, q_len=18, k_len=21)
    long = {name: x.expand(*x.shape[:-1], 5) for name, x in short.items()}
    torch.testing.assert_close(variant.reference(*tensors, **short), variant.reference(*tensors, **long))


def test_where_a_rank_that_is_a_word_broadcasts_the_words_size_is_summed_over() -> None:
    rows, shared = (text.replace("rank", "head_dim") for text in (ROWS, SHARED))
    variant = variant_of(rows, shared, "score = score + 0.3 * dot(a[b, h, q], c[b, k])")
    short = {"a": torch.randn(2, 2, 18, 1).half(), "c": torch.randn(2, 21, 1).bfloat16()}
    tensors = qkv(batch=2, heads=2, kv_heads=1, q_len=18, k_len=21, dtype="float16")
    assert_matches_reference(variant, *tensors, **short)
    long = {name: x.expand(*x.shape[:-1], tensors[0].shape[3]) for name, x in short.items()}
    torch.testing.assert_close(variant.reference(*tensors, **short), variant.reference(*tensors, **long))


@pytest.mark.parametrize("name", ["joined", "beside a learned table", "only the keys' side is learned"])
def test_no_zeros_are_made_for_a_gradient_that_products_alone_give(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = VARIANTS.get(name, (ROWS.removesuffix(" grad"), SHARED, f"score = score + 0.3 * {PRODUCT}"))
    variant = variant_of(*lines)
    q, k, v = qkv(batch=2, heads=2, kv_heads=1, q_len=18, k_len=21)
    inputs = inputs_of(variant)
    for item in variant.ir.inputs:
        inputs[item.name].requires_grad_(item.grad)
    out = variant(q, k, v, **inputs)
    made = []

    def noted(make: Any) -> Any:
        def zeros(*args: Any, **options: Any) -> Tensor:
            made.append(make(*args, **options))
            return made[-1]

        return zeros

    monkeypatch.setattr(torch, "zeros", noted(torch.zeros))
    monkeypatch.setattr(Tensor, "new_zeros", noted(Tensor.new_zeros))
    out.sum().backward()
    given = {inputs[x.input.name].shape for x in plan_of(*lines).learned if not x.reads}
    assert given and not given & {x.shape for x in made}


@pytest.mark.parametrize("strides", ["transposed", "sliced", "expanded"])
def test_factors_may_have_any_strides(strides: str) -> None:
    variant = variant_of(*VARIANTS["apart"])
    a = Recipe((2, 2, 18, 5), "float16", strides, seed=3).build()
    judge(variant, a=a)


def test_a_concatenated_head_gives_the_same() -> None:
    """DeepSeek-V2's heads as they are usually computed: the rotated parts appended to both sides."""
    joined = variant_of(*VARIANTS["joined"])
    plain = variant_of("scale = 0.4", "mask = causal")
    q, k, v = qkv(batch=2, heads=2, q_len=18, k_len=21, dtype="float32")
    a, c = Recipe((2, 2, 18, 5), "float16").build(), Recipe((2, 21, 5), "bfloat16").build()
    beside = c.float()[:, None].expand(2, 2, 21, 5)
    theirs = plain(torch.cat([q, a.float()], -1), torch.cat([k, beside], -1), v)
    torch.testing.assert_close(joined(q, k, v, a=a, c=c), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wanted", ["a", "c"])
def test_any_gradients_may_be_asked_for_alone_and_have_the_same_bits(wanted: str) -> None:
    variant = variant_of(*VARIANTS["apart"])
    q, k, v = qkv(batch=2, heads=2, kv_heads=1, q_len=18, k_len=21, dtype="float16")
    all_of = {"q": q, "k": k, "v": v, **inputs_of(variant)}

    def gradients(names: str) -> dict[str, Tensor]:
        leaves = {n: x.detach().clone().requires_grad_(n in names) for n, x in all_of.items()}
        out = variant(leaves["q"], leaves["k"], leaves["v"], a=leaves["a"], c=leaves["c"])
        asked = {n: x for n, x in leaves.items() if n in names}
        found = torch.autograd.grad(out, list(asked.values()), torch.ones_like(out))
        return dict(zip(asked, found, strict=True))

    every = gradients("qkvac")
    for name, gradient in gradients(wanted).items():
        assert torch.equal(gradient, every[name])


@pytest.mark.parametrize(("q_len", "k_len"), [(0, 5), (5, 0), (1, 1)])
def test_no_queries_and_no_keys_are_lengths_too(q_len: int, k_len: int) -> None:
    variant = variant_of(*VARIANTS["with dropout and a sink"])
    q, k, v = (x.requires_grad_() for x in qkv(q_len=q_len, k_len=k_len, dtype="float16"))
    a = torch.randn(1, 1, q_len, 5).half().requires_grad_()
    c = torch.randn(1, k_len, 5).bfloat16().requires_grad_()
    out = variant(q, k, v, a=a, c=c, sinks=torch.zeros(1), seed=1)
    out.sum().backward()
    assert a.grad is not None and a.grad.shape == a.shape
    assert c.grad is not None and c.grad.shape == c.shape and c.grad.isfinite().all()


def test_row_blocks_give_the_references_result_and_gradients() -> None:
    variant = variant_of(*VARIANTS["two"])
    q, k, v = qkv(batch=2, heads=2, kv_heads=1, q_len=18, k_len=21)
    given = {n: x.float() for n, x in inputs_of(variant).items()}

    def run(attend: Any) -> list[Tensor]:
        leaves = {n: x.clone().requires_grad_() for n, x in given.items()}
        result = attend(variant.ir, q, k, v, inputs=leaves)
        out = (result[0] if isinstance(result, tuple) else result).float()
        return [out, *torch.autograd.grad(out, list(leaves.values()), torch.ones_like(out))]

    for ours, theirs in zip(run(blockwise.attention), run(reference.attention), strict=True):
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-4)


# ---- The call ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "x", "error", "says"),
    [
        ("a", torch.zeros(2, 2, 18, 5), TypeError, "a: expected torch.float16, got torch.float32"),
        ("a", torch.zeros(2, 2, 17, 5).half(), ValueError, r"a: expected 18 \(q_len\) or 1 in dimension 2"),
        ("c", torch.zeros(2, 21, 4).bfloat16(), ValueError, r"c: expected 5 \(rank\) or 1 in dimension 2"),
        ("c", torch.zeros(2, 21, 5, 1).bfloat16(), ValueError, "c: expected dimensions"),
    ],
)
def test_a_factor_that_does_not_fit_is_refused_by_name(
    name: str, x: Tensor, error: type[Exception], says: str
) -> None:
    variant = variant_of(*VARIANTS["apart"])
    tensors = qkv(batch=2, heads=2, kv_heads=1, q_len=18, k_len=21, dtype="float16")
    with pytest.raises(error, match=says):
        variant(*tensors, **{**inputs_of(variant), name: x})


def test_ranks_that_no_tile_holds_are_refused() -> None:
    variant = variant_of(*VARIANTS["apart"])
    tensors = qkv(q_len=3, dtype="float16")
    a, c = torch.zeros(1, 1, 3, 257).half(), torch.zeros(1, 3, 257).bfloat16()
    says = (
        "a, c: expected last dimensions that sum to at most 256, each rounded up to 64, 128 or 256, got 257"
    )
    with pytest.raises(ValueError, match=says):
        variant(*tensors, a=a, c=c)
