"""What the emitted launcher launches on a GPU that is not there.

The launcher itself runs, so nothing about it is repeated here: tiles, descriptors, strides and constants are
its own. It is given tensors that have a shape, strides and a device but no data (torch's FakeTensor), a torch
that names the target as the current GPU, and kernels that note their arguments instead of running.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import triton
from torch._subclasses.fake_tensor import FakeTensorMode

from attngen.ir.nodes import AttentionIR
from attngen.ir.types import Scalar, Type
from attngen.plan.tiles import Target

#: What q, k and v may hold.
DTYPES = ("float16", "bfloat16", "float32")

# Of the call that is launched. Every size is above 1, since a dimension of 1 has no stride worth the name.
_BATCH, _HEADS, _KV_HEADS, _LENGTH = 2, 8, 4, 1024
_RUN_TIME_SIZE = 32  # of a dimension that only an input's declaration names

# Of a param without a default. Kernels are not specialised on it; a dropout of 0.5 is a probability.
_ARBITRARY: dict[Type, Scalar] = {Type.BOOL: True, Type.INT: 3, Type.FLOAT: 0.5}


@dataclass(frozen=True)
class Launch:
    """A kernel (a ``triton.JITFunction``) and the arguments of one launch."""

    kernel: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]


def launches(
    module: ModuleType, ir: AttentionIR, target: Target, head_dim: int, dtype: str
) -> tuple[Launch, ...]:
    """The first launch of each form of each kernel that a forward and a backward with q, k and v of this
    dtype, head_dim wide, may take: that of a usual call, or, of kernels beside which others are preferred,
    that of a call whose k and v are expanded over the batch."""
    found: list[Launch] = []
    with FakeTensorMode(), _recorded(module, found), _on(module, target):
        q = _tensor(dtype, _BATCH, _HEADS, _LENGTH, head_dim)
        k, v = (_tensor(dtype, _BATCH, _KV_HEADS, _LENGTH, head_dim) for _ in range(2))
        out, d_out, dq, dk, dv = map(torch.empty_like, (q, q, q, k, v))
        own = _own_arguments(ir, head_dim)
        # The log-sum-exp and its two parts, and its gradient, where there is one.
        rows = [_tensor("float32", _BATCH, _HEADS, _LENGTH) for _ in range(3)] if ir.is_softmax else []
        d_rows = [torch.empty_like(x) for x in rows[:1]]
        results = [out, *rows] if ir.is_softmax else []
        # Gluon's kernels take no expanded tensors: the same module then launches Triton's.
        given = [(k, v), (_expanded(k), _expanded(v))]
        for keys in given:
            with _new_kernels(found):
                module.launch_forward(q, *keys, *own, out, *rows)
        for keys in given:
            for flags in _backward_flags(module, ir):
                with _new_kernels(found):
                    module.launch_backward(q, *keys, *own, *results, d_out, *d_rows, dq, dk, dv, **flags)
    return tuple(found)


@contextlib.contextmanager
def _new_kernels(found: list[Launch]) -> Iterator[None]:
    """Of the launches within, ``found`` keeps those of forms of kernels that it does not hold yet."""
    known, before = set(map(_form, found)), len(found)
    yield
    found[before:] = [launch for launch in found[before:] if _form(launch) not in known]


def _form(launch: Launch) -> tuple[str, tuple[bool, ...]]:
    """The kernel, and which arguments are None: a kernel compiles to other code where it has no such thing to
    read or to write."""
    return launch.kernel.__name__, tuple(argument is None for argument in launch.arguments)


def _backward_flags(module: ModuleType, ir: AttentionIR) -> list[dict[str, bool]]:
    """The flags of the backward's launches that together reach all its kernels in all their forms."""
    learned = {"learned": True} if any(i.grad for i in ir.inputs) else {}
    if "deterministic" not in inspect.signature(module.launch_backward).parameters:
        return [learned]
    fused = [{**learned, "deterministic": False}]
    if learned:  # the fused backward may write a gradient beside its own, or leave it
        fused.insert(0, {"learned": False, "deterministic": False})
    return [{**learned, "deterministic": True}, *fused]


def _tensor(dtype: str, *shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=getattr(torch, dtype), device="cuda")


def _expanded(x: torch.Tensor) -> torch.Tensor:
    """Of one sequence, seen as a batch of them."""
    return torch.empty_strided(x.shape, (0, *x.stride()[1:]), dtype=x.dtype, device=x.device)


def _own_arguments(ir: AttentionIR, head_dim: int) -> list[Any]:
    """The variant's inputs, seed and params, in the launcher's order."""
    sizes = {
        "batch": _BATCH,
        "heads": _HEADS,
        "kv_heads": _KV_HEADS,
        "q_len": _LENGTH,
        "k_len": _LENGTH,
        "head_dim": head_dim,
        "v_dim": head_dim,
    }
    own: list[Any] = []
    for item in ir.inputs:
        dims = (d if isinstance(d, int) else sizes.get(d, _RUN_TIME_SIZE) for d in item.dims)
        own.append(_tensor(item.dtype, *dims))
    if ir.dropout is not None:
        own.append(_tensor("int64", 1))
    own += [_ARBITRARY[p.type] if p.default is None else p.default for p in ir.params]
    return own


@contextlib.contextmanager
def _recorded(module: ModuleType, found: list[Launch]) -> Iterator[None]:
    """Launches of the module's kernels go to ``found``."""
    kernels = [x for x in vars(module).values() if isinstance(x, triton.JITFunction)]

    def recorder(kernel: Any) -> Callable[..., None]:
        def run(*arguments: Any, grid: Any, warmup: bool, **named: Any) -> None:
            # By position, all but what is an option of the compiler rather than an argument of the kernel.
            options = {n: named.pop(n) for n in tuple(named) if n not in kernel.arg_names}
            bound = inspect.signature(kernel.fn).bind(*arguments, **named)
            found.append(Launch(kernel, bound.args, options))

        return run

    for kernel in kernels:
        kernel.run = recorder(kernel)  # what kernel[grid](...) calls
    try:
        yield
    finally:
        for kernel in kernels:
            del kernel.run


@contextlib.contextmanager
def _on(module: ModuleType, target: Target) -> Iterator[None]:
    """The module sees ``target`` as the current GPU."""
    before = vars(module)["torch"]
    vars(module)["torch"] = _Torch(target)
    try:
        yield
    finally:
        vars(module)["torch"] = before


class _Torch:
    """torch, but for what it knows of the machine."""

    def __init__(self, target: Target) -> None:
        capability = target.capability
        self.version = SimpleNamespace(hip=None if capability else "6.4", cuda="12.8" if capability else None)
        self.cuda = SimpleNamespace(
            get_device_capability=lambda device=None: capability or (9, 4),
            device_of=lambda tensor: contextlib.nullcontext(),
            # So few that the calls above fill the card.
            get_device_properties=lambda device=None: SimpleNamespace(multi_processor_count=1),
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)
