"""``attngen mask``: which keys each query sees, as a picture in the terminal or in a PNG file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from attngen.errors import BuildError
from attngen.ir.nodes import AttentionIR, Input, Op, leaves
from attngen.ir.types import DTYPES, Scalar, Type
from attngen.pipeline import check_spec
from attngen.source import Source

if TYPE_CHECKING:
    from torch import Tensor

_SIZES = {"batch": 1, "heads": 1, "kv_heads": 1, "head_dim": 64, "v_dim": 64}
_OTHER_SIZE = 16  # of a dimension that only an input's declaration names
_LARGEST = 16384


@dataclass(frozen=True)
class Picture:
    """``keeps`` [q, k] is True where the query sees the key; ``assumptions`` says what was made up for it."""

    title: str
    keeps: Tensor
    assumptions: tuple[str, ...]


def sample(source: Source, q_len: int, k_len: int, given: Mapping[str, Scalar]) -> Picture:
    """The mask of batch 0, head 0. ``given`` sets consts, params and sizes, and fills inputs with one value.

    Inputs that are not given get plain values: four documents of one length where ``sorted``, a third of the
    keys for other ints, 0.0, and True. Sizes are 1, but for the head dims (64) and those that only an input
    names (16). Every misfit in ``given`` is told at once.
    """
    import torch

    from attngen.eager import evaluate
    from attngen.reference import bind

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

    inputs = {i.name: _fill(i, sizes, given.get(i.name)) for i in ir.inputs}
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
    return Picture(f"{ir.name}: {q_len} queries, {k_len} keys", keeps, _assumptions(ir, inputs, given))


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
    plain: Mapping[Type, Scalar] = {Type.INT: sizes["k_len"] // 3, Type.FLOAT: 0.0, Type.BOOL: True}
    return torch.full(shape, plain[kind], dtype=dtype)


def _assumptions(
    ir: AttentionIR, inputs: Mapping[str, Tensor], given: Mapping[str, Scalar]
) -> tuple[str, ...]:
    lines = []
    for name in sorted({str(node.value) for node in leaves(ir.mask, op=Op.LOAD)} - set(given)):
        declared = ir.input(name)
        if declared.sorted and declared.dims and DTYPES[declared.dtype] is Type.INT:
            lines.append(f"made up: {name} has four equal runs, 0 to 3")
        else:
            value = inputs[name].flatten()[0].item() if inputs[name].numel() else "empty"
            lines.append(f"made up: {name} = {value} (--set {name}=VALUE for another)")
    return tuple(lines)


def terminal(picture: Picture) -> str:
    """The mask in block characters: a row of text is some queries, a column some keys."""
    columns = max(16, min(64, shutil.get_terminal_size().columns - 2))
    q_len, k_len = picture.keeps.shape
    across = -(-k_len // columns)
    down = min(2 * across, q_len)  # a character is about twice as high as it is wide
    none, some, every = _characters()
    lines = [picture.title, f"{none} none  {some} some  {every} all of {down} x {across} scores", ""]
    for top in range(0, q_len, down):
        band = picture.keeps[top : top + down]
        blocks = [band[:, left : left + across] for left in range(0, k_len, across)]
        lines.append("".join(every if b.all() else some if b.any() else none for b in blocks))
    return "\n".join(lines)


def _characters() -> tuple[str, str, str]:
    blocks = ("·", "▒", "█")
    try:
        "".join(blocks).encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return (".", "+", "#")
    return blocks


def save_png(picture: Picture, path: Path) -> None:
    """Draw the mask with matplotlib, which the ``plot`` extra brings."""
    try:
        from matplotlib.colors import ListedColormap
        from matplotlib.figure import Figure
    except ImportError:
        raise BuildError("a picture file needs matplotlib", hint="pip install 'attngen[plot]'") from None
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    colours = ListedColormap(["#eceff1", "#00695c"])
    q_len, k_len = picture.keeps.shape
    axes.imshow(
        picture.keeps.numpy(),
        cmap=colours,
        vmin=0,
        vmax=1,
        interpolation="nearest",
        extent=(0.0, float(k_len), float(q_len), 0.0),
        aspect="equal" if max(q_len, k_len) <= 8 * min(q_len, k_len) else "auto",
    )
    axes.set_title(picture.title)
    axes.set_xlabel("key k")
    axes.set_ylabel("query q")
    if picture.assumptions:
        figure.supxlabel("\n".join(picture.assumptions), fontsize="small")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:  # ValueError: an ending that matplotlib cannot write
        raise BuildError(f"cannot write {path}: {error}") from None
