"""ATTNGEN_DEBUG=1: what a spec promises of its inputs is looked at, at every call of a variant.

    input doc: int32[batch, k_len] sorted
    ->  ValueError: doc: declared sorted, but doc[0, 6] = 1 comes after doc[0, 5] = 2

Looking reads every element and waits for the GPU, hence only on demand. An emitted module on its own never
looks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from attngen.ir.nodes import AttentionIR


def is_on() -> bool:
    """Whether ATTNGEN_DEBUG is set, to anything but 0."""
    return os.environ.get("ATTNGEN_DEBUG", "0") not in ("", "0")


def check_inputs(ir: AttentionIR, arguments: Mapping[str, Any]) -> None:
    """Raise ValueError for an input that is declared ``sorted`` and falls along its last dimension.

    The error names the input and the first place where it does, by index and values. What is no tensor of a
    last dimension is left to the call's own checks.
    """
    for item in ir.inputs:
        x = arguments.get(item.name)
        if not item.sorted or not isinstance(x, Tensor) or x.dim() == 0 or x.dtype.is_floating_point:
            continue
        falls = (x[..., 1:] < x[..., :-1]).nonzero()
        if len(falls):
            *row, last = falls[0].tolist()
            before, after = ((*row, last), (*row, last + 1))
            raise ValueError(
                f"{item.name}: declared sorted, but {_element(item.name, x, after)} comes after "
                f"{_element(item.name, x, before)}"
            )


def _element(name: str, x: torch.Tensor, place: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(map(str, place))}] = {x[place].item()}"
