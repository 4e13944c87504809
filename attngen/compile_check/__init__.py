"""Every kernel of a variant compiled for a GPU that is not there, and held to that GPU's limits.

Compilation -> the module, loaded from a file -> its own launcher, run on tensors without data
            -> each launch's configuration -> Triton's compiler -> registers, spills, shared memory
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import triton

from attngen.compile_check.binary import Failed, compile_launch
from attngen.compile_check.launches import DTYPES, Launch, launches
from attngen.compile_check.module import load
from attngen.errors import BuildError
from attngen.pipeline import Compilation
from attngen.plan.tiles import TARGETS, Target

__all__ = ["Row", "check"]

#: Columns of tensor memory that a Blackwell GPU gives one program.
_TENSOR_MEMORY = 512

#: Up to this head dimension the kernels are meant to hold everything in registers on sm_90.
_WITHOUT_SPILLS = 128
# Gluon's consumers have a share of the registers that is settled when they start: some of the fastest tiles
# spill (softcap's backward at D=64 432 bytes, at 1.2 times the speed of Triton's two kernels). Where far
# tiles have loops of their own, those spill no more; the near ones' do, which are few: ptxas counts all.
_FEW_SPILLS, _NEAR_SPILLS = 512, 4096


@dataclass(frozen=True)
class Row:
    """One kernel compiled for one target.

    ``registers`` is what a thread holds. ``spills`` is the bytes of spill stores and loads in ptxas's count;
    on AMD, the registers spilled. ``shared`` is bytes a program. All three are None where the kernel did not
    compile. ``ok`` says whether it keeps within the target's limits, ``note`` what passed them, or what the
    assembler warned of (it may be empty).
    """

    kernel: str
    target: str
    head_dim: int
    dtype: str
    registers: int | None
    spills: int | None
    shared: int | None
    ok: bool
    note: str


def check(
    compilation: Compilation,
    targets: Sequence[str],
    head_dims: Sequence[int],
    dtypes: Sequence[str] = ("bfloat16",),
) -> list[Row]:
    """Compile the forward, delta, dK/dV and dQ kernels as the emitted launcher would launch them: Gluon's and
    Triton's that calls which those do not take (unaligned, expanded, short) run instead.

    ``targets`` are keys of ``plan.tiles.TARGETS``, ``dtypes`` those of q, k and v. Needs no GPU.
    Raises BuildError for an unknown target, head dimension or dtype, and in Triton's interpreter.
    """
    if triton.knobs.runtime.interpret:
        raise BuildError(
            "TRITON_INTERPRET is set: the interpreter replaces Triton's compiler, so nothing can be compiled",
            hint="unset it before Python starts",
        )
    for name in targets:
        if name not in TARGETS:
            raise BuildError(f"no target is called {name!a}", hint=f"known are {', '.join(TARGETS)}")
    for head_dim in head_dims:
        if not 1 <= head_dim <= 256:
            raise BuildError(f"a head dimension is 1 to 256, got {head_dim}")
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise BuildError(f"kernels take {', '.join(DTYPES)}, got {dtype!a}")
    module = load(compilation.text)
    of_gluon = _FEW_SPILLS if compilation.plan.far_in_gluon is None else _NEAR_SPILLS
    with warnings.catch_warnings():
        # The launcher and Triton ask a tensor's address for its alignment only; a FakeTensor's is 0.
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        return [
            _row(launch, TARGETS[name], head_dim, dtype, of_gluon)
            for name in targets
            for head_dim in head_dims
            for dtype in dtypes
            for launch in launches(module, compilation.ir, TARGETS[name], head_dim, dtype)
        ]


def _row(launch: Launch, target: Target, head_dim: int, dtype: str, of_gluon: int) -> Row:
    kernel = launch.kernel.__name__.removesuffix("_kernel")
    try:
        binary = compile_launch(launch, target)
    except Failed as failure:
        return Row(kernel, target.name, head_dim, dtype, None, None, None, False, str(failure))
    faults = []
    if binary.shared > target.shared:
        faults.append(f"{binary.shared} bytes of shared memory, {target.name} has {target.shared}")
    if binary.tensor_memory > _TENSOR_MEMORY:
        faults.append(f"{binary.tensor_memory} columns of tensor memory, {target.name} has {_TENSOR_MEMORY}")
    remarks = list(binary.warnings)
    if target.name == "sm_90" and head_dim <= _WITHOUT_SPILLS and dtype != "float32" and binary.spills:
        allowed = of_gluon if kernel.startswith("hopper_") else 0
        (remarks if binary.spills <= allowed else faults).append(
            f"{binary.spills} bytes spilled, {allowed} allowed"
        )
    note = "; ".join([*faults, *remarks])
    numbers = binary.registers, binary.spills, binary.shared
    return Row(kernel, target.name, head_dim, dtype, *numbers, not faults, note)
