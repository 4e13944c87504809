"""The short way of a plain call changes nothing but its time: a launch that is repeated is the fresh one.

Kernels are stood in for by objects that note their arguments, so that launches for sm_90, with descriptors,
can be compared where there is no GPU.
"""

from __future__ import annotations

import gc
import math
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import qkv, same_bits, variant_of
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import attngen
from attngen.variant import Variant

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="about the kernels")

SPECS = {
    "plain": ("mask = causal",),
    "inputs": (
        "input gate: float32[heads] grad",
        "input bias: float16[1, heads, q_len, k_len]",
        "score = score * gate[h] + bias[0, h, q, k]",
    ),
    "params": (
        "param cap: float = 2.0",
        "param reach: int = 4",
        "param on: bool = True",
        "param p: float = 0.25",
        "score = softcap(score, cap) if on else score",
        "mask = dist < reach",
        "dropout = p",
    ),
    "product": (
        "input r_q: float16[batch, heads, q_len, 8]",
        "input r_k: float16[batch, heads, k_len, 8]",
        "score = score + dot(r_q[b, h, q], r_k[b, h, k])",
    ),
    "sums": (  # by Gluon's kernels of keys and, for the sink, of queries; by Triton's of queries
        "input slopes: float32[heads] grad",
        "input sinks: float32[heads] grad",
        "score = score - slopes[h] * dist",
        "mask = causal",
        "sink = sinks[h]",
    ),
    "no_softmax": ("normalize = relu",),
    "looks": ("input keep: bool[q_len, k_len]", "mask = causal and keep[q, k]"),
}
HEADS = 2


@cache
def spec(kind: str) -> Variant:
    """With Gluon's kernels, where these gather sums too; what runs in the interpreter has Triton's alone."""
    lines = ["variant tested", *SPECS[kind]]
    return attngen.compile("\n".join(lines), backend="hopper" if kind == "sums" else "triton")


def inputs(kind: str, q_len: int, k_len: int, batch: int) -> dict[str, Tensor]:
    shapes = {
        "gate": (HEADS,),
        **dict.fromkeys(("slopes", "sinks"), (HEADS,)),
        "bias": (1, HEADS, q_len, k_len),
        "r_q": (batch, HEADS, q_len, 8),
        "r_k": (batch, HEADS, k_len, 8),
        "keep": (q_len, k_len),
    }
    declared = {i.name: getattr(torch, i.dtype) for i in spec(kind).ir.inputs}
    return {n: torch.randn(shapes[n]).to(d) for n, d in declared.items()}


# ---- What is launched -------------------------------------------------------------------------------------


class Compiled(triton.compiler.CompiledKernel):
    """What Triton made of a kernel: it notes how it is launched."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.function, self.packed_metadata = kernel, "function", "metadata"

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        """As one launches it by hand."""
        return lambda *arguments: self.kernel.noted.append((self.kernel.name, grid, arguments))

    @property
    def run(self) -> Callable[..., None]:
        """As ``JITFunction.run`` launches it."""

        def run(x: int, y: int, z: int, *arguments: Any) -> None:
            assert arguments[:6] == (STREAM, "function", "metadata", None, None, None)
            self.kernel.noted.append((self.kernel.name, (x, y, z), arguments[6:]))

        return run


STREAM = 77
ROOMS: list[Tensor] = []  # of the call that was last noted


def noted_room(room: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(launcher: Any, *arguments: Any, **named: Any) -> Tensor:
        ROOMS.append(room(launcher, *arguments, **named))
        return ROOMS[-1]

    return run


def noted_sums(gather: Callable[..., Any], noted: list[Any]) -> Callable[..., Any]:
    """What adds up the sums of learned inputs, by which of the room's they are."""

    def run(sum_of: tuple[Tensor, ...], *arguments: Any) -> Any:
        for x in sum_of:
            noted.append(("sums", (*x.shape, *x.stride()), (x,)))
        return gather(sum_of, *arguments)

    return run


class Kernel:
    """A kernel that is launched for the first time with what it is called with."""

    def __init__(self, name: str, kernel: Any, noted: list[Any]) -> None:
        self.name, self.arg_names, self.noted = name, kernel.arg_names, noted
        self.fresh = 0

    def __getitem__(self, grid: Any) -> Callable[..., Compiled]:
        def run(*arguments: Any, **named: Any) -> Compiled:
            self.fresh += 1
            rest = (named[name] for name in self.arg_names[len(arguments) :])
            self.noted.append((self.name, (*grid, 1, 1)[:3], (*arguments, *rest)))
            return Compiled(self)

        return run


@contextmanager
def noted_launches(
    module: ModuleType, target: str, stream: int | None = STREAM, multiprocessors: int = 1
) -> Iterator[tuple[list[Any], list[Kernel]]]:
    """Where the module's kernels are noted instead of run, as on ``target``; no call was seen."""
    noted: list[Any] = []
    kernels = []
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in vars(module) if n.endswith("_kernel")]:
            kernels.append(Kernel(name, getattr(module, name), noted))
            patch.setattr(module, name, kernels[-1])
        patch.setattr(module, "target_of", lambda q: "float32" if q.dtype == torch.float32 else target)
        patch.setattr(module, "CALLS", {})
        patch.setattr(module.Launcher, "room", noted_room(module.Launcher.room))
        patch.setattr(module, "known_stream", lambda device: stream)
        if hasattr(module, "gather_learned"):
            patch.setattr(module, "gather_learned", noted_sums(module.gather_learned, noted))
        card = SimpleNamespace(multi_processor_count=multiprocessors)
        patch.setattr(torch.cuda, "get_device_properties", lambda device: card)
        patch.setattr(torch.cuda, "current_device", lambda: -1)  # where CPU tensors say that they are
        yield noted, kernels


def readable(argument: Any, names: dict[int, str], rooms: Sequence[Tensor] = ()) -> Any:
    """An argument as Triton's launcher reads it: addresses by name, or as "new" where they are nobody's; in
    rooms by how far they lie from the start."""
    if isinstance(argument, Tensor):
        argument = argument.data_ptr()
    if hasattr(argument, "base"):
        own = {n: x for n, x in vars(argument).items() if n != "base"}
        return readable(argument.base.data_ptr(), names, rooms), own
    if type(argument) is not int or argument <= 2**32:
        return argument
    for room in rooms:
        ahead = argument - room.data_ptr()
        if 0 <= ahead < room.nbytes:
            return f"{ahead} in {tuple(room.shape)}"
    return names.get(argument, "new")


def laid(x: Tensor, place: str) -> Tensor:
    if place == "apart":
        return torch.cat([x, x], 3)[..., : x.shape[3]]
    if place == "heads last":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if place == "odd":  # no multiple of 16 bytes
        room = torch.empty(x.numel() + 1, dtype=x.dtype)
        return room[1:].view(x.shape).copy_(x)
    return x


PARAMS = {
    "cap": (2.0, 2, 3.0, True, "2"),
    "reach": (4, 4.0, True, 1, 2**31),
    "on": (True, False, 1),
    "p": (0.25, 0.0, -0.0, 1, 2.0),
    "seed": (3, torch.tensor([4])),
}
WRONG: dict[str, Callable[[Tensor], Any]] = {
    "double": lambda x: x.detach().double(),
    "no batch": lambda x: x.detach()[0],
    "empty": lambda x: x.detach()[:0],
    "a list": lambda x: [x],
}


def fields(kind: str) -> dict[str, tuple[Any, ...]]:
    """What a call is made of, and the values of each."""
    names = ("q", "k", "v", *(i.name for i in spec(kind).ir.inputs if i.dtype != "bool"))
    return {
        "lengths": ((64, 64), (64, 200), (200, 64), (1, 64)),
        "batch": (1, 2),
        "width": (64, 128, 40),
        "dtype": (torch.float16, torch.float32),
        "laid": (None, *names),
        "place": ("apart", "heads last", "odd"),
        "wants": (names, ("q", "k", "v"), ("q",), ("k", "v"), ()),
        "wrong": (None, *names),
        "how": tuple(WRONG),
        "layout": ("bhsd", "bshd"),
        "deterministic": (None, True),
        "grad": (True, False),
        "d_out": ("in order", "odd", "heads last", "apart"),
        "precision": ("highest", "high"),
        **(PARAMS if kind == "params" else {}),
    }


def choices(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """A call that is right, mostly."""
    right = fields(kind) | {"wrong": (None,)}
    return st.fixed_dictionaries({name: st.sampled_from(values) for name, values in right.items()})


def neighbours(kind: str, first: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """``first`` with one thing at a time another."""
    for name, values in fields(kind).items():
        yield from (first | {name: value} for value in values)


def arguments_of(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    (q_len, k_len), batch, width, dtype = (choice[n] for n in ("lengths", "batch", "width", "dtype"))
    q, k, v = (torch.randn(batch, HEADS, n, width, dtype=dtype) for n in (q_len, k_len, k_len))
    named: dict[str, Any] = {"q": q, "k": k, "v": v, **inputs(kind, q_len, k_len, batch)}
    if choice["laid"] is not None and named[choice["laid"]].dim() == 4:
        named[choice["laid"]] = laid(named[choice["laid"]], choice["place"])
    named = {n: x.requires_grad_(n in choice["wants"]) for n, x in named.items()}
    if choice["layout"] == "bshd":
        named |= {n: named[n].transpose(1, 2) for n in "qkv"}
    if choice["wrong"] is not None:
        named[choice["wrong"]] = WRONG[choice["how"]](named[choice["wrong"]])
    own = {n: choice[n] for n in PARAMS if n in choice}
    return {**named, "layout": choice["layout"], "deterministic": choice["deterministic"], **own}


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return type(error), str(error)


def called(variant: Variant, call: dict[str, Any], noted: list[Any], d_out: str) -> Any:
    """All there is to see of a call and its backward: the error, or results, gradients and launches."""
    noted.clear()
    ROOMS.clear()
    more = {"return_lse": True} if variant.ir.is_softmax else {}
    found = outcome(lambda: variant(**call, **more))
    if isinstance(found[0], type):
        return found
    results = found if more else (found,)
    leaves = [x for x in call.values() if isinstance(x, Tensor) and x.requires_grad]
    if results[0].requires_grad:
        ahead = len(noted)
        gradient = laid(torch.ones_like(results[0]), d_out)
        results += torch.autograd.grad(results[0], leaves, gradient, allow_unused=True)
        assert len(noted) > ahead
    known = [x for x in (*call.values(), *results) if isinstance(x, Tensor)]
    names = {x.data_ptr(): f"tensor {number}" for number, x in enumerate(known)}
    launched = [
        (name, grid, [readable(x, names, ROOMS) for x in arguments]) for name, grid, arguments in noted
    ]
    return [x is not None and (x.shape, x.stride(), x.dtype) for x in results], launched


@pytest.mark.parametrize("target", ["sm_90", pytest.param("sm_80", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", SPECS)
def test_what_a_call_launches_and_raises_is_the_same_whatever_was_called_before(
    kind: str, target: str
) -> None:
    variant = spec(kind)
    module: Any = variant.module
    repeated: list[int] = []

    @settings(max_examples=3)
    @given(choices(kind))
    def check(first: dict[str, Any]) -> None:
        with noted_launches(module, target) as (noted, kernels):
            for choice in (first, *neighbours(kind, first)):
                call = arguments_of(kind, choice)
                torch.set_float32_matmul_precision(choice["precision"])
                with nullcontext() if choice["grad"] else torch.no_grad():
                    found = called(variant, call, noted, choice["d_out"])
                    before = sum(kernel.fresh for kernel in kernels)
                    again = called(variant, call, noted, choice["d_out"])
                    repeated.append(len(noted) and before == sum(kernel.fresh for kernel in kernels))
                    with pytest.MonkeyPatch.context() as patch:
                        patch.setattr(module, "CALLS", {})
                        assert found == again == called(variant, call, noted, choice["d_out"])

    try:
        check()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert sum(repeated) > 10


@pytest.mark.parametrize("target", ["sm_90", "sm_80"])
@pytest.mark.parametrize("kind", SPECS)
def test_a_call_like_one_before_makes_no_fresh_launch_and_has_its_own_addresses(
    kind: str, target: str
) -> None:
    module: Any = spec(kind).module
    with noted_launches(module, target) as (noted, kernels), torch.no_grad():
        for _ in range(3):
            q, k, v = (torch.randn(1, HEADS, 64, 64, dtype=torch.float16) for _ in "qkv")
            named = inputs(kind, 64, 64, 1)
            spec(kind)(q, k, v, **named)
            _, _, arguments = noted[-1]
            names = {x.data_ptr(): name for name, x in zip("qkv", (q, k, v), strict=True)}
            read = [readable(x, names) for x in arguments]
            assert {"q", "k", "v"} <= {x[0] if isinstance(x, tuple) and x else x for x in read}
        each = 2 if kind == "looks" else 1
        assert sum(kernel.fresh for kernel in kernels) == each
        assert len(noted) == 3 * each


def backward_launches(module: Any, change: Callable[[], Any]) -> int:
    """How many fresh launches the backward of a call makes that a like one preceded, under ``change``."""

    def call() -> Tensor:
        x = [torch.randn(1, 64, HEADS, 64).half().transpose(1, 2).requires_grad_() for _ in "qkv"]
        out: Tensor = module.tested(*x)
        return out

    with noted_launches(module, "sm_90") as (_, kernels):
        out = call()
        out.backward(torch.ones_like(out))
        with change():
            out = call()
            before = sum(kernel.fresh for kernel in kernels)
            out.backward(torch.ones_like(out))
        return sum(kernel.fresh for kernel in kernels) - before


def test_a_backward_sees_the_strides_and_the_precision_that_it_runs_with() -> None:
    module: Any = variant_of("mask = causal").module
    saved = torch.autograd.graph.saved_tensors_hooks
    assert backward_launches(module, nullcontext) == 0
    assert backward_launches(module, lambda: saved(lambda x: x.clone(), lambda x: x)) == 0

    def packed(x: Tensor) -> Tensor:  # as save_on_cpu leaves strides
        return x.contiguous().clone() if x.dim() == 4 else x

    assert backward_launches(module, lambda: saved(packed, lambda x: x)) > 0

    @contextmanager
    def high() -> Iterator[None]:
        torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision("highest")

    assert backward_launches(module, high) > 0


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("width", [64, 128, 256])
@pytest.mark.parametrize("kind", ["inputs", "sums"])
def test_the_gradients_of_learned_inputs_that_are_sums_are_repeated_too(
    kind: str, width: int, deterministic: bool
) -> None:
    variant = spec(kind)
    with noted_launches(variant.module, "sm_90") as (noted, kernels):
        for _ in range(3):
            before = sum(kernel.fresh for kernel in kernels)
            q, k, v = (torch.randn(1, HEADS, 64, width).half().requires_grad_() for _ in "qkv")
            named = inputs(kind, 64, 64, 1)
            learned = [named[i.name].requires_grad_() for i in variant.ir.inputs if i.grad]
            out = variant(q, k, v, **named, deterministic=deterministic)
            torch.autograd.grad(out, [q, k, v, *learned], torch.ones_like(out))
    assert sum(kernel.fresh for kernel in kernels) == before
    sums = [arguments for name, *_, arguments in noted if name == "sums"]
    assert len(sums) == 3 * len(learned)


@pytest.mark.parametrize("between", ["odd", "heads last"])
@pytest.mark.parametrize("width", [64, 128, 256])
def test_sums_are_looked_for_where_the_repeated_launches_leave_them(width: int, between: str) -> None:
    """Another backward between, in other rooms, changes nothing."""
    variant = spec("sums")
    usual = {name: values[0] for name, values in fields("sums").items()} | {"width": width}
    with noted_launches(variant.module, "sm_90") as (noted, kernels):
        for d_out in ("in order", between, "in order"):
            before = sum(kernel.fresh for kernel in kernels)
            found = called(variant, arguments_of("sums", usual), noted, d_out)
        assert sum(kernel.fresh for kernel in kernels) == before
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(variant.module, "CALLS", {})
            assert found == called(variant, arguments_of("sums", usual), noted, "in order")
    assert [name for name, *_ in found[1]].count("sums") == 2


def test_a_gradient_in_inference_mode_is_the_operators_affair() -> None:
    variant = variant_of("mask = causal")
    module: Any = variant.module
    module.CALLS.clear()
    with torch.inference_mode(), torch.enable_grad():
        q, k, v = (x.requires_grad_() for x in qkv(q_len=5, k_len=5))
        assert not module.is_plain(q, k, v)
    q, k, v = (x.requires_grad_() for x in qkv(q_len=5, k_len=5))
    variant(q, k, v).sum().backward()
    assert q.grad is not None


def test_a_layout_that_is_no_text_is_named_and_a_param_that_is_no_number_is_one_call() -> None:
    x = qkv(q_len=5, k_len=5)
    with pytest.raises(ValueError, match="layout: expected 'bhsd' or 'bshd'"):
        variant_of("mask = causal")(*x, layout=["bhsd"])
    variant = variant_of("param c: float = 2.0", "score = score * c")
    module: Any = variant.module
    module.CALLS.clear()
    for _ in range(3):
        variant(*x, c=math.nan)
    assert len(module.CALLS) == 1


def test_what_calls_leave_behind_is_bounded_and_holds_no_tensor() -> None:
    module: Any = spec("plain").module
    with noted_launches(module, "sm_90") as (noted, _), pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_CALLS", 4)
        alive = []
        for length in range(64, 72):
            q, k, v = (torch.randn(1, HEADS, length, 64, dtype=torch.float16) for _ in "qkv")
            for x in (q, k, v, *(spec("plain")(q, k, v, return_lse=True) for _ in range(2))):
                alive += [weakref.ref(y) for y in ([x] if isinstance(x, Tensor) else x)]
            assert len(module.CALLS) <= 4
        assert len(noted) == 16
        noted.clear()
        del q, k, v, x
        gc.collect()
        assert not any(ref() is not None for ref in alive[:-2])


def test_one_tensor_given_thrice_is_no_reason_to_take_it_for_the_next_calls_three() -> None:
    module: Any = spec("plain").module
    q, k, v = (torch.randn(1, HEADS, 64, 64, dtype=torch.float16) for _ in "qkv")
    with noted_launches(module, "sm_90") as (noted, kernels):
        for call in ((q, q, q), (q, k, v)):
            spec("plain")(*call)
        addresses = [x.base.data_ptr() for x in noted[-1][2] if hasattr(x, "base")]
    assert sum(kernel.fresh for kernel in kernels) == 1
    assert addresses[:3] == [x.data_ptr() for x in (q, k, v)]


@pytest.mark.parametrize(
    ("heads", "length", "width", "kernel"),
    [
        (16, 512, 64, "forward_kernel by pointers"),
        (32, 512, 64, "forward_kernel"),
        (16, 4096, 64, "hopper_forward_kernel"),
        (16, 512, 128, "forward_kernel"),
        (32, 512, 128, "hopper_forward_kernel"),
    ],
)
def test_a_forward_takes_the_kernel_that_fills_the_card(
    heads: int, length: int, width: int, kernel: str
) -> None:
    variant = attngen.compile("variant tested", backend="hopper")
    with noted_launches(variant.module, "sm_90", multiprocessors=132) as (noted, _):
        variant(*(torch.empty(1, heads, length, width, dtype=torch.float16) for _ in "qkv"))
    name, _, arguments = noted[0]
    by_pointers = isinstance(arguments[0], Tensor)
    assert name + (" by pointers" if by_pointers else "") == kernel


def test_a_layout_is_no_other_where_there_are_as_many_heads_as_queries() -> None:
    variant = variant_of("score = score + h")
    q, k, v = (torch.randn(1, HEADS, HEADS, 64, dtype=torch.float16) for _ in "qkv")
    with noted_launches(variant.module, "sm_80") as (noted, kernels):
        for layout in ("bhsd", "bshd", "bhsd"):
            variant(q, k, v, layout=layout)
    strides = [[x for x in call[2] if isinstance(x, tuple)] for call in noted]
    assert strides[0] == strides[2] != strides[1]
    assert sum(kernel.fresh for kernel in kernels) == 2


# ---- The operators, and what only they can serve ----------------------------------------------------------


def given_to(kind: str) -> dict[str, Any]:
    torch.manual_seed(1)
    call: dict[str, Any] = dict(zip("qkv", qkv(heads=HEADS, q_len=12, dtype="float16"), strict=True))
    call |= inputs(kind, 12, 12, 1)
    learned = {i.name for i in spec(kind).ir.inputs if i.grad}
    call = {n: x.requires_grad_(n in ("q", "k", "v") or n in learned) for n, x in call.items()}
    return {**call, "seed": 5} if kind == "params" else call


def everything(kind: str, call: dict[str, Any]) -> tuple[Tensor, ...]:
    """The results and the gradients of a call."""
    results = spec(kind)(**call, **({"return_lse": True} if spec(kind).ir.is_softmax else {}))
    results = results if isinstance(results, tuple) else (results,)
    leaves = [x for x in call.values() if isinstance(x, Tensor) and x.requires_grad]
    return (*results, *torch.autograd.grad([x.float().square().sum() for x in results], leaves))


def through_operators(module: Any, patch: pytest.MonkeyPatch) -> list[str]:
    """From now on every call goes through torch's operators; which of them ran is noted."""
    patch.setattr(module, "is_plain", lambda *tensors: False)
    return operators_noted(module, patch)


def operators_noted(module: Any, patch: pytest.MonkeyPatch) -> list[str]:
    ran: list[str] = []

    def noted(name: str, operator: Any) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            ran.append(name)
            return operator(*arguments)

        return run

    for name in ("forward_operator", "backward_operator"):
        patch.setattr(module, name, noted(name, getattr(module, name)))
    return ran


@pytest.mark.parametrize("kind", SPECS)
def test_a_plain_call_has_the_operators_results_and_gradients_to_the_bit(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = spec(kind).module
    short = [everything(kind, given_to(kind)) for _ in range(2)]
    ran = through_operators(module, monkeypatch)
    long = everything(kind, given_to(kind))
    assert ran == ["forward_operator", "backward_operator"]
    assert same_bits(short[0], long)
    assert same_bits(short[1], long)


class Watching(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Own(Tensor):
    """A subclass, as whose methods torch calls the operators."""


def test_whoever_watches_torch_sees_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (x.requires_grad_() for x in qkv(heads=HEADS, q_len=20))
    want = spec("plain")(q, k, v)
    with Watching() as watching:
        out = spec("plain")(q, k, v)
        out.sum().backward()
    operators = [name for name in watching.seen if "attngen" in name]
    assert [name.split(".")[1] for name in operators] == ["forward", "backward"]
    assert torch.equal(out, want)

    ran = operators_noted(spec("plain").module, monkeypatch)
    spec("plain")(q, k, v).sum().backward()
    assert ran == []
    assert torch.equal(spec("plain")(*(x.detach().as_subclass(Own) for x in (q, k, v))), want)
    assert ran == ["forward_operator"]
    graph = make_fx(lambda *x: spec("plain")(*x))(q.detach(), k.detach(), v.detach())
    assert any("forward" in str(node.target) for node in graph.graph.nodes)
    with FakeTensorMode() as mode:
        assert spec("plain")(*(mode.from_tensor(x) for x in (q, k, v))).shape == want.shape
    mapped = torch.func.vmap(spec("plain"))(*(x.detach()[None] for x in (q, k, v)))
    assert torch.equal(mapped[0], want)
    assert len(ran) > 1


def test_a_negated_view_is_read_as_its_copy_is() -> None:
    q, k, v = qkv(heads=HEADS, q_len=20)
    negated = torch.complex(torch.zeros_like(q), -q).conj().imag
    assert negated.is_neg()
    assert torch.equal(spec("plain")(negated, k, v), spec("plain")(q, k, v))


def test_a_gradient_of_gradients_still_raises_where_a_first_one_went_past_the_operators() -> None:
    q, k, v = (x.requires_grad_() for x in qkv(heads=HEADS, q_len=20))
    torch.autograd.grad(spec("plain")(q, k, v).sum(), q)
    first = torch.autograd.grad(spec("plain")(q, k, v).sum(), q, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="second backward"):
        torch.autograd.grad(first.sum(), k)


@pytest.mark.parametrize("value", [0.0, -0.0])
def test_params_that_are_equal_but_not_alike_are_told_apart(value: float) -> None:
    variant = variant_of("param c: float", "score = score + c")
    q, k, v = qkv(q_len=20)
    with noted_launches(variant.module, "sm_80") as (noted, _):
        for c in (value, -value, value):
            variant(q, k, v, c=c)
        signs = [{math.copysign(1, x) for x in call[2] if type(x) is float and x == 0} for call in noted]
    assert signs == [{math.copysign(1, value)}, {-math.copysign(1, value)}, {math.copysign(1, value)}]
    with pytest.raises(TypeError, match="c: expected a number, got bool"):
        variant(q, k, v, c=False)
