"""The edges people meet: second derivatives, autocast, torch.compile, checkpoints, strides.

Every promise here holds for the emitted kernels (in Triton's interpreter) and for the row blocks that CPU
tensors take without it: the last test runs the others there.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import qkv, same_bits, variant_of
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import attngen
from attngen.testing import assert_matches_reference
from attngen.variant import Variant

pytestmark = pytest.mark.usefixtures("one_thread")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ROOT = Path(__file__).parent.parent
HEADS, LENGTH = 2, 9
# Never launched on a CPU.
ON_SM_90 = ("hopper_forward_kernel", "hopper_backward_kernel", "finish_dq_kernel")
ON_SM_90 += ("hopper_wide_dkdv_kernel", "hopper_wide_dq_kernel")

SPECS: dict[str, tuple[str, ...]] = {
    "plain": ("mask = causal",),
    "learned": (
        "input table: float32[heads, 4] grad",
        "input gate: float32[heads] grad",
        "score = score * gate[h] + table[h, clamp(dist, 0, 3)]",
    ),
    "sinks": ("input sinks: float32[heads] grad", "mask = causal", "sink = sinks[h]"),
    "dropout": ("param p: float = 0.3", "mask = causal", "dropout = p"),
    "param": ("param cap: float = 2.0", "score = softcap(score, cap)"),
    "bias": ("input bias: float16[batch, 1, q_len, k_len]", "score = score + bias[b, 0, q, k]"),
}
LEARNED = ("table", "gate", "sinks")
# Two kinds in every run, the others among the slow tests.
KINDS = [k if k in ("learned", "dropout") else pytest.param(k, marks=pytest.mark.slow) for k in SPECS]


def spec(kind: str) -> Variant:
    return variant_of(*SPECS[kind])


def inputs(kind: str, q_len: int = LENGTH, k_len: int = LENGTH) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = {"table": (HEADS, 4), "gate": (HEADS,), "sinks": (HEADS,), "bias": (1, 1, q_len, k_len)}
    made = {n: torch.randn(s, generator=generator) for n, s in shapes.items()}
    named = {i.name: made[i.name] for i in spec(kind).ir.inputs}
    return {n: x.half() if n == "bias" else x for n, x in named.items()}


def seeded(kind: str) -> dict[str, int]:
    return {"seed": 11} if kind == "dropout" else {}


def tensors(kind: str, **sizes: Any) -> dict[str, Tensor]:
    """q, k, v and the learned inputs of a call, all of which require gradients; then the other inputs."""
    q, k, v = qkv(**{"heads": HEADS, "kv_heads": 1, "q_len": LENGTH, **sizes})
    named = {"q": q, "k": k, "v": v, **inputs(kind, q.shape[2], k.shape[2])}
    return {n: x.requires_grad_(n in ("q", "k", "v", *LEARNED)) for n, x in named.items()}


def cotangent(x: Tensor, seed: int = 3) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x.dtype)


# ---- Derivatives ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("result", ["out", "lse"])
def test_a_second_backward_raises_and_says_what_can_be_differentiated_twice(kind: str, result: str) -> None:
    given = tensors(kind)
    out, lse = spec(kind)(**given, **seeded(kind), return_lse=True)
    first = torch.autograd.grad({"out": out, "lse": lse}[result].sum(), given["q"], create_graph=True)[0]
    with pytest.raises(NotImplementedError, match=r"second backward.*variant\.reference"):
        torch.autograd.grad(first.sum(), given["k"])


def test_the_reference_can_be_differentiated_twice() -> None:
    leaves = [x.double().requires_grad_() for x in qkv(q_len=3, head_dim=4)]
    assert torch.autograd.gradgradcheck(lambda *x: spec("plain").reference(*x), leaves)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", KINDS)
def test_where_no_gradient_is_recorded_the_result_is_the_same_to_the_bit(kind: str, mode: Any) -> None:
    given = tensors(kind)
    want = spec(kind)(**given, **seeded(kind), return_lse=True)
    with mode():
        got = spec(kind)(**given, **seeded(kind), return_lse=True)
    assert same_bits(tuple(got), tuple(want))
    assert not any(x.requires_grad for x in got)


def test_tensors_made_in_inference_mode_are_taken() -> None:
    with torch.inference_mode():
        q, k, v = (x.clone() for x in qkv(q_len=5))
        out = spec("plain")(q, k, v)
    assert torch.equal(out, spec("plain")(*qkv(q_len=5)))


def run_with(kind: str, wanted: Sequence[str], lse: bool = False) -> dict[str, Tensor]:
    given = {n: x.detach().requires_grad_(n in wanted) for n, x in tensors(kind).items()}
    out, log_sum = spec(kind)(**given, **seeded(kind), return_lse=True)
    pairs = [(out, cotangent(out))] + ([(log_sum, cotangent(log_sum))] if lse else [])
    grads = torch.autograd.grad(
        [x for x, _ in pairs], [given[n] for n in wanted], [d for _, d in pairs], materialize_grads=True
    )
    return dict(zip(wanted, grads, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_any_subset_of_the_gradients_is_the_same_to_the_bit(kind: str) -> None:
    names = [n for n, x in tensors(kind).items() if x.requires_grad]
    full = run_with(kind, names, lse=True)
    for count in {1, len(names) - 1}:
        for wanted in itertools.combinations(names, count):
            for name, grad in run_with(kind, wanted, lse=True).items():
                assert torch.equal(grad, full[name]), (wanted, name)


@pytest.mark.skipif(not INTERPRETED, reason="about the kernels")
@pytest.mark.parametrize("kind", ["plain", "learned", "sinks"])
def test_kernels_whose_result_nobody_asked_for_are_not_launched(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = spec(kind).module
    launched: list[str] = []

    class Noted:
        def __init__(self, name: str) -> None:
            self.name, self.kernel = name, getattr(module, name)

        def __getitem__(self, grid: Any) -> Callable[..., None]:
            def run(*arguments: Any, **named: Any) -> None:
                launched.append("learned" if named.get("LEARNED") else self.name)
                self.kernel[grid](*arguments, **named)

            return run

    for name in ("dkdv_kernel", "dq_kernel"):
        monkeypatch.setattr(module, name, Noted(name))
    expected = {"q": {"dq_kernel"}, "k": {"dkdv_kernel"}, "v": {"dkdv_kernel"}}
    for name in (n for n, x in tensors(kind).items() if x.requires_grad):
        launched.clear()
        run_with(kind, [name])
        if name in LEARNED:
            assert "learned" in launched and "dkdv_kernel" not in launched
        else:
            assert set(launched) == expected[name], name


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_sum_exp_alone_has_its_gradients_and_v_gets_exactly_none(kind: str) -> None:
    given = tensors(kind)
    _, lse = spec(kind)(**given, **seeded(kind), return_lse=True)
    names = [n for n, x in given.items() if x.requires_grad]
    d_lse = cotangent(lse)
    grads = torch.autograd.grad(lse, [given[n] for n in names], d_lse, materialize_grads=True)
    wide = {n: x.detach().double().requires_grad_() if n in names else x for n, x in given.items()}
    _, exact = spec(kind).reference(**wide, **seeded(kind), return_lse=True)
    want = torch.autograd.grad(exact, [wide[n] for n in names], d_lse.double(), materialize_grads=True)
    for name, mine, right in zip(names, grads, want, strict=True):
        torch.testing.assert_close(mine.double(), right, rtol=1e-4, atol=1e-5, msg=name)
    assert torch.equal(grads[names.index("v")], torch.zeros_like(given["v"]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_sum_exp_that_nobody_uses_changes_no_bit(kind: str) -> None:
    given = tensors(kind)
    names = [x for x in given.values() if x.requires_grad]
    out = spec(kind)(**given, **seeded(kind))
    again, _ = spec(kind)(**given, **seeded(kind), return_lse=True)
    want = torch.autograd.grad(out, names, cotangent(out))
    got = torch.autograd.grad(again, names, cotangent(out))
    assert torch.equal(out, again)
    assert same_bits(got, want)


# ---- Arguments --------------------------------------------------------------------------------------------

BAD = [
    *(("seed", x, "str|float|bool|list") for x in ("7", 7.0, True, [7])),
    *(("deterministic", x, "str|int|Tensor") for x in ("yes", 1, torch.tensor(True))),
]


@pytest.mark.parametrize(("name", "value", "kind"), BAD, ids=lambda x: str(x)[:12])
@pytest.mark.parametrize("variant", ["plain", "dropout"])
def test_an_option_of_the_wrong_type_is_refused_by_name(
    variant: str, name: str, value: Any, kind: str
) -> None:
    with pytest.raises(TypeError, match=rf"^{name}: expected .* None, got ({kind})$"):
        spec(variant)(*qkv(q_len=3), **{name: value})


@pytest.mark.parametrize(
    "dtypes",
    [*itertools.product(("half", "float", "double"), ("half", "int"), ("half", "float"))],
    ids="-".join,
)
def test_other_and_mixed_dtypes_are_refused_by_name(dtypes: tuple[str, ...]) -> None:
    q, k, v = (getattr(x, dtype)() for x, dtype in zip(qkv(q_len=3), dtypes, strict=True))
    if set(dtypes) == {"half"}:
        spec("plain")(q, k, v)
        return
    with pytest.raises(TypeError, match=r"^[qkv]: expected .* got torch\.(float|int)\d+$"):
        spec("plain")(q, k, v)


@pytest.mark.parametrize("text", [None, b"variant x", 3, Path("x.attn")])
def test_what_is_no_text_is_no_spec(text: Any) -> None:
    with pytest.raises(TypeError, match=rf"text: expected a spec as a str, got {type(text).__name__}"):
        attngen.compile(text)


@pytest.mark.parametrize("path", [None, b"causal", 3, ["causal"]])
def test_what_is_no_path_is_no_file(path: Any) -> None:
    with pytest.raises(TypeError, match=rf"expected a str or a path, got {type(path).__name__}"):
        attngen.load(path)


def test_numpys_numbers_are_numbers() -> None:
    variant = variant_of(
        "param c: float = 2.0",
        "param n: int = 3",
        "param f: bool = True",
        "param p: float = 0.2",
        "score = softcap(score, c) + k // n if f else score",
        "dropout = p",
    )
    q, k, v = qkv(q_len=4)
    want = variant(q, k, v, c=1.5, n=2, f=False, p=0.25, seed=9)
    got = variant(
        q, k, v, c=np.float32(1.5), n=np.int64(2), f=np.bool_(False), p=np.float64(0.25), seed=np.uint8(9)
    )
    assert torch.equal(got, want)
    for wrong in ({"n": np.float32(2.0)}, {"f": np.int64(1)}, {"c": np.bool_(True)}, {"n": np.array([1])}):
        with pytest.raises(TypeError, match=rf"^{next(iter(wrong))}: expected"):
            variant(q, k, v, **wrong)


NAMES = [
    "dout", "dlse", "d_out", "d_lse", "out", "lse", "parts", "ctx", "tensors", "own", "wanted",
    "needs_q", "needs_kv", "nothing", "grads", "result", "torch", "numbers", "self", "cls", "args",
    "kwargs", "inputs", "params", "func", "op", "schema", "default", "alias", "device", "Tensor", "Scalar",
    "nan", "inf", "None", "number", "string", "Any", "Optional", "List", "Dict", "Tuple", "Future", "Union",
    "Generator", "Storage", "Device", "int", "float", "bool", "str", "complex", "ident", "Stream", "SymInt",
    "print", "like_rows", "empty_backward", "name", "value", "kinds", "cast", "seed", "q", "dtype",
]  # fmt: skip


def accepted(name: str) -> bool:
    """Whether the language takes this as a name: it keeps its own words, and Python's."""
    try:
        variant_of(f"input {name}: float32[heads]")
    except attngen.AttnGenError as error:
        assert f"'{name}'" in str(error) or "expected" in str(error), error
        return False
    return True


@pytest.mark.slow
def test_no_name_of_an_input_or_a_param_clashes_with_the_operators() -> None:
    names = [n for n in NAMES if accepted(n)]
    assert {"dout", "d_out", "out", "lse", "self", "ctx", "nan", "Tensor"} <= set(names)
    assert not {"q", "seed", "inf", "None", "dtype"} & set(names)
    plain = [f"plain_{n}" for n in range(len(names))]
    parts = [names[n::6] for n in range(6)]
    for learned, numbers in zip(parts, (*parts[1:], parts[0]), strict=True):
        results = []
        for inputs_, params in (
            (learned, numbers),
            (plain[: len(learned)], plain[len(learned) :][: len(numbers)]),
        ):
            variant = variant_of(
                *(f"input {n}: float32[heads] grad" for n in inputs_),
                *(f"param {n}: float" for n in params),
                "score = score + dist * (" + " + ".join(f"{n}[h]" for n in inputs_) + ")",
                "score = score + k * (" + " + ".join(params) + ")",
            )
            leaves = [x.requires_grad_() for x in qkv(q_len=3)]
            weights = [torch.full((1,), 0.01, requires_grad=True) for _ in inputs_]
            given = {**dict(zip(inputs_, weights, strict=True)), **dict.fromkeys(params, 0.02)}
            out = variant(*leaves, **given)
            results.append((out, *torch.autograd.grad(out, [*leaves, *weights], cotangent(out))))
        assert same_bits(*results)


# ---- Processes --------------------------------------------------------------------------------------------


def trained(kind: str, variant: Variant) -> tuple[Tensor, ...]:
    given = tensors(kind)
    out = variant(**given, **seeded(kind))
    leaves = [x for x in given.values() if x.requires_grad]
    return tuple(x.detach() for x in (out, *torch.autograd.grad(out, leaves, cotangent(out))))


def work(kind: str, variant: Variant, queue: Any) -> None:
    queue.put(pickle.dumps([x.numpy() for x in trained(kind, variant)]))


@pytest.mark.slow
def test_spawned_workers_give_the_same_bits_forward_and_backward() -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=work, args=("learned", spec("learned"), queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [pickle.loads(queue.get(timeout=120)) for _ in workers]
    for worker in workers:
        worker.join()
    want = [x.numpy() for x in trained("learned", spec("learned"))]
    for got in found:
        assert all(np.array_equal(x, y) for x, y in zip(got, want, strict=True))


# ---- Autocast ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given_dtype", [torch.float32, torch.float16])
def test_autocast_computes_in_its_dtype_and_gradients_keep_their_tensors(
    kind: str, given_dtype: torch.dtype
) -> None:
    given = tensors(kind)
    given["k"] = given["k"].detach().to(given_dtype).requires_grad_()  # mixed, as autocast leaves them
    leaves = [x for x in given.values() if x.requires_grad]
    with torch.autocast("cpu", dtype=torch.float16):
        out, lse = spec(kind)(**given, **seeded(kind), return_lse=True)
    grads = torch.autograd.grad(out, leaves, cotangent(out))
    assert (out.dtype, lse.dtype) == (torch.float16, torch.float32)
    assert [g.dtype for g in grads] == [x.dtype for x in leaves]
    cast = {n: x.detach().half() if n in "qkv" else x.detach() for n, x in given.items()}
    cast = {n: x.requires_grad_(given[n].requires_grad) for n, x in cast.items()}
    want = spec(kind)(**cast, **seeded(kind))
    want_grads = torch.autograd.grad(want, [x for x in cast.values() if x.requires_grad], cotangent(out))
    assert torch.equal(out, want)
    assert all(torch.equal(g, w.to(g.dtype)) for g, w in zip(grads, want_grads, strict=True))


def test_under_autocast_a_float_input_is_taken_in_the_specs_dtype() -> None:
    given = tensors("learned")
    with torch.autocast("cpu", dtype=torch.float16):
        low = {n: x.half() if n in LEARNED else x for n, x in given.items()}
        out = spec("learned")(**low)
        want = spec("learned")(**{n: x.float() if n in LEARNED else x for n, x in low.items()})
    assert torch.equal(out, want)
    with pytest.raises(TypeError, match=r"table: expected torch.float32, got torch.float16"):
        spec("learned")(**low)


def test_autocast_refuses_float64_and_ints_by_name_and_switched_off_it_changes_nothing() -> None:
    q, k, v = qkv(q_len=3)
    with torch.autocast("cpu", dtype=torch.float16):
        for wrong in (q.double(), q.int()):
            with pytest.raises(TypeError, match=r"^q: expected float16, bfloat16 or float32, got torch"):
                spec("plain")(wrong, k, v)
        with torch.autocast("cpu", enabled=False):
            assert torch.equal(spec("plain")(q, k, v), spec("plain")(*qkv(q_len=3)))


def test_the_reference_computes_in_its_own_dtype_under_autocast() -> None:
    q, k, v = qkv(q_len=5)
    want = spec("plain").reference(q, k, v, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(spec("plain").reference(q, k, v, dtype=torch.float32), want)  # type: ignore[arg-type]


def test_a_backward_inside_autocast_gives_the_same_bits() -> None:
    given = tensors("learned")
    leaves = [x for x in given.values() if x.requires_grad]
    out = spec("learned")(**given)
    want = torch.autograd.grad(out, leaves, cotangent(out), retain_graph=True)
    with torch.autocast("cpu", dtype=torch.float16):
        assert same_bits(torch.autograd.grad(out, leaves, cotangent(out)), want)


# ---- torch.compile, operators, checkpoints ----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_torch_compile_makes_one_graph_of_five_lengths(kind: str) -> None:
    graphs = []

    def counting(module: Any, _: Any) -> Any:
        graphs.append(module)
        return module.forward

    def layer(x: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        out, lse = spec_(**{**x, "q": x["q"] * 2.0}, **seeded(kind), return_lse=True)
        return out + 1.0, lse

    spec_ = spec(kind)
    torch.compiler.reset()
    compiled = torch.compile(layer, backend=counting, fullgraph=True, dynamic=True)
    for q_len, k_len in ((5, 7), (9, 8), (16, 20), (33, 17), (2, 40)):
        given = tensors(kind, q_len=q_len, k_len=k_len)
        leaves = [x for x in given.values() if x.requires_grad]
        results = []
        for f in (layer, compiled):
            out, lse = f(given)
            results.append(
                (out, lse, *torch.autograd.grad([out, lse], leaves, [cotangent(out), cotangent(lse)]))
            )
        assert same_bits(*results)
    assert len(graphs) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["learned", "dropout"])
def test_torch_compile_traces_the_backward_too_once_for_five_lengths(kind: str) -> None:
    from torch._dynamo.utils import counters

    variant = spec(kind)
    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(variant, backend="aot_eager", fullgraph=True, dynamic=True)
    for length in (5, 9, 16, 33, 12):
        given = tensors(kind, q_len=length)
        leaves = [x for x in given.values() if x.requires_grad]
        results = []
        for f in (variant, compiled):
            out = f(**given, **seeded(kind))
            results.append((out, *torch.autograd.grad(out, leaves, cotangent(out))))
        assert same_bits(*results)
    assert counters["stats"]["unique_graphs"] == 1


def test_torch_compile_draws_a_seed_inside_the_graph() -> None:
    q, k, v = qkv(q_len=20)
    torch.compiler.reset()
    compiled = torch.compile(spec("dropout"), backend="aot_eager", fullgraph=True)
    torch.manual_seed(4)
    first, second = compiled(q, k, v, p=0.5), compiled(q, k, v, p=0.5)
    torch.manual_seed(4)
    assert torch.equal(compiled(q, k, v, p=0.5), first)
    assert not torch.equal(first, second)


def test_torch_compile_keeps_autocasts_dtype() -> None:
    q, k, v = qkv(q_len=6)

    def layer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.float16):
            out = spec_(q, k, v)
        assert isinstance(out, Tensor)
        return out

    spec_ = spec("plain")
    torch.compiler.reset()
    assert torch.equal(torch.compile(layer, backend="aot_eager", fullgraph=True)(q, k, v), layer(q, k, v))


def operator_arguments(kind: str, bshd: bool) -> tuple[Any, ...]:
    given = tensors(kind, v_dim=24)
    q, k, v = (given[n].detach() for n in "qkv")
    if bshd:
        q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    own = [x.detach() for n, x in given.items() if n not in "qkv"]
    seed = [torch.tensor([3])] if kind == "dropout" else []
    params = [p.default for p in spec(kind).ir.params]
    flag = [True] if hasattr(spec(kind).module, "takes_hopper") else []  # deterministic
    return (q, k, v, *own, *seed, *params, *flag)


@pytest.mark.slow
@pytest.mark.parametrize("bshd", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_opcheck_finds_no_fault_with_the_forward(kind: str, bshd: bool) -> None:
    arguments = operator_arguments(kind, bshd)
    learned = [arguments[3 + n] for n, i in enumerate(spec(kind).ir.inputs) if i.grad]
    for x in (*arguments[:3], *learned):
        x.requires_grad_()
    torch.library.opcheck(spec(kind).module.forward_operator, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("bshd", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_opcheck_finds_no_fault_with_the_backward(kind: str, bshd: bool) -> None:
    arguments = operator_arguments(kind, bshd)
    module: Any = spec(kind).module
    results = module.forward_operator(*arguments)
    has_learned = any(i.grad for i in spec(kind).ir.inputs)
    for needs in itertools.product((True, False), repeat=3 if has_learned else 2):
        for d_lse in (torch.randn_like(results[1]), None):
            more = (*arguments, *results, torch.randn_like(results[0]), d_lse, *needs)
            torch.library.opcheck(module.backward_operator, more)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("seed", [None, 12, torch.tensor([12])], ids=["drawn", "int", "tensor"])
def test_checkpointing_changes_no_bit_of_dropout(reentrant: bool, seed: Any) -> None:
    def layer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = spec("dropout")(q * 1.5, k, v, p=0.5, seed=seed)
        assert isinstance(out, Tensor)
        return out

    results = []
    for replayed in (False, True):
        leaves = [x.requires_grad_() for x in qkv(q_len=20)]
        torch.manual_seed(8)
        out = checkpoint(layer, *leaves, use_reentrant=reentrant) if replayed else layer(*leaves)
        torch.rand(3)  # what else draws before the backward is of no consequence
        out.backward(cotangent(out))
        results.append((out.detach(), *(x.grad for x in leaves)))
    assert same_bits(*results)
    assert (results[0][0] != 0).any()


# ---- Shapes and strides -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("head_dim", "v_dim"), [(16, 40), (48, 16), (8, 1), (1, 33)])
@pytest.mark.parametrize("kind", ["learned", "sinks", "dropout"])
def test_v_may_be_wider_or_narrower_than_q(kind: str, head_dim: int, v_dim: int) -> None:
    given = tensors(kind, head_dim=head_dim, v_dim=v_dim, k_len=12)
    assert_matches_reference(spec(kind), **{n: x.detach() for n, x in given.items()}, **seeded(kind))


@pytest.mark.skipif(not INTERPRETED, reason="about the kernels")
@pytest.mark.parametrize("kind", KINDS)
def test_batch_times_heads_may_pass_65535_since_only_the_first_axis_of_a_grid_grows_with_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = spec(kind).module
    grids: dict[str, tuple[int, ...]] = {}

    class Noted:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            grids[self.name] = grid
            return lambda *arguments, **named: None

    kernels = [n for n in vars(module) if n.endswith("_kernel") or n.startswith("spread_")]
    kernels = [n for n in kernels if n not in ON_SM_90]
    for name in kernels:
        monkeypatch.setattr(module, name, Noted(name))
    given = tensors(kind, batch=40_000, head_dim=1, q_len=1)
    given |= {"bias": torch.zeros(1, 1, 1, 1, dtype=torch.float16)} if kind == "bias" else {}
    out = spec(kind)(**given, **seeded(kind))
    torch.autograd.grad(out, [x for x in given.values() if x.requires_grad], torch.zeros_like(out))
    assert set(grids) == set(kernels) >= {"forward_kernel", "dq_kernel", "dkdv_kernel", "delta_kernel"}
    assert all(max(grid[1:], default=1) <= 65_535 for grid in grids.values())
    assert grids["forward_kernel"] == (80_000,)


def laid_out(x: Tensor, kind: str) -> Tensor:
    """The same values, at other places."""
    x = x.detach()
    if kind == "transposed":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if kind == "columns":
        return x.mT.contiguous().mT
    if kind == "backwards":
        return x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    if kind == "offset":
        return torch.cat([x.new_full((3,), float("nan")), x.reshape(-1)])[3:].view(x.shape)
    if kind == "sliced":
        wide = x.new_full((*x.shape[:-1], 2 * x.shape[-1] + 1), float("nan"))
        wide[..., 1::2] = x
        return wide[..., 1::2]
    return x


LAYOUTS = ["transposed", "columns", "backwards", "offset", "sliced"]


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.sampled_from(["contiguous", *LAYOUTS]), min_size=4, max_size=4))
@settings(max_examples=2)
def test_where_tensors_lie_changes_no_bit(kind: str, places: list[str]) -> None:
    given_ = tensors(kind)
    results = []
    for layouts in (["contiguous"] * 4, places):
        laid = [laid_out(given_[n], p).requires_grad_() for n, p in zip("qkv", layouts, strict=False)]
        others = {n: x for n, x in given_.items() if n not in "qkv"}
        out = spec(kind)(*laid, **others, **seeded(kind))
        d_out = laid_out(cotangent(out), layouts[3])
        leaves = [*laid, *(x for x in others.values() if x.requires_grad)]
        results.append((out, *torch.autograd.grad(out, leaves, d_out)))
    if INTERPRETED:
        assert same_bits(*results)
    else:  # matrix products of torch's own depend on the strides
        for one, two in zip(*results, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("which", ["q", "k", "v", "d_out"])
def test_expanded_tensors_give_what_their_copies_give(which: str, axes: tuple[int, ...]) -> None:
    """A stride of 0 along these axes: one key for all, one gradient for all."""
    q, k, v = qkv(batch=2, heads=2, q_len=7)
    full = {"q": q, "k": k, "v": v, "d_out": cotangent(q)}
    part = full[which]
    for axis in axes:
        part = part.narrow(axis, 0, 1)
    shape = full[which].shape
    results = []
    for x in (part.expand(shape), part.expand(shape).contiguous()):
        now = {**full, which: x}
        leaves = [now[n].detach().requires_grad_() for n in "qkv"]
        out, lse = spec("plain")(*leaves, return_lse=True)
        results.append((out, lse, *torch.autograd.grad(out, leaves, now["d_out"])))
    assert results[0][0].is_contiguous()
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    assert not INTERPRETED or same_bits(*results)


@given(st.tuples(*[st.sampled_from([0, 1, 3, 2**40])] * 4))
@settings(max_examples=4)
def test_strides_of_a_dimension_of_one_are_never_used(strides: tuple[int, int, int, int]) -> None:
    want: tuple[Tensor, ...] = ()
    for own in (None, strides):
        leaves = []
        for x in (torch.full((1, 1, 1, 1), 0.5), *(torch.arange(3.0).view(1, 1, 3, 1) for _ in range(2))):
            odd = [s if n == 1 else x.stride(i) for i, (s, n) in enumerate(zip(own or x.stride(), x.shape))]  # noqa: B905
            leaves.append(x.as_strided(x.shape, odd).requires_grad_())
        out = spec("learned")(*leaves, table=torch.ones(1, 4), gate=torch.ones(1))
        got = (
            out,
            *torch.autograd.grad(out, leaves, torch.ones_like(out).as_strided(out.shape, own or (1,) * 4)),
        )
        assert not want or same_bits(got, want)
        want = got


def test_offsets_beyond_two_to_the_31_elements_are_addressed() -> None:
    """Two heads that lie 2**31 + 64 elements apart, in memory of which only what is touched exists."""
    apart, length = 2**31 + 64, 5
    plain = [x.detach() for x in qkv(heads=2, q_len=length, dtype="float16")]
    far = []
    for x in plain:
        room = torch.empty(apart + x[0, 0].numel(), dtype=torch.float16)
        far.append(room.as_strided(x.shape, (0, apart, x.shape[3], 1)).copy_(x))
    results = []
    for tensors_ in (plain, far):
        leaves = [x.detach().requires_grad_() for x in tensors_]
        out = spec("plain")(*leaves)
        d_out = cotangent(out) if tensors_ is plain else far_copy(cotangent(out), apart)
        results.append((out, *torch.autograd.grad(out, leaves, d_out)))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


def far_copy(x: Tensor, apart: int) -> Tensor:
    room = torch.empty(apart + x[0, 0].numel(), dtype=x.dtype)
    return room.as_strided(x.shape, (0, apart, x.shape[3], 1)).copy_(x)


@pytest.mark.parametrize("axis", range(4))
def test_inputs_whose_offsets_pass_two_to_the_31_elements_are_addressed(axis: int) -> None:
    """A dense input whose last index along one axis lies past 2**31 elements from its first."""
    variant = variant_of(
        "input bias: float16[batch, heads, q_len, k_len]", "score = score + bias[b, h, q, k]"
    )
    q, k, v = qkv(batch=2, heads=2, q_len=3, k_len=4)
    shape = (2, 2, 3, 4)
    near = cotangent(torch.empty(shape, dtype=torch.float16))
    strides = list(near.stride())
    strides[axis] = 2**31 // (shape[axis] - 1) + 64
    room = torch.empty(sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1, dtype=torch.float16)
    far = room.as_strided(shape, strides).copy_(near)
    assert torch.equal(variant(q, k, v, bias=far), variant(q, k, v, bias=near))


# ---- Without the interpreter ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not INTERPRETED, reason="is what runs now")
def test_all_this_holds_without_the_interpreter() -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "not opcheck", __file__],
        env={**os.environ, "TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
