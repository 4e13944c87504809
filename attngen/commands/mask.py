"""``attngen mask``: the mask of a made-up call, score by score, and what the loops make of its tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

import typer

from attngen.analysis.simplify import simplify_ir
from attngen.errors import BuildError
from attngen.ir.nodes import AttentionIR, Input, Op, leaves
from attngen.ir.types import DTYPES, Scalar, Type
from attngen.pipeline import check_spec
from attngen.plan.plan import Options, make_plan
from attngen.source import Source

if TYPE_CHECKING:
    from torch import Tensor

_SIZES = {"batch": 1, "heads": 1, "kv_heads": 1, "head_dim": 64, "v_dim": 64}
_OTHER_SIZE = 16  # of a dimension that only an input's declaration names
_LARGEST = 16384
_SHARE = 0.2  # of drawn bools that are True


@dataclass(frozen=True)
class Picture:
    """The mask of one head, [q, k]: True where the query sees the key.

    ``tiles`` are what the loop over keys makes of each tile (forward and dQ), ``transposed`` what the loop
    over queries does (dK and dV): ``tile_map.Tile``s, [query tiles, key tiles]. ``tile`` is (queries, keys).
    ``assumptions`` says what was made up for the call.
    """

    title: str
    keeps: Tensor
    tile: tuple[int, int]
    tiles: Tensor
    transposed: Tensor
    assumptions: tuple[str, ...]


def sample(
    source: Source,
    q_len: int,
    k_len: int,
    given: Mapping[str, Scalar],
    *,
    tile: tuple[int, int] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> Picture:
    """The mask of batch 0, head 0. ``given`` sets consts, params and sizes, and fills inputs with one value.

    Inputs that are not given (nor in ``tensors``) get plain values: four runs of one length where ``sorted``,
    numbers and bools from a fixed seed where they lie along a length or a named dim, else a third of the
    keys, 0.0, and True. Sizes are 1, but for the head dims (64) and those that only an input names (16).
    ``tile`` is by default such that the longer side has 16 to 31 tiles. Every misfit in ``given`` is told
    at once.
    """
    import torch

    from attngen.eager import evaluate
    from attngen.reference import bind
    from attngen.tile_map import key_tiles, query_tiles

    plain = check_spec(source).ir
    consts = {name for name, _ in plain.consts}
    runtime = {p.name: (p.type, 32) for p in plain.params}
    runtime |= {i.name: (DTYPES[i.dtype], 64 if i.dtype == "int64" else 32) for i in plain.inputs}
    sizes = {d: _OTHER_SIZE for i in plain.inputs for d in i.dims if isinstance(d, str)} | _SIZES
    sizes |= {"q_len": q_len, "k_len": k_len}
    _require_fit(given, consts, runtime, set(sizes))
    ir = check_spec(source, overrides={n: value for n, value in given.items() if n in consts}).ir
    sizes |= {name: int(given[name]) for name in sizes if name in given}
    if sizes["heads"] % sizes["kv_heads"]:
        raise typer.BadParameter(f"heads={sizes['heads']} is no multiple of kv_heads={sizes['kv_heads']}")

    tensors = tensors or {}
    inputs = {i.name: tensors.get(i.name, _fill(i, sizes, given.get(i.name))) for i in ir.inputs}
    params = {p.name: given.get(p.name, p.default) for p in ir.params}
    needed = {str(node.value) for node in leaves(ir.mask, op=Op.PARAM)}
    missing = sorted(name for name in needed if params[name] is None)
    if missing:
        hint = "give it with " + " ".join(f"--set {name}=VALUE" for name in missing)
        names = " and ".join(map(repr, missing))
        raise BuildError(f"the mask depends on the param {names}", hint=hint)
    # A param that the mask does not read and nobody gave is 0.
    known = {p.name: _as(p.type, params[p.name] or 0) for p in ir.params}
    q = torch.zeros(sizes["batch"], sizes["heads"], q_len, sizes["head_dim"])
    k = torch.zeros(sizes["batch"], sizes["kv_heads"], k_len, sizes["head_dim"])
    v = torch.zeros(1, 1, 1, 1).expand(*k.shape[:3], sizes["v_dim"])
    env = bind(ir, q, k, v, inputs, known)
    keeps = evaluate(ir.mask, env, torch.float32).expand(env.grid.shape)[0, 0]
    plan = make_plan(simplify_ir(ir), Options())
    size = tile or (_tile_of(max(q_len, k_len)),) * 2
    return Picture(
        title=f"{ir.name}: {q_len} queries, {k_len} keys",
        keeps=keeps,
        tile=size,
        tiles=key_tiles(plan, env, *size)[0, 0],
        transposed=query_tiles(plan, env, *size)[0, 0],
        assumptions=_assumptions(ir, inputs, {*given, *tensors}),
    )


def _tile_of(length: int) -> int:
    """A power of two that gives 16 to 31 tiles, but no larger a tile than kernels have."""
    return min(1 << max((length // 16).bit_length() - 1, 0), 128)


def _require_fit(
    given: Mapping[str, Scalar],
    consts: set[str],
    runtime: Mapping[str, tuple[Type, int]],
    sizes: set[str],
) -> None:
    """That every name can be set, and to that value; a const's value is the compiler's to judge.

    ``runtime`` has the type of each param and input, and the bits of an int.
    """
    wrong = []
    for name, value in given.items():
        if name in ("q_len", "k_len"):
            wrong.append(f"{name} is set by --{name[0]}")
        elif name in runtime:
            kind, bits = runtime[name]
            if not _fits(kind, bits, value):
                what = f"an int{bits}" if kind is Type.INT else f"a {kind.value}"
                wrong.append(f"{name} is {what}, not {value!r}")
        elif name in sizes:
            if type(value) is not int or not 1 <= value <= _LARGEST:
                wrong.append(f"the size {name} is an int from 1 to {_LARGEST}, not {value!r}")
        elif name not in consts:
            near = get_close_matches(name, [*consts, *runtime, *sizes], 1)
            hint = (
                f"did you mean {near[0]!r}?" if near else "the spec has no such const, param, input or size"
            )
            wrong.append(f"there is no {name!r} to set: {hint}")
    if wrong:
        raise typer.BadParameter("; ".join(wrong))


def _fits(kind: Type, bits: int, value: Scalar) -> bool:
    if kind is Type.BOOL:
        return value in (0, 1)
    if kind is Type.INT:
        return type(value) is int and -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)
    return type(value) is float or (type(value) is int and abs(value) < 2**127)


def _as(kind: Type, value: Scalar) -> Scalar:
    if kind is Type.BOOL:
        return bool(value)
    return int(value) if kind is Type.INT else float(value)


def _fill(declared: Input, sizes: Mapping[str, int], value: Scalar | None) -> Tensor:
    import torch

    shape = [dim if isinstance(dim, int) else sizes[dim] for dim in declared.dims]
    dtype = getattr(torch, declared.dtype)
    kind = DTYPES[declared.dtype]
    if value is not None:
        wide = torch.float64 if kind is Type.FLOAT else torch.int64
        return torch.tensor(_as(kind, value), dtype=wide).to(dtype).expand(shape)
    if kind is Type.INT and declared.sorted and shape:
        return (torch.arange(shape[-1]) * 4 // shape[-1]).to(dtype).expand(shape)
    if _is_drawn(declared):
        seeded = torch.Generator().manual_seed(0)
        if kind is Type.BOOL:
            return torch.rand(shape, generator=seeded) < _SHARE
        return torch.randint(sizes["k_len"], shape, generator=seeded, dtype=dtype)
    plain: Mapping[Type, Scalar] = {Type.INT: sizes["k_len"] // 3, Type.FLOAT: 0.0, Type.BOOL: True}
    return torch.full(shape, plain[kind], dtype=dtype)


def _is_drawn(declared: Input) -> bool:
    """Whether one value everywhere would show little: ints and bools by place, or by a dim of their own."""
    own = set(declared.dims) - {1, *_SIZES}
    return DTYPES[declared.dtype] is not Type.FLOAT and not declared.sorted and bool(own)


def _assumptions(ir: AttentionIR, inputs: Mapping[str, Tensor], given: set[str]) -> tuple[str, ...]:
    lines = []
    for name in sorted({str(node.value) for node in leaves(ir.mask, op=Op.LOAD)} - given):
        declared = ir.input(name)
        kind = DTYPES[declared.dtype]
        if declared.sorted and declared.dims and kind is Type.INT:
            lines.append(f"made up: {name} has four equal runs, 0 to 3")
        elif _is_drawn(declared):
            what = f"is True for {_SHARE:.0%}" if kind is Type.BOOL else "has ints below k_len"
            lines.append(f"made up: {name} {what}, at random (--set {name}=VALUE for one value)")
        else:
            value = inputs[name].flatten()[0].item() if inputs[name].numel() else "empty"
            lines.append(f"made up: {name} = {value} (--set {name}=VALUE for another)")
    return tuple(lines)
