"""The back end: plain Triton for every GPU and, where asked for, kernels for sm_90 in Gluon beside it.

backend="hopper"   ->   Backend("hopper", reason, Hopper(tiles))
backend="auto"     ->   Backend("triton", reason, None)

Gluon's kernels are warp-specialised: a producer warp feeds consumer warpgroups of 64 rows each. They hold the
same score, mask and dropout as the Triton kernels, which stay beside them for every call that they cannot
take (float32 tensors, strides that TMA does not address, other GPUs).
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.ir.nodes import AttentionIR


@dataclass(frozen=True)
class HopperTile:
    """One program of the forward: ``parts`` consumer warpgroups of 64 queries, BLOCK_N keys a step.

    ``stages`` tiles of keys and of values lie in shared memory. ``registers`` is of a consumer's thread.
    ``turns``: the warpgroups begin their products one after the other. ``programs`` run on a multiprocessor
    at once, each with as many registers.
    """

    parts: int
    block_n: int
    stages: int
    registers: int
    turns: bool
    programs: int = 1


@dataclass(frozen=True)
class Hopper:
    """What the kernels for sm_90 need beside the rest of the plan: the forward's tiles by head dim."""

    tiles: dict[int, HopperTile]


@dataclass(frozen=True)
class Backend:
    """Which kernels the module holds, and why. ``hopper`` is None where it holds Triton's alone."""

    name: str
    reason: str
    hopper: Hopper | None = None


TILES = {
    64: HopperTile(3, 128, 2, 160, True),
    128: HopperTile(2, 128, 2, 240, False),
    256: HopperTile(2, 64, 2, 240, False),
}


def choose_backend(ir: AttentionIR, wanted: str) -> Backend:
    """The back end for ``wanted``, which is "auto", "triton" or "hopper"."""
    if wanted == "hopper":
        return Backend("hopper", "asked for; calls that it cannot take run Triton's kernels", hopper_of(ir))
    return Backend("triton", "asked for" if wanted == "triton" else "auto means Triton's kernels alone")


def hopper_of(ir: AttentionIR) -> Hopper:
    """The tiles of one variant."""
    return Hopper(TILES)
