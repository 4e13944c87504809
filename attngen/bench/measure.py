"""One row at one shape with all its peers: checked against each other, then timed side by side.

A peer that fails is noted with a short reason and the rest goes on.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from attngen.bench.peers import Attention, Case, Peer, head_slice, make_case, variant_of
from attngen.bench.rows import BACKWARD_WORK, Row, Shape, forward_work, kept_scores
from attngen.bench.timing import Call, Race

Racing = Callable[[Mapping[str, Call]], Race]
Results = dict[str, Tensor]

LIMIT = 1e-2  # relative error in the norm; rounding to bfloat16 alone gives about 2e-3


@dataclass
class Outcome:
    """What one peer did: milliseconds forward and backward, or why not; and what it took to get ready."""

    forward_ms: float | None = None
    backward_ms: float | None = None
    reason: str = ""
    prepare_s: float = 0.0


@dataclass
class RowResult:
    """One line of the table. ``errors`` maps a yardstick to the relative errors of attngen's results."""

    row: str
    title: str
    shape: str
    sizes: str
    scores: int
    kept: float  # the part of all scores that the mask keeps
    forward_flops: float
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    errors: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def backward_flops(self) -> float:
        return BACKWARD_WORK * self.forward_flops

    @property
    def worst_error(self) -> float:
        found = [error for tensors in self.errors.values() for error in tensors.values()]
        return max(found, default=float("nan")) if not any(e != e for e in found) else float("nan")

    @property
    def agrees(self) -> bool:
        return bool(self.errors) and self.worst_error < LIMIT

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "backward_flops": self.backward_flops, "agrees": self.agrees}


def measure(
    row: Row,
    shape: Shape,
    peers: Sequence[Peer],
    *,
    dtype: torch.dtype,
    device: torch.device,
    race: Racing,
    check: bool = True,
) -> RowResult:
    """Check attngen against the other peers and the reference, then time forward and backward of all."""
    case = make_case(row, shape, dtype, device)
    ir = variant_of(row).ir
    scores = kept_scores(ir, case.shape, case.inputs, row.params, device)
    work = float(forward_work(scores, shape.head_dim))
    sizes = f"{case.shape}" + (f" Hkv{case.shape.k[1]}" if case.shape.group > 1 else "")
    area = shape.batch * shape.heads * shape.length**2
    result = RowResult(row.name, row.title, shape.name, sizes, scores, scores / area, work)

    ready: dict[str, Attention] = {}
    found: dict[str, Results] = {}
    for peer in peers:
        outcome = result.outcomes[peer.name] = Outcome(reason=peer.refuses(row))
        if outcome.reason:
            continue
        started = time.perf_counter()
        try:
            call = peer.prepare(case)
            results = run(call, case)
            ready[peer.name] = call
            if check and not (row.dropout and peer.name != "attngen"):
                found[peer.name] = results  # with dropout, each peer draws a mask of its own
            del results
        except Exception as error:
            outcome.reason = short(error)
        outcome.prepare_s = time.perf_counter() - started
        _release(device)

    if check and "attngen" in found:
        mine = found.pop("attngen")
        for name, theirs in found.items():
            result.errors[name] = relative_errors(mine, theirs)
        try:
            result.errors["reference"] = against_reference(mine, case)
        except Exception as error:
            result.outcomes["attngen"].reason = f"reference: {short(error)}"
            result.errors["reference"] = {"out": float("nan")}
        del mine
    found.clear()
    _release(device)

    forward = race({name: _forward(call, case) for name, call in ready.items()})
    _note(result, forward, "forward_ms")
    _release(device)
    calls = {}
    for name in forward.ms:
        try:
            calls[name] = _backward(ready[name], case)
        except Exception as error:
            result.outcomes[name].reason = short(error)
    backward = race(calls)
    _note(result, backward, "backward_ms")
    calls.clear()
    ready.clear()
    _release(device)
    return result


def run(call: Attention, case: Case) -> Results:
    """The result of one forward and backward: out, dq, dk, dv."""
    out = call(case.q, case.k, case.v)
    grads = torch.autograd.grad(out, (case.q, case.k, case.v), case.d_out)
    return dict(zip(("out", "dq", "dk", "dv"), (out.detach(), *grads), strict=True))


def relative_errors(mine: Results, theirs: Results) -> dict[str, float]:
    """|mine - theirs| / |theirs| of each tensor, in the Euclidean norm."""
    return {name: _relative(mine[name], theirs[name]) for name in mine}


def _relative(x: Tensor, y: Tensor) -> float:
    x, y = x.float(), y.float()
    return float((x - y).norm() / y.norm().clamp_min(1e-30))


def against_reference(mine: Results, case: Case) -> dict[str, float]:
    """The relative errors of the first heads' results against the dense float32 reference."""
    part = head_slice(case)
    variant = variant_of(part.row)

    def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = variant.reference(q, k, v, dtype=torch.float32, **part.keywords)
        assert isinstance(out, Tensor)
        return out.to(part.d_out.dtype)

    theirs = run(dense, part)
    heads = {name: part.shape.heads if name in ("out", "dq") else 1 for name in mine}
    return relative_errors({name: x[:1, : heads[name]] for name, x in mine.items()}, theirs)


def _forward(call: Attention, case: Case) -> Call:
    return lambda: call(case.q, case.k, case.v)


def _backward(call: Attention, case: Case) -> Call:
    """The backward alone: the graph is made once and kept."""
    out = call(case.q, case.k, case.v)
    leaves = (case.q, case.k, case.v)
    return lambda: torch.autograd.grad(out, leaves, case.d_out, retain_graph=True)


def _note(result: RowResult, found: Race, name: str) -> None:
    for peer, ms in found.ms.items():
        setattr(result.outcomes[peer], name, ms)
    for peer, error in found.failed.items():
        result.outcomes[peer].reason = short(error)


def short(error: BaseException, width: int = 160) -> str:
    """An error in a line."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "out of memory"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return text if len(text) <= width else text[: width - 1] + "…"


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
