"""The variant's own arguments of the kernels: in what order, and what the launcher passes for each.

input slopes: float32[heads]   ->   slopes_ptr, slopes_stride_0
passed as                           slopes, *input_strides(slopes, (q.shape[1],))
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import astuple, dataclass

from attngen.emit.host_expr import SIZE_TEXT
from attngen.emit.scope import Scope
from attngen.emit.view import Launch
from attngen.ir.nodes import AttentionIR, Expr, Input, Op, leaves
from attngen.ir.types import Type
from attngen.plan.base2 import SCALE
from attngen.plan.cost_class import reads_pairs
from attngen.plan.plan import Plan
from attngen.plan.short import BY_POINTERS

_ALWAYS = ("heads", "kv_heads", "q_len", "k_len")  # arguments that every kernel has


@dataclass(frozen=True)
class _Argument:
    """One argument of the kernels, the launcher's text for it, and whether Triton may specialise on it.

    A text that begins with ``*`` gives several arguments at once and stands once.
    """

    name: str
    passed: str
    specialized: bool


def make_launch(scope: Scope, uses: Collection[str], checked: Iterable[Expr]) -> Launch:
    """The arguments that the kernels read. ``checked`` are further expressions that the host computes."""
    plan, ir = scope.plan, scope.ir
    on_host = [ir.scale] if plan.scale_on_host and not plan.scale_is_const else []
    on_host += [ir.dropout] if ir.dropout is not None else []
    block = scope.host.results(on_host)
    further = scope.host.results(tuple(checked))
    computed = " ".join(text for b in (block, further) for text in (*b.lines, *b.results))
    texts = dict(zip(on_host, block.results, strict=True))
    arguments = [*_inputs(scope, uses), *_sizes(scope, uses), *_params(scope, uses)]
    if ir.dropout is not None:
        arguments.append(_Argument("Seed", "seed", True))
        arguments += [_Argument(n, n, False) for n in ("threshold", "kept_scale")]
    if ir.scale in on_host:
        arguments.append(_Argument(str(SCALE.value), texts[ir.scale], False))
    passed = tuple(dict.fromkeys(a.passed for a in arguments))
    dropout_text = texts[ir.dropout] if ir.dropout is not None else ""
    read = {word for text in (*passed, dropout_text, *block.lines) for word in re.findall(r"\w+", text)}
    looked = ["heads_apart", "kept_stride_b", "kept_stride_h"] if plan.looks else []
    hopper = ["tiles", "at_once", "dealt"] if scope.plan.backend.hopper is not None else []
    unspecialized = [a.name for a in arguments if not a.specialized]
    return Launch(
        kernel_arguments=tuple(a.name for a in arguments),
        unspecialized=_quoted(
            [*_ALWAYS, *hopper, *(["padded"] if ir.is_softmax else []), *looked, *unspecialized]
        ),
        launch_arguments=passed,
        launch_sizes=(*_size_lines(scope, read), *(_assignment(line) for line in block.lines)),
        dropout_text=dropout_text,
        has_dropout=ir.dropout is not None,
        fast_tanh=plan.options.math == "approx",
        host_math="math." in computed,
        host_float32="float32(" in computed,
        host_float64="float64(" in computed,
        host_strides=any("input_strides(" in text for text in passed),
        by_pointers=BY_POINTERS,
        tiles=_tiles(plan),
    )


def run_time_sizes(ir: AttentionIR) -> tuple[str, ...]:
    """The sizes that inputs' dimensions name."""
    names = (d for i in ir.inputs for d in i.dims if isinstance(d, str) and d not in SIZE_TEXT)
    return tuple(dict.fromkeys(names))


def size_of(ir: AttentionIR, size: str, tensors: Iterable[str]) -> str:
    """The host's text of a run-time size, from every tensor that has it, since in one it may be 1.

    ``tensors`` are the host's texts of the inputs.
    """
    named = zip(tensors, ir.inputs, strict=True)
    places = [f"{x}.shape[{axis}]" for x, i in named for axis, dim in enumerate(i.dims) if dim == size]
    return places[0] if len(places) == 1 else f"max({', '.join(places)})"


def _inputs(scope: Scope, uses: Collection[str]) -> Iterator[_Argument]:
    tiles = {str(node.value) for node in leaves(*scope.ir.clauses, op=Op.LOAD) if reads_pairs(node)}
    for item in scope.ir.inputs:
        name = scope.names.own(item.name)
        if f"{name}_ptr" in uses:
            yield _Argument(f"{name}_ptr", name, True)
            strides = f"*input_strides({name}, {shape_text(scope, item)})"
            last = len(item.dims) - 1
            for axis in range(len(item.dims)):
                # Where tiles are read, their alignment decides how many elements one access takes.
                yield _Argument(f"{name}_stride_{axis}", strides, axis == last or item.name in tiles)


def shape_text(scope: Scope, item: Input) -> str:
    """The host's text of an input's declared shape."""
    dims = [str(d) if isinstance(d, int) else SIZE_TEXT.get(d) or scope.names.own(d) for d in item.dims]
    return f"({', '.join(dims)}{',' if len(dims) == 1 else ''})"


def _sizes(scope: Scope, uses: Collection[str]) -> Iterator[_Argument]:
    for word, text in SIZE_TEXT.items():
        if word in uses and word not in _ALWAYS:
            yield _Argument(word, text, False)
    for name in map(scope.names.own, run_time_sizes(scope.ir)):
        if name in uses:
            yield _Argument(name, name, False)


def _params(scope: Scope, uses: Collection[str]) -> Iterator[_Argument]:
    for p in scope.ir.params:
        name = scope.names.own(p.name)
        if name in uses:
            yield _Argument(name, f"int({name})" if p.type is Type.BOOL else name, False)


def _size_lines(scope: Scope, read: Collection[str]) -> Iterator[tuple[str, str]]:
    tensors = [scope.names.own(i.name) for i in scope.ir.inputs]
    for size in run_time_sizes(scope.ir):
        if scope.names.own(size) in read:
            yield scope.names.own(size), size_of(scope.ir, size, tensors)


def _assignment(line: str) -> tuple[str, str]:
    name, _, text = line.partition(" = ")
    return name, text


def _quoted(names: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{n}"' for n in names) + "]"


def _tiles(plan: Plan) -> tuple[tuple[str, tuple[tuple[int, str], ...]], ...]:
    return tuple(
        (target, tuple((width, repr(tuple(astuple(t) for t in tiles))) for width, tiles in rows.items()))
        for target, rows in plan.tiles.items()
    )
