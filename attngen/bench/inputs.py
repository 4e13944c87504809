"""Inputs and params for a call of any spec, where their values do not matter but must be plausible."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from attngen.ir.nodes import AttentionIR
from attngen.ir.types import DTYPES, Scalar, Type

_FRESH = 17  # the length of a dimension that the spec itself names


def plausible_inputs(ir: AttentionIR, q: Tensor, k: Tensor, v: Tensor) -> dict[str, Tensor]:
    """An input of the declared shape and dtype for each name: small floats, ints up to k_len, sorted if so
    declared. q (B,H,Sq,D), k (B,Hkv,Sk,D), v (B,Hkv,Sk,Dv)."""
    sizes = dict(zip(("batch", "heads", "q_len", "head_dim"), q.shape, strict=True))
    sizes |= {"kv_heads": k.shape[1], "k_len": k.shape[2], "v_dim": v.shape[3]}
    made: dict[str, Tensor] = {}
    for declared in ir.inputs:
        shape = [dim if isinstance(dim, int) else sizes.get(dim, _FRESH) for dim in declared.dims]
        dtype: torch.dtype = getattr(torch, declared.dtype)
        kind = DTYPES[declared.dtype]
        if kind is Type.FLOAT:
            tensor = torch.randn(shape, device=q.device) * 0.1
        elif kind is Type.BOOL:
            tensor = torch.rand(shape, device=q.device) < 0.5
        else:
            tensor = torch.randint(0, max(1, k.shape[2]), shape, device=q.device)
        if declared.sorted and shape:
            tensor = tensor.sort(-1).values
        made[declared.name] = tensor.to(dtype)
    return made


def plausible_params(ir: AttentionIR) -> dict[str, Scalar]:
    """A value for each param without a default."""
    missing = (p for p in ir.params if p.default is None)
    return {p.name: {Type.BOOL: True, Type.INT: 3, Type.FLOAT: 0.5}[p.type] for p in missing}


def other_params(ir: AttentionIR, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Another value for each int and float param: what must not compile anything again."""
    defaults = {p.name: p.default for p in ir.params if p.default is not None}
    known = {**defaults, **params}
    return {
        p.name: known[p.name] + 1 if p.type is Type.INT else known[p.name] * 0.5
        for p in ir.params
        if p.type is not Type.BOOL
    }
