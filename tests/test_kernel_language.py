"""What a spec says is what its kernels do: every kind of clause, interpreted, against the reference.

Each line of the tables below is a spec of its own, called forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kernel_calls import judge, qkv, small_tiles, variant_of
from torch import Tensor

import attngen
from attngen.errors import AttnGenError
from attngen.testing import assert_matches_reference, specs
from attngen.testing.cases import arguments, cases

pytestmark = pytest.mark.usefixtures("one_thread")

Q_LEN, K_LEN = 13, 17
INF = float("inf")
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def floats(*shape: int, dtype: str = "float32") -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(getattr(torch, dtype))


def ints(*shape: int, low: int = -5, high: int = 25, dtype: str = "int32") -> Tensor:
    drawn = torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(3))
    return drawn.to(getattr(torch, dtype))


def bools(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.6


def check(*lines: str, heads: int = 1, dtype: str = "float32", **call: Any) -> None:
    judge(variant_of(*lines), heads=heads, q_len=Q_LEN, k_len=K_LEN, dtype=dtype, call=call)


# ---- The score --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "score",
    [
        "exp(0.3 * score)",
        "log(0.2 + score * score)",
        "sqrt(abs(score) + 0.1)",
        "rsqrt(abs(score) + 0.1)",
        "tanh(score)",
        "3.0 * sigmoid(score)",
        "sin(score)",
        "cos(2 * score)",
        "1 / (2 + abs(score))",
    ],
)
def test_every_function_of_the_score_and_its_derivative(score: str, dtype: str) -> None:
    check(f"score = {score}", dtype=dtype)


@pytest.mark.parametrize(
    "score",
    [
        "-score",
        "min(score, 0.1)",
        "max(score, 0.1, -score)",
        "clamp(score, -0.5, 0.5)",
        "where(score > 0.0, score, 0.1 * score)",
        "where(k % 3 == 0, score * score, 0.5)",
        "score if causal else -1.0",
        "score ** 3",
        "score ** 0.5 if score > 0.2 else 0.0",
        "score - score",
        "0.5",
        "0.3 * k",
        "score / (1 + h) * (2 + b) + h_kv",
        "score * floor(0.37 * dist)",
        "score + (0.3 * k) % 1.7 + (0.3 * dist) % -1.7",
        "score + 0.1 * ((0.3 * dist) // 0.7)",
        "int(2.7) * score + float(dist > 0) + int(k > q)",
        "log(float(1 + abs(dist))) * score + exp(-0.1 * k)",
        "score + v_dim / head_dim + 0.1 * heads + 0.01 * batch * kv_heads + 0.001 * q_len - 0.002 * k_len",
        "softplus(silu(score)) + relu(square(score)) * sign(score)",
    ],
)
def test_scores_of_every_form(score: str) -> None:
    check(f"score = {score}")


def test_scores_chain_and_lets_bind_the_running_score() -> None:
    check(
        "def bend(x, y) = x + 0.1 * tanh(x - y)",
        "let first = 2 * score",
        "score = tanh(score)",
        "score = bend(score, bend(0.1, k)) + 0.1 * first",
        "let row = q // 3",
        "mask = row <= k // 3",
        dtype="float16",
    )


@pytest.mark.parametrize(
    ("lines", "call"),
    [
        (["const a: float = 2.0", "const n: int = 3", "score = score * a ** 2 / n"], {}),
        (["const f: bool = True", "score = 2 * score if f else 0.0"], {}),
        (["param a: float", "score = a * tanh(score / a)"], {"a": 0.3}),
        (["param a: float = -2.5", "score = a * score"], {}),
        (["param n: int = 3", "score = score + 0.1 * (dist // n) - 0.1 * (k % n)"], {"n": -4}),
        (["param f: bool = True", "score = score if f else tanh(score)"], {}),
        (["param f: bool = True", "score = score if f else tanh(score)"], {"f": False}),
    ],
)  # fmt: skip
def test_consts_and_params_in_the_score(lines: list[str], call: dict[str, Any]) -> None:
    check(*lines, **call)


# ---- The scale --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "call"),
    [
        (["scale = 1.0"], {}),
        (["scale = 0.0"], {}),
        (["scale = -0.3"], {}),
        (["scale = exp(-0.1 * head_dim) + 1 / k_len"], {}),
        (["param a: float", "scale = a"], {"a": 0.3}),
        (["param a: float", "scale = a * exp(a) + sin(a) + log(a)"], {"a": 0.3}),
        (["param a: float", "scale = tanh(a) - sigmoid(a) + cos(a)"], {"a": 0.3}),
        (["param a: float", "scale = floor(a) + sqrt(a) - rsqrt(a) + abs(a)"], {"a": 0.9}),
        (["param a: float", "scale = 0.2 * (a // 0.4) + a % 0.7 - a ** 2"], {"a": 0.9}),
        (["param a: float", "scale = min(a, 2.0) - max(a, 1) + clamp(a, 0.0, 1.0)"], {"a": 0.9}),
        (["param a: float", "scale = where(a > 0, 0.5, 2.0)"], {"a": 0.9}),
        (["param n: int = 3", "scale = 1 / n + n // 2 + n % 2 + int(0.3 * n) - float(n)"], {}),
        (["param f: bool = True", "scale = 0.3 if f else 0.5"], {"f": False}),
        (["input s: float32[]", "scale = s"], {"s": floats()}),
    ],
)  # fmt: skip
def test_the_scale_from_consts_params_and_sizes(lines: list[str], call: dict[str, Any]) -> None:
    check(*lines, **call)


@pytest.mark.parametrize("form", ["softcap(score, 2.0)", "score * score"])
@pytest.mark.parametrize(
    ("declared", "scale", "values"),
    [
        ("float32[heads]", "0.4 * s[h]", floats(4)),
        ("float32[batch, kv_heads]", "0.2 * s[b, h_kv]", floats(1, 2)),
        ("float16[heads]", "exp(0.1 * s[h])", floats(4, dtype="float16")),
    ],
)
def test_the_scale_of_each_heads_own(declared: str, scale: str, values: Tensor, form: str) -> None:
    """Heads of one group share dK, so each head's scale is inside its sum."""
    variant = variant_of(f"input s: {declared}", f"scale = {scale}", f"score = {form}")
    judge(variant, heads=4, kv_heads=2, q_len=5, k_len=6, call={"s": values})


# ---- The mask ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mask",
    [
        "True",
        "k == q",
        "not (k == q)",
        "k != q and k % 2 == 0",
        "0 <= dist < 5",
        "abs(dist) <= 3",
        "causal and k % 3 == 0 or k < 2",
        "pos // 4 == k // 4",
        "b == 0",
        "dist >= -2",
        "k >= 5",
        "q >= 5",
        "q < 5 or k < 3",
        "2 * k <= q",
        "k * k < q * 3",
        "min(q, k) < 4",
        "q % 4 == k % 4",
        "int(0.3 * k) == int(0.3 * q)",
        "floor(0.7 * q) > floor(0.5 * k)",
        "sin(0.3 * k) > 0",
        "k_len - k < 5",
        "k < 7 or k > 15",
        "causal and not (5 <= k < 9)",
        "dist // 3 == 1",
        "-dist // 4 == 0",
        "dist % 5 == 2",
        "dist % -5 == -2",
        "dist < inf",
        "k > 1000000",
        "pos == 5 or causal",
    ],
)
def test_masks_of_positions(mask: str) -> None:
    """Over several tiles: skipped ones, full ones, and those that need the mask."""
    variant = variant_of(f"mask = {mask}")
    with small_tiles(variant):
        judge(variant, q_len=37, k_len=45)


@pytest.mark.parametrize(
    "mask",
    [
        "h == 0",
        "dist > 3 * h",
        "h_kv == 1 or k > 5",
        "dist < 5 if h == 0 else dist < 9",
        "h * 0.3 < 0.2 and causal",
        "not (1 / (1 + h) < 0.7) or k < 3",
        "h * 0.3 < 0.2",
        "(h * 0.3 < 0.2) != causal",
        "causal and h * 0.3 < 0.2 or k < 3 and 0.2 < h * 0.3",
    ],
)
def test_masks_of_each_heads_own(mask: str) -> None:
    check(f"mask = {mask}", heads=2)


@pytest.mark.parametrize("w", [4, -3, INT32_MAX, INT32_MIN])
@pytest.mark.parametrize("mask", ["0 <= dist < w", "dist + w > k", "k * w > dist and -w <= dist"])
def test_int_params_in_the_mask(mask: str, w: int) -> None:
    check("param w: int = 4", f"mask = {mask}", w=w)


@pytest.mark.parametrize("w", [-3, 0, 1, 20, 33])
def test_a_windows_width_may_be_a_param_or_an_inputs(w: int) -> None:
    """Its tiles are found when the kernel runs."""
    with_param = variant_of("param w: int", "mask = 0 <= dist < w or k < w - 18")
    with_input = variant_of("input w: int32[batch, heads]", "mask = -w[b, h] // 2 < dist < w[b, h]")
    with small_tiles(with_param), small_tiles(with_input):
        judge(with_param, q_len=45, k_len=37, call={"w": w})
        judge(with_input, q_len=37, k_len=45, call={"w": torch.tensor([[w]], dtype=torch.int32)})


@pytest.mark.parametrize("w", [4, -4, -3, 1])
def test_int_params_divide_as_python_does(w: int) -> None:
    check("param w: int", "mask = dist % w == 1 % w or pos // w == k // w", w=w)


@pytest.mark.parametrize("x", [2.5, -0.5, INF, -INF, float("nan"), 1e30])
def test_float_params_in_the_mask(x: float) -> None:
    check("param x: float", "mask = dist < x", x=x)


@pytest.mark.parametrize(
    ("clause", "c"),
    [
        ("mask = dist < 3 / c", 0.0),
        pytest.param(
            "mask = dist < 3 / c",
            -0.0,
            marks=pytest.mark.xfail(reason="Triton makes +0.0 of every zero that is Python's", strict=True),
        ),
        ("mask = dist < 3 / c", 1e39),
        ("mask = dist < 3 / c", 1e-50),
        ("mask = dist < c", 1e-50),
        ("mask = dist < c - 0.1 + 3", 0.1),
        ("mask = dist < c // 0.0", 1.0),
        ("mask = c < 0.4 or causal", 0.5),
        ("mask = not (c < 0.4) and causal", 0.5),
        ("mask = not (c < 0.4) and causal", 0.3),
        ("mask = c < 0.4", 0.3),
        ("mask = c < 0.4 and not causal", 0.3),
        ("mask = (c == 0.3) == causal", 0.3),
        ("mask = (c == 0.3) != causal and c <= 1", 0.3),
        ("mask = causal if c >= 0.3 and not (c != 0.3) else k < 3", 0.3),
        ("mask = k < 7 if tanh(c) < 0.4 and h * c < 1 else causal", 0.5),
        ("mask = dist < log(c)", 0.0),
        ("mask = dist < exp(c)", 1000.0),
        ("mask = dist < c * c", 1e30),
        ("mask = dist < max(c, 1.0)", float("nan")),
        ("mask = k < int(c)", INF),
        ("mask = k < int(c) + 5", float("nan")),
        ("mask = 0.1 * k < c * 3", 0.1),
        ("mask = k < 3 * floor(c / 0.3)", 0.9),
        ("scale = 0.1 * (c // 0.3)", 0.9),
        ("scale = 0.1 * int(c / 0.3)", 0.9),
        ("scale = 0.3 if c / 0.3 == 3.0 else 0.1", 0.9),
        ("scale = 1 / c", 1e39),
        ("score = score + (0.3 * k if c / 0.3 == 3.0 else 0.1 * k)", 0.9),
        ("score = score if c == 0.1 else 0.0", 0.1),
        ("score = score if c == 0 else score / c", 0.0),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinities
def test_params_alone_compute_as_float32(clause: str, c: float) -> None:
    """Rounded at each step, and with IEEE's infinities, wherever the kernels or the launcher compute it."""
    check("param c: float", clause, c=c)


@pytest.mark.parametrize("f", [True, False])
def test_bool_params_in_the_mask(f: bool) -> None:
    check("param f: bool", "mask = causal or f", f=f)


@pytest.mark.parametrize(
    ("declared", "mask", "values"),
    [
        ("bool[q_len, k_len]", "m[q, k]", bools(Q_LEN, K_LEN)),
        ("bool[batch, heads, q_len, k_len]", "m[b, h, q, k]", bools(1, 2, Q_LEN, K_LEN)),
        ("bool[batch, heads, q_len, k_len]", "m[b, h, q, k]", bools(1, 1, 1, K_LEN)),
        ("bool[batch, heads, q_len, k_len]", "m[b, h, q, k]", bools(1, 1, Q_LEN, 1)),
        ("bool[heads]", "m[h] or causal", torch.tensor([True, False])),
        ("bool[]", "m or causal", torch.tensor(False)),
        ("bool[n]", "m[dist]", bools(9)),
        ("float32[k_len]", "m[k] < 0.5", floats(K_LEN)),
        ("float16[k_len]", "m[k] < m[q]", floats(K_LEN, dtype="float16")),
        ("bfloat16[n]", "m[k] < m[pos]", floats(13, dtype="bfloat16")),
        ("float32[]", "dist < 3 * m", torch.tensor(2.1)),
        ("float32[]", "m < 0.5 or causal", torch.tensor(0.7)),
        ("float16[heads]", "causal and not (m[h] < 0.5)", torch.tensor([0.7, 0.3]).half()),
        ("float32[heads]", "m[h] > 0.5", torch.tensor([0.7, 0.3])),
        ("int64[k_len]", "m[k] < m[q]", ints(K_LEN, low=-(2**62), high=2**62, dtype="int64")),
        ("int32[batch]", "k < m[b]", torch.tensor([7], dtype=torch.int32)),
        ("int32[heads]", "0 <= dist < m[h]", torch.tensor([7, 0], dtype=torch.int32)),
        ("int32[batch]", "k < m[b]", torch.tensor([INT32_MAX], dtype=torch.int32)),
        ("int32[batch]", "dist < m[b]", torch.tensor([INT32_MIN], dtype=torch.int32)),
        ("int64[batch]", "k < m[b]", torch.tensor([2**40])),
        ("int64[batch]", "k - m[b] < dist", torch.tensor([-(2**40)])),
        ("int32[batch, k_len] sorted", "m[b, pos] == m[b, k]", ints(1, K_LEN, low=0, high=4).sort().values),
    ],
)
def test_inputs_in_the_mask(declared: str, mask: str, values: Tensor) -> None:
    check(f"input m: {declared}", f"mask = {mask}", heads=2 if "h" in mask.split("[")[-1] else 1, m=values)


# ---- Inputs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32", "int64", "bool"])
def test_inputs_of_every_dtype(dtype: str) -> None:
    values = {
        "i": ints(9, dtype=dtype),
        "f": floats(9, dtype=dtype),
        "b": floats(9, dtype=dtype),
        "bool": bools(9),
    }
    read = "where(t[dist + 4], 0.1, 0.4)" if dtype == "bool" else "0.1 * t[dist + 4]"
    kind = "bool" if dtype == "bool" else dtype[0]
    check(f"input t: {dtype}[9]", f"score = score + {read}", t=values[kind])


@pytest.mark.parametrize("full", [0, 1, 2, 4, 8, 6, 9, 15])
def test_a_dimension_of_1_broadcasts(full: int) -> None:
    sizes = (2, 2, 5, 6)
    shape = [n if full >> axis & 1 else 1 for axis, n in enumerate(sizes)]
    variant = variant_of("input t: float32[batch, heads, q_len, k_len]", "score = score + t[b, h, q, k]")
    q, k, v = qkv(batch=2, heads=2, kv_heads=1, q_len=5, k_len=6)
    assert_matches_reference(variant, q, k, v, t=floats(*shape))


@pytest.mark.parametrize(
    "strided",
    [
        lambda t: t.mT.contiguous().mT,
        lambda t: t[..., :1].expand(t.shape),
        lambda t: torch.stack([t, t], -1)[..., 0],
        lambda t: torch.cat([t, t], -2)[..., 1 : 1 + t.shape[-2], :],
    ],
    ids=["transposed", "expanded", "strided", "offset"],
)
def test_inputs_of_any_strides(strided: Callable[[Tensor], Tensor]) -> None:
    lines = ("input t: float32[batch, heads, q_len, k_len]", "score = score + t[b, h, q, k]")
    check(*lines, heads=2, t=strided(floats(1, 2, Q_LEN, K_LEN)))


@pytest.mark.parametrize(
    ("declared", "read", "shape"),
    [
        ("float32[]", "score * t", ()),
        ("float32[]", "score * exp(t) + 0.1 * t * k", ()),
        ("float32[]", "softcap(score, t)", ()),
        ("float32[heads]", "t[h] * tanh(score / t[h])", (2,)),
        ("float32[heads]", "-score * abs(t[h])", (2,)),
        ("float32[1]", "score + t[k]", (1,)),
        ("float32[n]", "score + t[n - 1 - k] + 0.01 * n", (9,)),
        ("float32[head_dim, v_dim]", "score + t[k, q]", (16, 16)),
        ("float32[3, 5]", "score + t[q // 4, k // 4]", (3, 5)),
        ("float32[kv_heads, 9]", "score + t[h_kv, dist]", (1, 9)),
        ("float32[q_len]", "score * t[q] + t[q]", (Q_LEN,)),
        ("float32[k_len]", "score * t[k] + t[int(0.5 * k)]", (K_LEN,)),
    ],
)
def test_inputs_of_every_rank(declared: str, read: str, shape: tuple[int, ...]) -> None:
    check(
        f"input t: {declared}",
        f"score = {read}",
        heads=shape[0] if "heads]" in declared else 1,
        t=floats(*shape),
    )


def test_a_size_is_the_largest_that_its_inputs_have() -> None:
    check(
        "input t: float32[n]",
        "input u: float32[n, n]",
        "score = score + t[k] + u[q, k] + 0.1 * n",
        t=floats(1),
        u=floats(1, 9),
    )


@pytest.mark.parametrize(
    "index",
    [
        "dist",
        "k + 5",
        "-1 - k",
        "k * 1000000000",
        "-k * 1000000000",
        "i[k]",
        "w[k]",
        "w[k] * w[q]",
        "int(1.0 / k)",
        "int(1e30 * (k - 3))",
        "int((k - 3.0) / 0.0)",
        "int(log(k - 4.0))",
        "int(f[k])",
    ],
)
def test_an_index_outside_reads_the_nearest_element(index: str) -> None:
    """Negative, beyond int32, and from NaN, infinite and huge floats."""
    given = {
        "i": ("int32[k_len]", ints(K_LEN, low=-50, high=50)),
        "w": ("int64[k_len]", ints(K_LEN, low=-(2**62), high=2**62, dtype="int64")),
        "f": ("float32[k_len]", floats(K_LEN) * 1e10),
    }
    declared = {name: pair for name, pair in given.items() if f"{name}[" in index}
    lines = [f"input {name}: {kind}" for name, (kind, _) in declared.items()]
    tensors = {name: tensor for name, (_, tensor) in declared.items()}
    check("input t: float32[n]", *lines, f"score = score + t[{index}]", t=floats(9), **tensors)


# ---- Integers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "low", "high", "score"),
    [
        ("int32", INT32_MIN, INT32_MAX, "1e-19 * (m[k] * m[q])"),
        ("int32", INT32_MIN, INT32_MAX, "1e-9 * (m[k] + m[q] - m[0]) + 1e-9 * abs(m[k]) - 1e-9 * -m[q]"),
        ("int32", INT32_MIN, INT32_MIN, "1e-9 * abs(m[k]) + 1e-9 * (-m[q] // 2) + 1e-9 * (m[k] // -1)"),
        ("int32", 2**30, INT32_MAX, "0.3 * (k * m[k] % 7)"),
        ("int32", -3, 3, "0.1 * (dist % m[k]) + 0.01 * (dist // m[k])"),
        ("int32", -3, 3, "0.1 * (m[k] % m[q]) + 0.01 * (m[k] // m[q])"),
        ("int64", -(2**62), 2**62, "1e-19 * m[k]"),
        ("int64", -(2**62), 2**62, "0.1 * clamp(m[k] // m[q], -3, 3) + 1e-19 * (m[k] % m[q])"),
        ("int64", -3, 3, "0.1 * (m[k] % m[q]) + 0.01 * (m[k] // m[q])"),
        ("int32", -5, 5, "0.1 * min(m[k], m[q], dist) - 0.1 * max(m[k], 2) + 0.1 * clamp(m[q], -2, 1)"),
    ],
)
def test_integer_arithmetic_is_exact_and_rounds_down(dtype: str, low: int, high: int, score: str) -> None:
    """Beyond int32 where it must; ``//`` and ``%`` by negative data, and 0 by zero."""
    values = ints(K_LEN, low=low, high=high, dtype=dtype)
    check(f"input m: {dtype}[k_len]", f"score = score + {score}", m=values)


def test_integers_in_masks_do_not_wrap() -> None:
    top = torch.tensor([INT32_MAX], dtype=torch.int32)
    check("input m: int32[batch]", "mask = dist + m[b] > 3", m=top)
    check("input m: int32[batch]", "mask = (k - 5) * m[b] < dist * m[b]", m=top)


# ---- Names ------------------------------------------------------------------------------------------------

NAMES = """acc keys tl torch lo state weights row_max triton math forward_kernel check INPUTS TILES x dim name
inputs params sizes words attngen Seed Q logits keeps key_range threshold kept_scale logit derivative offset
context tested self ir bshd out"""

VARIANTS = """torch triton tl math tanh check forward_kernel INPUTS TILES logits keeps clip key_range
run_attention max zip dict float range isinstance tuple attngen causal q dropped state weights check_call
NAMESPACE"""


@pytest.mark.parametrize("first", range(0, len(NAMES.split()), 2))
def test_inputs_params_lets_and_sizes_may_have_any_name_of_the_module(first: int) -> None:
    """Over all of these, every name stands in every place."""
    given, also, chosen, other, bound, later, size, length = (NAMES.split() * 2)[first : first + 8]
    variant = variant_of(
        f"input {given}: float32[heads, {size}]",
        f"input {also}: int32[{length}]",
        f"param {chosen}: float = 0.3",
        f"param {other}: int = 2",
        f"let {bound} = q // {other}",
        f"score = tanh(score * {chosen}) + {given}[h, k] * {bound} * {bound} / {size}",
        f"let {later} = score + {also}[k] % {length}",
        f"score = {later} * {later}",
        f"dropout = {chosen}",
    )
    q, k, v = qkv(q_len=3)
    arguments: dict[str, Any] = {given: floats(1, 3), also: ints(4), chosen: 0.2, other: 3, "seed": 1}
    want = variant.reference(q, k, v, **arguments)
    torch.testing.assert_close(variant(q, k, v, **arguments).double(), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS.split())
def test_a_variant_of_any_name_works_or_is_refused_with_its_place(name: str) -> None:
    text = f"variant {name}\ninput slopes: float32[heads]\nparam w: float = 2.0\n"
    text += "score = tanh(score) - slopes[h] * w * k\nmask = causal"
    try:
        variant = attngen.compile(text)
    except AttnGenError as error:
        assert error.line == 1
        assert name in str(error)
        return
    q, k, v = qkv(q_len=3)
    slopes = floats(1)
    want = variant.reference(q, k, v, slopes=slopes)
    torch.testing.assert_close(variant(q, k, v, slopes=slopes).double(), want, rtol=1e-4, atol=1e-5)


# ---- Whatever the language allows -------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=60, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_specs_match_their_references_over_small_tiles(data: st.DataObject) -> None:
    spec = data.draw(specs())
    variant = attngen.compile(spec)
    case = data.draw(cases(variant.ir, head_dims=(16,), max_length=60))
    made = case.tensors()
    with small_tiles(variant):
        assert_matches_reference(
            variant,
            made["q"],
            made["k"],
            made["v"],
            dout=made["dout"],
            seed=case.seed,
            layout=case.layout,
            **arguments(case, made),
        )
