"""Whole calls to test with: a shape, a dtype, the tensors' recipes, and the inputs and params of a spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from attngen.ir.nodes import SIZES, AttentionIR, Input, Normalize, Op, Param, leaves
from attngen.ir.types import DTYPES, Scalar, Type
from attngen.testing.criteria import amplifies
from attngen.testing.kinds import SMALL, Kind, Tiles, kind_of, shapes_of
from attngen.testing.shape import Shape, shapes
from attngen.testing.tensor import STRIDES, VALUES, InputRecipe, Recipe, recipes


@dataclass(frozen=True)
class Case:
    """One call of a variant, and the cotangent of its result."""

    shape: Shape
    q: Recipe
    k: Recipe
    v: Recipe
    dout: Recipe
    inputs: tuple[tuple[str, InputRecipe], ...]
    params: tuple[tuple[str, Scalar], ...]
    seed: int
    layout: str = "bhsd"

    @property
    def dtype(self) -> str:
        return self.q.dtype

    def tensors(self, device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """q, k, v and dout, in the case's layout, and the inputs by name."""
        made = {n: getattr(self, n).build(device) for n in ("q", "k", "v", "dout")}
        return {**made, **{name: recipe.build(device) for name, recipe in self.inputs}}


def cases(
    ir: AttentionIR,
    *,
    dtypes: Sequence[str] = ("float16", "float32"),
    head_dims: Sequence[int] | None = None,
    max_length: int = 70,
    strides: Sequence[str] = STRIDES,
    nth: int | None = None,
    tiles: Tiles = SMALL,
) -> st.SearchStrategy[Case]:
    """Calls of this variant, small and plain ones first. ``strides`` restricts the memory layouts.

    ``nth`` makes them those of a run's nth example (see ``testing.kinds``), over tiles like ``tiles``.
    """
    reaches = nth is not None and kind_of(nth) is Kind.TILES
    first = reaches and nth in (0, 1)

    @st.composite
    def draw_case(draw: st.DrawFn) -> Case:
        if nth is None:
            shape = draw(shapes(max_length=max_length, head_dims=head_dims))
        else:
            shape = draw(shapes_of(nth, tiles=tiles, max_length=max_length, head_dims=head_dims))
        dtype = draw(st.sampled_from(list(dtypes))) if nth is None else dtypes[nth % len(dtypes)]
        layout = draw(st.sampled_from(["bhsd", "bhsd", "bshd"]))
        # A square of large scores leaves float16's range in any implementation, and so do their sums.
        grows = amplifies(ir) or ir.normalize is Normalize.RELU
        values = tuple(v for v in VALUES if not (v == "large" and grows))
        values = ("normal",) if first else values  # zeros and ties hide errors
        made = {}
        for name in ("q", "k", "v", "out"):
            b, h, s, d = getattr(shape, name)
            own = (b, s, h, d) if layout == "bshd" else (b, h, s, d)
            like = values if name != "out" else ("normal",)
            made[name] = draw(recipes(own, dtype=dtype, values=like, strides=strides))
        fresh: dict[str, int] = {}
        broadcasts = draw(st.integers(0, 3)) if first and nth == 1 else None
        inputs = tuple(
            (i.name, draw(_input(i, shape, fresh, _in_sink(ir, i), reaches, broadcasts))) for i in ir.inputs
        )
        chance = _names_in_dropout(ir)
        longest = max(2, shape.q_len, shape.k_len) // 2 if reaches else 80
        params = tuple((p.name, draw(_param(p, p.name in chance, reaches, longest))) for p in ir.params)
        seed = draw(st.integers(0, 2**63 - 1)) if ir.dropout is not None else 0
        return Case(shape, made["q"], made["k"], made["v"], made["out"], inputs, params, seed, layout)

    return draw_case()


def _names_in_dropout(ir: AttentionIR) -> set[object]:
    return {p.value for p in leaves(ir.dropout, op=Op.PARAM)} if ir.dropout is not None else set()


def _in_sink(ir: AttentionIR, declared: Input) -> bool:
    return ir.sink is not None and any(n.value == declared.name for n in leaves(ir.sink, op=Op.LOAD))


@st.composite
def _input(
    draw: st.DrawFn,
    declared: Input,
    shape: Shape,
    fresh: dict[str, int],
    in_sink: bool,
    reaches: bool,
    broadcasts: int | None,
) -> InputRecipe:
    """``reaches`` leaves out what makes a mask of no matter: all True, all False, all of one document.

    ``broadcasts`` is the one dimension to be of size 1 in an input of several; it is drawn where None.
    """
    dims = []
    for at, dim in enumerate(declared.dims):
        if isinstance(dim, int):
            full = dim
        elif dim in SIZES:
            full = getattr(shape, dim)
        else:
            full = fresh.setdefault(dim, draw(st.integers(1, 20)))
        # A dim of size 1 broadcasts; a length of 0 is met by the shape itself.
        if broadcasts is None or len(declared.dims) == 1:
            is_one = draw(st.integers(0, 7)) == 7 and not (reaches and len(declared.dims) == 1)
        else:
            is_one = at == broadcasts % len(declared.dims)
        dims.append(1 if full > 1 and is_one else full)
    kind = DTYPES[declared.dtype]
    low, high = 0, 1.0
    if kind is Type.FLOAT:
        high = draw(st.sampled_from([1.0, 0.1] if in_sink or declared.grad else [0.1, 0.3, 0.01]))
    elif kind is Type.BOOL:
        high = draw(st.sampled_from([50.0, 90.0, 10.0, 100.0, 0.0][: 3 if reaches else None]))
    else:
        longest = max(shape.q_len, shape.k_len, 1)
        ranges = [(0, 3), (0, longest), (-3, longest + 3), (0, 0)]
        low, high = draw(st.sampled_from(ranges[: 3 if reaches else None]))
    return InputRecipe(
        tuple(dims), declared.dtype, low, float(high), declared.sorted, draw(st.integers(0, 2**16))
    )


def _param(declared: Param, is_probability: bool, reaches: bool, longest: int) -> st.SearchStrategy[Scalar]:
    """The default among others of its kind; positive, as caps, windows and temperatures are.

    ``reaches`` leaves out ints beyond ``longest``, which no call is long enough for, and sure probabilities.
    """
    default: list[Scalar] = [] if declared.default is None else [declared.default]
    if declared.type is Type.BOOL:
        return st.booleans()
    if declared.type is Type.INT:
        if reaches:
            default = [value for value in default if value <= longest]
        return st.one_of([st.sampled_from(default)] * bool(default) + [st.integers(1, longest)])
    if is_probability:
        return st.sampled_from([*default, 0.1, 0.5, 0.0, 0.9, 1.0] if not reaches else [*default, 0.1, 0.5])
    if default and isinstance(default[0], float):
        return st.sampled_from([default[0], default[0] * 0.5, default[0] * 1.7])
    return st.sampled_from([1.0, 0.1, 2.5, 7.3])


def arguments(case: Case, made: Mapping[str, Tensor]) -> dict[str, Tensor | Scalar]:
    """The keyword arguments of the call: inputs and params by name."""
    return {**{name: made[name] for name, _ in case.inputs}, **dict(case.params)}
