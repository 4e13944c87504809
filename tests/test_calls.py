"""A wrong call is a TypeError or ValueError that names the argument, what was expected and what came.

The same checks hold for the kernels (here interpreted) and for the CPU path without Triton's interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_calls import variant_of
from torch import Tensor

import attngen
from attngen.variant import Variant

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
INF = float("inf")
ROOT = Path(__file__).parent.parent


def alibi() -> Variant:
    return attngen.load("alibi")


def dropped() -> Variant:
    return variant_of(
        "param p: float",
        "param n: int = 2",
        "param f: bool = True",
        "input lengths: int32[batch]",
        "score = score + k // n if f else score",
        "mask = k < lengths[b]",
        "dropout = p",
    )


def tensors(*, heads: int = 2, kv_heads: int = 2, dim: int = 16, dtype: torch.dtype = torch.float32) -> Any:
    return (
        torch.randn(1, heads, 5, dim, dtype=dtype),
        torch.randn(1, kv_heads, 6, dim, dtype=dtype),
        torch.randn(1, kv_heads, 6, dim, dtype=dtype),
    )


def call_alibi(change: Callable[[dict[str, Any]], None]) -> None:
    q, k, v = tensors()
    given: dict[str, Any] = {"q": q, "k": k, "v": v, "slopes": torch.rand(2)}
    change(given)
    alibi()(**given)


def call_dropped(**changed: Any) -> None:
    q, k, v = tensors()
    given = {"p": 0.1, "lengths": torch.tensor([3], dtype=torch.int32), "seed": 1, **changed}
    dropped()(q, k, v, **{n: x for n, x in given.items() if x is not None})


def replaced(**tensors: Any) -> Callable[[dict[str, Any]], None]:
    return lambda given: given.update(tensors)


def mapped(name: str, f: Callable[[Tensor], Any]) -> Callable[[dict[str, Any]], None]:
    def change(given: dict[str, Any]) -> None:
        given[name] = f(given[name])

    return change


def every(f: Callable[[Tensor], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda given: given.update({n: f(given[n]) for n in "qkv"})


WRONG_TENSORS = {
    "a rank of 3": (
        mapped("q", lambda x: x[0]),
        ValueError,
        r"q: expected 4 dimensions, got shape \(2, 5, 16\)",
    ),
    "a list": (mapped("q", lambda x: x.tolist()), TypeError, "q: expected a tensor, got list"),
    "None": (replaced(v=None), TypeError, "v: expected a tensor, got NoneType"),
    "another batch": (replaced(k=torch.rand(3, 2, 6, 16)), ValueError, "k: expected q's batch 1, got 3"),
    "another batch of v": (replaced(v=torch.rand(3, 2, 6, 16)), ValueError, "v: expected q's batch 1, got 3"),
    "other heads of v": (
        replaced(v=torch.rand(1, 1, 6, 16)),
        ValueError,
        r"v: expected .*\(1, 2, 6\), got \(1, 1, 6\)",
    ),
    "another length of v": (
        replaced(v=torch.rand(1, 2, 7, 16)),
        ValueError,
        r"v: expected .*\(1, 2, 6\), got \(1, 2, 7\)",
    ),
    "heads that do not divide": (
        replaced(k=torch.rand(1, 3, 6, 16), v=torch.rand(1, 3, 6, 16)),
        ValueError,
        "q: expected heads that k's 3 divide, got 2",
    ),
    "no key heads": (
        replaced(k=torch.rand(1, 0, 6, 16), v=torch.rand(1, 0, 6, 16)),
        ValueError,
        "q: expected heads that k's 0 divide, got 2",
    ),
    "another head dimension": (
        mapped("k", lambda x: x[..., :8]),
        ValueError,
        "k: expected q's head dimension 16, got 8",
    ),
    "a head dimension of 257": (
        every(lambda x: torch.rand(*x.shape[:3], 257)),
        ValueError,
        "q: expected a head dimension of 1 to 256, got 257",
    ),
    "a head dimension of 0": (
        every(lambda x: x[..., :0]),
        ValueError,
        "q: expected a head dimension of 1 to 256, got 0",
    ),
    "a value dimension of 300": (
        mapped("v", lambda x: torch.rand(*x.shape[:3], 300)),
        ValueError,
        "v: expected a head dimension of 1 to 256, got 300",
    ),
    "float64": (
        every(Tensor.double),
        TypeError,
        "q: expected float16, bfloat16 or float32, got torch.float64",
    ),
    "integers": (every(Tensor.int), TypeError, "q: expected float16, bfloat16 or float32, got torch.int32"),
    "mixed dtypes": (
        mapped("k", Tensor.half),
        TypeError,
        "k: expected q's dtype torch.float32, got torch.float16",
    ),
    "another device": (
        mapped("v", lambda x: x.to("meta")),
        ValueError,
        "v: expected q's device cpu, got meta",
    ),
    "a sparse tensor": (
        mapped("q", Tensor.to_sparse),
        TypeError,
        "q: expected a dense tensor, got torch.sparse_coo",
    ),
    "an unknown layout": (
        replaced(layout="hbsd"),
        ValueError,
        "layout: expected 'bhsd' or 'bshd', got 'hbsd'",
    ),
    "the other layout": (replaced(layout="bshd"), ValueError, "q: expected heads that k's 6 divide, got 5"),
    "an input missing": (lambda given: given.pop("slopes"), TypeError, "missing .*'slopes'"),
    "an unknown keyword": (replaced(slope=1.0), TypeError, "unexpected keyword argument 'slope'"),
    "an input of a list": (replaced(slopes=[0.1, 0.2]), TypeError, "slopes: expected a tensor, got list"),
    "an input's dtype": (
        mapped("slopes", Tensor.half),
        TypeError,
        "slopes: expected torch.float32, got torch.float16",
    ),
    "an input's rank": (
        mapped("slopes", lambda x: x[None]),
        ValueError,
        r"slopes: expected dimensions \[heads\], got shape \(1, 2\)",
    ),
    "an input's size": (
        replaced(slopes=torch.rand(3)),
        ValueError,
        r"slopes: expected 2 \(heads\) or 1 in dimension 0, got 3",
    ),
    "an input's size of 0": (
        replaced(slopes=torch.rand(0)),
        ValueError,
        r"slopes: expected 2 \(heads\) or 1 in dimension 0, got 0",
    ),
    "an input's device": (
        mapped("slopes", lambda x: x.to("meta")),
        ValueError,
        "slopes: expected q's device cpu, got meta",
    ),
    "an input's gradient": (
        mapped("slopes", Tensor.requires_grad_),
        ValueError,
        "slopes: requires a gradient, .* not declare it 'grad'",
    ),
}


@pytest.mark.parametrize("case", WRONG_TENSORS)
def test_wrong_tensors_are_named(case: str) -> None:
    change, error, message = WRONG_TENSORS[case]
    with pytest.raises(error, match=message):
        call_alibi(change)


WRONG_NUMBERS = {
    "a param missing": ({"p": None}, TypeError, "missing .*'p'"),
    "a param of text": ({"p": "0.1"}, TypeError, "p: expected a number, got str"),
    "a param of a tensor": ({"p": torch.tensor(0.1)}, TypeError, "p: expected a number, got Tensor"),
    "a param of a bool": ({"p": True}, TypeError, "p: expected a number, got bool"),
    "a param beyond a float": ({"p": 10**400}, ValueError, "p: expected .* float holds, got"),
    "an int param of a float": ({"n": 2.0}, TypeError, "n: expected an int, got float"),
    "an int param of a bool": ({"n": True}, TypeError, "n: expected an int, got bool"),
    "an int param beyond int32": ({"n": 2**31}, ValueError, "n: expected an int of 32 bits, got 2147483648"),
    "an int param below int32": (
        {"n": -(2**31) - 1},
        ValueError,
        "n: expected an int of 32 bits, got -2147483649",
    ),
    "a bool param of an int": ({"f": 1}, TypeError, "f: expected True or False, got int"),
    "a divisor of 0": ({"n": 0}, ValueError, "n is 0, and the spec divides by it"),
    "a probability above 1": ({"p": 1.001}, ValueError, "dropout is a probability.*, got 1.00"),
    "a probability below 0": ({"p": -1e-9}, ValueError, "dropout is a probability.*, got -"),
    "a probability of NaN": ({"p": float("nan")}, ValueError, "dropout is a probability.*, got nan"),
    "a probability of infinity": ({"p": float("inf")}, ValueError, "dropout is a probability.*, got inf"),
    "a seed of text": ({"seed": "a"}, TypeError, "seed: expected an int, an int64 tensor or None, got str"),
    "a seed of a float": ({"seed": 1.0}, TypeError, "seed: expected an int, .* or None, got float"),
    "a seed of a bool": ({"seed": True}, TypeError, "seed: expected an int, .* or None, got bool"),
    "a seed beyond 64 bits": ({"seed": 2**64}, ValueError, "seed: expected an integer of at most 64 bits"),
    "a seed below 64 bits": (
        {"seed": -(2**63) - 1},
        ValueError,
        "seed: expected an integer of at most 64 bits",
    ),
    "two seeds": (
        {"seed": torch.tensor([1, 2])},
        ValueError,
        "seed: expected one int64, got 2 of torch.int64",
    ),
    "a seed of float32": (
        {"seed": torch.tensor(1.0)},
        ValueError,
        "seed: expected one int64, got 1 of torch.float32",
    ),
    "an input of int64": (
        {"lengths": torch.tensor([3])},
        TypeError,
        "lengths: expected torch.int32, got torch.int64",
    ),
}


@pytest.mark.parametrize("case", WRONG_NUMBERS)
def test_wrong_params_and_seeds_are_named(case: str) -> None:
    changed, error, message = WRONG_NUMBERS[case]
    with pytest.raises(error, match=message):
        call_dropped(**changed)


@pytest.mark.parametrize("empty", [{"q_len": 0}, {"k_len": 0}, {"batch": 0}])
def test_a_probability_is_checked_though_nothing_is_computed(empty: dict[str, int]) -> None:
    sizes = {"batch": 1, "q_len": 3, "k_len": 3, **empty}
    q = torch.randn(sizes["batch"], 1, sizes["q_len"], 16)
    k = torch.randn(sizes["batch"], 1, sizes["k_len"], 16)
    with pytest.raises(ValueError, match="dropout is a probability"):
        variant_of("param p: float", "dropout = p")(q, k, k, p=1.5)


NO_PROBABILITY = [
    ("1 / c", 0.0),
    ("c / c", 0.0),
    ("log(c)", 0.0),
    ("exp(c)", 1000.0),
    ("sqrt(c)", -1.0),
    ("rsqrt(c)", 0.0),
    ("sin(c)", INF),
    ("floor(c)", INF),
    ("c * c", 1e39),
    ("2.0 + int(c)", float("nan")),
]


@pytest.mark.parametrize(("dropout", "c"), NO_PROBABILITY)
def test_a_probability_that_cannot_be_computed_is_no_probability(dropout: str, c: float) -> None:
    with pytest.raises(ValueError, match="dropout is a probability"):
        variant_of("param c: float", f"dropout = {dropout}")(*tensors(), c=c, seed=1)


@pytest.mark.parametrize(
    ("dropout", "c"),
    [("0.4 if 1 / c > 3 else 0.0", 0.0), ("0.1 + 1 / exp(c)", 1000.0), ("0.2 / int(3 / c)", 0.0)],
)
def test_an_infinite_step_on_the_way_to_a_probability_is_ieees(dropout: str, c: float) -> None:
    variant = variant_of("param c: float", f"dropout = {dropout}")
    q, k, v = tensors()
    want = variant.reference(q, k, v, c=c, seed=1, dtype=torch.float32)
    torch.testing.assert_close(variant(q, k, v, c=c, seed=1), want, rtol=1e-4, atol=1e-5)


def test_more_arguments_than_q_k_v_are_given_by_name() -> None:
    with pytest.raises(TypeError) as caught:
        alibi()(*tensors(), torch.rand(2), 1.0)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "alibi() takes 3 positional arguments but 5 were given: inputs and params are given by name, "
        "as in alibi(q, k, v, slopes=...)"
    )
    with pytest.raises(TypeError, match=r"tested\(q, k, v, lengths=..., a=..., n=...\)"):
        mixed = "input lengths: int32[batch]", "param a: float", "param n: int = 2"
        variant_of(*mixed, "mask = k < lengths[b] * n", "score = a * score")(*tensors(), 1, 2)
    with pytest.raises(
        TypeError, match=r"options are given by name, as in .*\(q, k, v, seed=..., return_lse"
    ):
        variant_of("mask = causal")(*tensors(), 1)


@pytest.mark.parametrize(
    ("batch", "dims", "shape", "says"),
    [
        (2, "batch, 7", (2, 8), r"t: expected 7 or 1 in dimension 1, got 8"),
        (2, "batch, 7", (3, 7), r"t: expected 2 \(batch\) or 1 in dimension 0, got 3"),
        (1, "batch, 7", (2, 7), r"t: expected 1 \(batch\) in dimension 0, got 2"),
        (2, "1, 7", (2, 7), r"t: expected 1 in dimension 0, got 2"),
        (2, "batch, 7", (7,), r"t: expected dimensions \[batch, 7\], got shape \(7,\)"),
    ],
)
def test_an_inputs_shape_is_told_as_the_spec_writes_it(
    batch: int, dims: str, shape: tuple[int, ...], says: str
) -> None:
    first = "b" if dims.startswith("batch") else "0"
    variant = variant_of(f"input t: float32[{dims}]", f"score = score + t[{first}, q % 7]")
    q = torch.randn(batch, 1, 3, 16)
    with pytest.raises(ValueError, match=f"^{says}$"):
        variant(q, q, q, t=torch.zeros(shape))


def test_a_divisor_of_a_param_and_sizes_is_named_as_the_spec_has_it() -> None:
    variant = variant_of("param n: int", "mask = dist % (n - k_len) == 0")
    with pytest.raises(ValueError, match="n - k_len is 0, and the spec divides by it"):
        variant(*tensors(), n=6)


@pytest.mark.parametrize(
    ("scale", "c"),
    [
        ("1.0 / c", 0.0),
        ("sqrt(c)", -1.0),
        ("rsqrt(c)", 0.0),
        ("log(c)", 0.0),
        ("exp(c)", 1000.0),
        ("c * c", 1e30),
        ("sin(c)", float("inf")),
        ("floor(c)", float("inf")),
        ("0.1 + int(c)", float("nan")),
        ("c ** -2", 0.0),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinities
def test_a_scale_that_cannot_be_computed_is_refused_by_name_or_goes_on_as_ieee_has_it(
    scale: str, c: float
) -> None:
    variant = variant_of("param c: float", f"scale = {scale}")
    q, k, v = tensors()
    try:
        out = variant(q, k, v, c=c)
    except ValueError as error:
        assert "scale" in str(error)
        return
    want = variant.reference(q, k, v, c=c, dtype=torch.float32)  # float64 would hold what overflows here
    torch.testing.assert_close(out, want, equal_nan=True, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not INTERPRETED, reason="about Triton's interpreter")
def test_the_interpreter_refuses_bfloat16_by_name() -> None:
    with pytest.raises(TypeError, match=r"q: expected float16 or float32 .*, got torch.bfloat16"):
        alibi()(*tensors(dtype=torch.bfloat16), slopes=torch.rand(2))


def test_an_input_that_wants_a_gradient_is_fine_where_none_is_recorded() -> None:
    slopes = torch.rand(2, requires_grad=True)
    with torch.no_grad():
        out = alibi()(*tensors(), slopes=slopes)
    assert not out.requires_grad


def test_meta_tensors_give_the_results_shapes() -> None:
    q, k, v = (x.to("meta") for x in tensors(heads=4))
    out, lse = alibi()(q, k, v, slopes=torch.rand(4, device="meta"), return_lse=True)
    assert (out.shape, out.dtype, out.device.type) == ((1, 4, 5, 16), torch.float32, "meta")
    assert (lse.shape, lse.dtype) == ((1, 4, 5), torch.float32)


def test_deterministic_may_be_said_and_the_default_is_to_follow_torch() -> None:
    q, k, v = tensors()
    slopes = torch.rand(2)
    want = alibi()(q, k, v, slopes=slopes)
    for deterministic in (None, True, False):
        assert torch.equal(alibi()(q, k, v, slopes=slopes, deterministic=deterministic), want)


# ---- Without the interpreter ------------------------------------------------------------------------------


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process without Triton's interpreter."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path, **env},
        capture_output=True,
        text=True,
        check=False,
    )


CPU_PATH = """
import logging

import torch
import attngen
from attngen.testing import assert_matches_reference
from attngen.testing.tensor import Recipe

said = []
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("attngen").addHandler(handler)

torch.set_num_threads(1)
for name, given in (("alibi", {"slopes": torch.rand(2)}), ("gemma2_local", {}), ("dropped", {"p": 0.4})):
    variant = attngen.load(name)
    for dtype in ("float16", "bfloat16", "float32"):
        for layout in ("bhsd", "bshd"):
            swap = layout == "bshd"
            q = Recipe((2, 9, 2, 16) if swap else (2, 2, 9, 16), dtype, seed=1).build()
            k = Recipe((2, 12, 1, 16) if swap else (2, 1, 12, 16), dtype, "transposed", seed=2).build()
            v = Recipe((2, 12, 1, 24) if swap else (2, 1, 12, 24), dtype, "sliced", seed=3).build()
            assert_matches_reference(variant, q, k, v, layout=layout, **given)
    assert len([line for line in said if "row blocks" in line and line.startswith(name)]) == 1, said
print("agrees")
"""


def test_without_the_interpreter_cpu_tensors_run_in_row_blocks_and_it_is_said_once() -> None:
    done = python(CPU_PATH)
    assert done.stdout.splitlines()[-1:] == ["agrees"], done.stderr


def test_without_the_interpreter_wrong_calls_are_refused_alike() -> None:
    names = [
        "test_wrong_tensors_are_named",
        "test_wrong_params_and_seeds_are_named",
        "test_a_probability",
        "test_a_divisor",
    ]
    code = f"""
import sys, pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", {str(__file__)!r}, "-k", {" or ".join(names)!r}]))
"""
    done = python(code)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    cases = len(WRONG_TENSORS) + len(WRONG_NUMBERS) + 3 + len(NO_PROBABILITY) + 1
    assert f"{cases} passed" in done.stdout
