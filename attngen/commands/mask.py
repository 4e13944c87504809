"""``attngen mask``: which keys each query sees, as a picture in the terminal or in a PNG file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from attngen.errors import BuildError
from attngen.ir.build import build
from attngen.ir.nodes import AttentionIR, Input, Op, leaves
from attngen.ir.types import DTYPES, Scalar, Type
from attngen.source import Source
from attngen.syntax.parse import parse

if TYPE_CHECKING:
    from torch import Tensor

_HEAD_DIM = 64
_OTHER_SIZE = 16  # of a dimension that only an input's declaration names


@dataclass(frozen=True)
class Picture:
    """``keeps`` [q, k] is True where the query sees the key; ``assumptions`` says what was made up for it."""

    title: str
    keeps: Tensor
    assumptions: tuple[str, ...]


def sample(source: Source, q_len: int, k_len: int, given: Mapping[str, Scalar]) -> Picture:
    """The mask of batch 0, head 0. ``given`` sets consts and params, and fills inputs with one value.

    Inputs that are not given get plain values: four documents of one length where ``sorted``, a third of the
    keys for other ints, 0.0, and True.
    """
    import torch

    from attngen.eager import evaluate
    from attngen.reference import bind

    spec = parse(source)
    plain = build(spec, source)
    runtime = {p.name for p in plain.params} | {i.name for i in plain.inputs}
    ir = build(spec, source, {name: value for name, value in given.items() if name not in runtime})

    inputs = {i.name: _fill(i, q_len, k_len, given.get(i.name)) for i in ir.inputs}
    params = {p.name: given.get(p.name, p.default) for p in ir.params}
    needed = {str(node.value) for node in leaves(ir.mask, op=Op.PARAM)}
    for name in sorted(needed):
        if params[name] is None:
            hint = f"give it with --set {name}=VALUE"
            raise BuildError(f"the mask depends on the param {name!r}", hint=hint)
    known = {p.name: _param(p.name, p.type, params[p.name]) for p in ir.params}
    q = torch.zeros(1, 1, q_len, _HEAD_DIM)
    k = torch.zeros(1, 1, k_len, _HEAD_DIM)
    env = bind(ir, q, k, k, inputs, known)
    keeps = evaluate(ir.mask, env, torch.float32).expand(1, 1, q_len, k_len)[0, 0]
    return Picture(f"{ir.name}: {q_len} queries, {k_len} keys", keeps, _assumptions(ir, inputs, given))


def _param(name: str, kind: Type, value: Scalar | None) -> Scalar:
    """A value of the param's own type; one that the mask does not read and nobody gave is 0."""
    value = 0 if value is None else value
    if kind is Type.FLOAT and not isinstance(value, bool):
        return float(value)
    if kind is Type.INT and type(value) is int:
        return value
    if kind is Type.BOOL and value in (0, 1):
        return bool(value)
    raise typer.BadParameter(f"{name} is a {kind.value}, not {value!r}")


def _fill(declared: Input, q_len: int, k_len: int, value: Scalar | None) -> Tensor:
    import torch

    sizes = {"q_len": q_len, "k_len": k_len, **dict.fromkeys(("batch", "heads", "kv_heads"), 1)}
    sizes |= dict.fromkeys(("head_dim", "v_dim"), _HEAD_DIM)
    shape = [dim if isinstance(dim, int) else sizes.get(dim, _OTHER_SIZE) for dim in declared.dims]
    dtype = getattr(torch, declared.dtype)
    if value is not None:
        return torch.full(shape, value, dtype=dtype)
    kind = DTYPES[declared.dtype]
    if kind is Type.INT and declared.sorted and shape:
        return (torch.arange(shape[-1]) * 4 // shape[-1]).to(dtype).expand(shape)
    plain: Mapping[Type, Scalar] = {Type.INT: k_len // 3, Type.FLOAT: 0.0, Type.BOOL: True}
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
