"""Tensors to test with: values of many sizes in memory layouts of many kinds, each from a small recipe.

A recipe is what hypothesis draws and shrinks, and what a failure prints: it builds the same tensor again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from attngen.ir.types import DTYPES, Type

#: How the elements lie in memory; the shape is the same for all.
STRIDES = ("contiguous", "transposed", "sliced", "expanded", "offset", "strided", "reversed")

#: What the elements are. ``large`` gives scores of some hundreds, ``tiny`` values near 1e-3.
VALUES = ("normal", "large", "tiny", "zero", "equal")

_recipes: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


@dataclass(frozen=True)
class Recipe:
    """How to make a float tensor: the same recipe gives the same tensor, on any device."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    strides: str = "contiguous"
    values: str = "normal"
    seed: int = 0

    def build(self, device: str | torch.device = "cpu") -> Tensor:
        """The tensor, without ``requires_grad``. ``recipe_of`` finds the recipe of what this returned."""
        tensor = _lay_out(self._values(), self.strides, device)
        _recipes[tensor] = self
        return tensor

    def _values(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(self.shape, generator=generator)
        factor = {"normal": 1.0, "large": 6.0, "tiny": 1e-3, "zero": 0.0, "equal": 1.0}[self.values]
        if self.values == "equal":  # every row alike: softmax ties, uniform weights
            drawn = drawn[..., :1, :].expand(self.shape) if drawn.ndim >= 2 and drawn.numel() else drawn
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return (drawn * factor).to(dtype)


@dataclass(frozen=True)
class InputRecipe:
    """How to make an input: floats of size ``high``, ints from low to high, bools True ``high`` in 100."""

    shape: tuple[int, ...]
    dtype: str
    low: int = 0
    high: float = 1.0
    sorted: bool = False
    seed: int = 0

    def build(self, device: str | torch.device = "cpu") -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        kind = DTYPES[self.dtype]
        if kind is Type.FLOAT:
            made = torch.randn(self.shape, generator=generator) * self.high
        elif kind is Type.BOOL:
            made = torch.rand(self.shape, generator=generator) * 100 < self.high
        else:
            made = torch.randint(self.low, int(self.high) + 1, self.shape, generator=generator)
        if self.sorted and self.shape:
            made = made.sort(-1).values
        tensor = made.to(dtype).to(device)
        _recipes[tensor] = self
        return tensor


def recipe_of(tensor: Tensor) -> Recipe | InputRecipe | None:
    """The recipe that built this very tensor, if one did."""
    found = _recipes[tensor] if tensor in _recipes else None  # noqa: SIM401 (its get is untyped)
    return found if isinstance(found, Recipe | InputRecipe) else None


def _lay_out(values: Tensor, strides: str, device: str | torch.device) -> Tensor:
    values = values.to(device)
    shape = values.shape
    if strides == "expanded" and values.ndim >= 2 and values.numel():
        return values[:1].contiguous().expand(shape)  # batch stride 0
    if strides == "transposed" and values.ndim >= 3:
        return values.transpose(1, 2).contiguous().transpose(1, 2)  # (B,S,H,D) in memory
    if strides == "sliced" and values.ndim >= 1:  # the last dim of something wider, as of a packed qkv
        wide = torch.full((*shape[:-1], shape[-1] + 8), math.nan, dtype=values.dtype, device=device)
        return wide[..., : shape[-1]].copy_(values)
    if strides == "offset":  # one element into its storage: no 16-byte alignment
        flat = torch.full((values.numel() + 1,), math.nan, dtype=values.dtype, device=device)
        return flat[1:].view(shape).copy_(values)
    if strides == "strided" and values.ndim >= 1:  # every second element
        wide = torch.full((*shape[:-1], 2 * shape[-1]), math.nan, dtype=values.dtype, device=device)
        return wide[..., ::2].copy_(values)
    if strides == "reversed" and values.ndim >= 2:  # the last two dims swapped in memory
        return values.mT.contiguous().mT
    return values.contiguous()


def tensors(
    shape: tuple[int, ...],
    *,
    dtype: str = "float32",
    device: str = "cpu",
    values: tuple[str, ...] = VALUES,
) -> st.SearchStrategy[Tensor]:
    """Float tensors of one shape: any strides, any values. Simplest: contiguous and normal."""
    return recipes(shape, dtype=dtype, values=values).map(lambda recipe: recipe.build(device))


def recipes(
    shape: tuple[int, ...],
    *,
    dtype: str = "float32",
    values: tuple[str, ...] = VALUES,
    strides: Sequence[str] = STRIDES,
) -> st.SearchStrategy[Recipe]:
    """Recipes of one shape. Most draws are normal values, since the odd ones hide errors."""
    usual = [v for v in values if v == "normal"] * 8
    return st.builds(
        Recipe,
        shape=st.just(shape),
        dtype=st.just(dtype),
        strides=st.sampled_from(strides),
        values=st.sampled_from([*usual, *(v for v in values if v != "normal")]),
        seed=st.integers(0, 2**16),
    )
