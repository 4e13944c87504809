"""From a call that fails to the smallest like it that still does.

A call costs a second where an interpreter runs it, so this takes few steps: everything plain at once if that
still fails, then one size after another, halved. What is drawn is simplified here, not by hypothesis: its
choices are those of one kind of call, and the smallest failure is mostly of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from attngen.ir.nodes import SIZES, AttentionIR
from attngen.testing.cases import Case
from attngen.testing.shape import Shape
from attngen.testing.tensor import InputRecipe


def smallest(case: Case, ir: AttentionIR, fails: Callable[[Case], bool], head_dims: Sequence[int]) -> Case:
    """The smallest call found that ``fails``, from ``case``, which does. No size of it can be one less.

    ``fails`` may say no to everything once it has had enough. ``head_dims`` are those to try.
    """
    while True:
        before = case
        for simpler in _plainer(case, ir):
            if fails(simpler):
                case = simpler
                break
        for sizes in _SIZES:
            case = _bisected(case, ir, sizes, fails)
        for dim in sorted(dim for dim in head_dims if dim < case.shape.head_dim):
            narrow = resized(case, replace(case.shape, head_dim=dim, v_dim=dim), ir)
            if fails(narrow):
                case = narrow
                break
        if case == before:
            return case


# Sizes that shrink together. Both lengths first: that leaves their difference, and so the diagonal.
_SIZES = (("q_len", "k_len"), ("batch",), ("group",), ("kv_heads",), ("k_len",), ("q_len",))


def _bisected(case: Case, ir: AttentionIR, names: Sequence[str], fails: Callable[[Case], bool]) -> Case:
    """The case with as much taken off all these sizes as leaves it failing, and at least 1 of each."""
    sizes = {name: _size(case.shape, name) for name in names}
    low, high = 0, min(sizes.values()) - 1  # what may be taken off: ``low`` is known to fail
    if high <= 0:
        return case

    def less(off: int) -> Case:
        return resized(case, _with(case.shape, {name: n - off for name, n in sizes.items()}), ir)

    if fails(least := less(high)):
        return least
    high -= 1
    while low < high:
        middle = (low + high + 1) // 2
        if fails(less(middle)):
            low = middle
        else:
            high = middle - 1
    return less(low)


def _size(shape: Shape, name: str) -> int:
    size: int = shape.heads // shape.kv_heads if name == "group" else getattr(shape, name)
    return size


def _with(shape: Shape, sizes: dict[str, int]) -> Shape:
    group = sizes.pop("group", shape.heads // shape.kv_heads)
    kv_heads = sizes.pop("kv_heads", shape.kv_heads)
    return replace(shape, **sizes, kv_heads=kv_heads, heads=kv_heads * group)


def _plainer(case: Case, ir: AttentionIR) -> Iterator[Case]:
    """The same lengths, laid out as usual: all of it at once, then one thing at a time."""
    tensors = {name: getattr(case, name) for name in ("q", "k", "v", "dout")}
    declared = {p.name: p.default for p in ir.params}
    usual = [(n, value if declared[n] is None else declared[n]) for n, value in case.params]
    changes: list[dict[str, Any]] = [{"layout": "bhsd"}, {"params": tuple(usual)}]
    changes += [{n: replace(recipe, strides="contiguous")} for n, recipe in tensors.items()]
    changes += [{n: replace(recipe, values="normal")} for n, recipe in tensors.items()]
    plain = {n: replace(recipe, strides="contiguous", values="normal") for n, recipe in tensors.items()}
    changed = [replace(case, **c) for c in ({**plain, "layout": "bhsd", "params": tuple(usual)}, *changes)]
    plainer = [resized(c, c.shape, ir) for c in changed]
    plainer.append(resized(case, replace(case.shape, v_dim=case.shape.head_dim), ir))
    yield from (c for c in plainer if c != case)


def resized(case: Case, shape: Shape, ir: AttentionIR) -> Case:
    """The case with tensors and inputs of these sizes; a dimension of 1 that broadcasts stays so."""
    made = {}
    for name in ("q", "k", "v", "dout"):
        b, h, s, d = getattr(shape, "out" if name == "dout" else name)
        own = (b, s, h, d) if case.layout == "bshd" else (b, h, s, d)
        made[name] = replace(getattr(case, name), shape=own)
    declared = {i.name: i.dims for i in ir.inputs}
    inputs = tuple((n, _refit(recipe, declared[n], case.shape, shape)) for n, recipe in case.inputs)
    return replace(case, shape=shape, inputs=inputs, **made)


def _refit(recipe: InputRecipe, dims: Sequence[int | str], old: Shape, new: Shape) -> InputRecipe:
    sizes = []
    for have, dim in zip(recipe.shape, dims, strict=True):
        named = isinstance(dim, str) and dim in SIZES
        sizes.append(getattr(new, str(dim)) if named and have == getattr(old, str(dim)) else have)
    return replace(recipe, shape=tuple(sizes))
