"""Which rows a measurement has: those of docs/performance.md by name, or any spec with plausible inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from attngen import reference
from attngen.bench.inputs import plausible_inputs, plausible_params
from attngen.bench.rows import ROWS, Row, Shape
from attngen.eager import evaluate
from attngen.ir.nodes import AttentionIR
from attngen.ir.types import Scalar
from attngen.pipeline import check_spec
from attngen.spec_file import find_spec

USUAL_ROWS = tuple(ROWS)


def row_of(file: str, overrides: Mapping[str, Scalar]) -> Row:
    """A spec as a row: plausible inputs, its params' defaults. ``overrides`` set consts and params by name.

    Raises AttnGenError for a spec that is none.
    """
    plain = check_spec(find_spec(file)).ir
    params = {p.name for p in plain.params}
    consts = {name: value for name, value in overrides.items() if name not in params}
    ir = check_spec(find_spec(file), overrides=consts).ir
    given = {**plausible_params(ir), **{n: value for n, value in overrides.items() if n in params}}
    said = [f"{name}={value}" for name, value in overrides.items()]
    inputs = partial(_inputs, file, tuple(consts.items()))
    return Row(ir.name, " ".join([ir.name, *said]), file, consts, given, inputs, dropout=_dropout(ir, given))


def _inputs(
    file: str, consts: tuple[tuple[str, Scalar], ...], shape: Shape, device: torch.device
) -> dict[str, Tensor]:
    q, k = torch.empty(shape.q, device=device), torch.empty(shape.k, device=device)
    return plausible_inputs(check_spec(find_spec(file), overrides=dict(consts)).ir, q, k, k)


def _dropout(ir: AttentionIR, params: Mapping[str, Scalar]) -> float:
    if ir.dropout is None:
        return 0.0
    x = torch.empty(1, 1, 1, 16)
    env = reference.bind(ir, x, x, x, plausible_inputs(ir, x, x, x), params)
    return float(evaluate(ir.dropout, env, torch.float32))


def rows_named(names: Sequence[str]) -> tuple[Row, ...]:
    """Rows of docs/performance.md. ValueError names those that exist."""
    for name in names:
        if name not in ROWS:
            raise ValueError(f"unknown row {name!r}: expected {', '.join(ROWS)}")
    return tuple(ROWS[name] for name in names)
