"""One row at one shape with all its peers: checked against each other, then timed side by side.

A peer that fails is noted with a short reason and the rest goes on.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attngen import blockwise
from attngen.bench.peers import PEERS, SEED, Attention, Case, Peer, head_slice, make_case, variant_of
from attngen.bench.rows import BACKWARD_WORK, Row, Shape, forward_work, kept_scores
from attngen.bench.timing import Call, Race

Racing = Callable[[Mapping[str, Call]], Race]
Results = dict[str, Tensor]

LIMIT = 1e-2  # relative error in the norm; rounding to bfloat16 alone gives about 2e-3
LONGEST_REFERENCE = 16384  # the dense reference of one head holds several float32 squares of this side
_REFERENCE_SCORES = 2**26  # at a time, of longer sequences

_MIB = 2**20


@dataclass
class Outcome:
    """What one peer did: milliseconds forward and backward, or why not; and what it took to get ready.

    ``prepare_s`` is seconds to the first result, compiling included; ``build_ms`` what it makes anew for each
    mask and length, and ``build_mib`` the most memory that this held; ``build_note`` says why it was made in
    less memory, or not at all; ``peak_mib`` is the most that a forward and a backward held above the inputs
    and what was built, gradients and output included.
    """

    forward_ms: float | None = None
    backward_ms: float | None = None
    reason: str = ""
    prepare_s: float = 0.0
    build_ms: float | None = None
    build_mib: float | None = None
    build_note: str = ""
    peak_mib: float | None = None


@dataclass
class RowResult:
    """One line of the table. ``errors`` maps a yardstick to the relative errors of attngen's results."""

    row: str
    title: str
    shape: str
    sizes: str
    batch: int
    heads: int
    length: int
    head_dim: int
    scores: int
    kept: float  # the part of all scores that the mask keeps
    forward_flops: float
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    errors: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """The shape, whatever key heads the row has."""
        return f"B{self.batch} H{self.heads} S{self.length} D{self.head_dim}"

    @property
    def backward_flops(self) -> float:
        return BACKWARD_WORK * self.forward_flops

    @property
    def worst_error(self) -> float:
        found = [error for tensors in self.errors.values() for error in tensors.values()]
        return max(found, default=float("nan")) if not any(e != e for e in found) else float("nan")

    @property
    def is_compared(self) -> bool:
        """Whether attngen's results were held against anything: not where it did not run, or nobody asked."""
        return bool(self.errors)

    @property
    def agrees(self) -> bool:
        return self.is_compared and self.worst_error < LIMIT

    def is_sound(self, check: bool = True) -> bool:
        """Whether attngen's kernel ran and, where ``check`` asked for it, is right."""
        own = self.outcomes.get("attngen")
        return (self.agrees or not check) and (own is None or not own.reason)

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "backward_flops": self.backward_flops,
            "agrees": self.agrees if self.is_compared else None,
        }


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
    result = RowResult(
        row.name,
        row.title,
        shape.name,
        sizes,
        shape.batch,
        shape.heads,
        shape.length,
        shape.head_dim,
        scores,
        scores / area,
        work,
    )

    ready: dict[str, Attention] = {}
    found: dict[str, Results] = {}
    for peer in peers:
        outcome = result.outcomes[peer.name] = Outcome(reason=peer.refuses(row))
        if outcome.reason:
            continue
        if peer.build is not None:
            _note_building(outcome, peer, case, device)
        started = time.perf_counter()
        try:
            call = peer.prepare(case)
            results = run(call, case)
            ready[peer.name] = call
            outcome.prepare_s = time.perf_counter() - started
            del results
            outcome.peak_mib, results = _peak(partial(run, call, case), device)
            if check and not (row.dropout and peer.name != "attngen"):
                found[peer.name] = results  # with dropout, each peer draws a mask of its own
            del results
        except Exception as error:
            outcome.reason = short(error)
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
    """The result of one forward and backward: out, dq, dk, dv, and the gradient of each learned input."""
    out = call(case.q, case.k, case.v)
    grads = torch.autograd.grad(out, list(case.leaves.values()), case.d_out)
    return {"out": out.detach(), **{f"d{name}": grad for name, grad in zip(case.leaves, grads, strict=True)}}


def relative_errors(mine: Results, theirs: Results) -> dict[str, float]:
    """|mine - theirs| / |theirs| of each tensor, in the Euclidean norm."""
    return {name: _relative(mine[name], theirs[name]) for name in mine}


def _relative(x: Tensor, y: Tensor) -> float:
    x, y = x.float(), y.float()
    return float((x - y).norm() / y.norm().clamp_min(1e-30))


def against_reference(mine: Results, case: Case) -> dict[str, float]:
    """The relative errors of the first heads' results against the float32 reference: dense, or in blocks of
    rows where the sequence is long.

    A learned input's gradient sums over all heads and sequences: that of the first heads is computed anew.
    """
    part = head_slice(case)
    variant = variant_of(part.row)

    def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = variant.reference(q, k, v, dtype=torch.float32, **part.keywords)
        assert isinstance(out, Tensor)
        return out.to(part.d_out.dtype)

    def by_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, _ = blockwise.attention(
            variant.ir,
            q,
            k,
            v,
            inputs=part.inputs,
            params=part.row.params,
            seed=SEED if part.row.dropout else None,
            block_scores=_REFERENCE_SCORES,
        )
        return out

    theirs = run(dense if part.shape.length <= LONGEST_REFERENCE else by_rows, part)
    group = part.shape.heads
    heads = {"out": group, "dq": group, "dk": 1, "dv": 1}
    first = {name: mine[name][:1, :count] for name, count in heads.items()}
    if len(mine) > len(first):
        again = run(PEERS["attngen"].prepare(part), part)
        first |= {name: x for name, x in again.items() if name not in first}
    return relative_errors(first, theirs)


def _forward(call: Attention, case: Case) -> Call:
    return lambda: call(case.q, case.k, case.v)


def _backward(call: Attention, case: Case) -> Call:
    """The backward alone: the graph is made once and kept."""
    out = call(case.q, case.k, case.v)
    leaves = list(case.leaves.values())
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


def _peak(work: Callable[[], Results], device: torch.device) -> tuple[float | None, Results]:
    """The most memory, in MiB above what was held before, that ``work`` needs on a GPU; and what it gives."""
    if device.type != "cuda":
        return None, work()
    _release(device)
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    results = work()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / _MIB, results


def _note_building(outcome: Outcome, peer: Peer, case: Case, device: torch.device) -> None:
    """Time what a peer makes beforehand; where the memory is not enough, as it makes it in less."""
    for build in (peer.build, peer.build_lean):
        if build is None:
            continue
        try:
            outcome.build_ms, outcome.build_mib = _building(partial(build, case), device)
            return
        except Exception as error:
            outcome.build_note = short(error)
        _release(device)  # not within the handler, which holds what had been made


def _building(
    build: Callable[[], object], device: torch.device, times: int = 3
) -> tuple[float, float | None]:
    """The median milliseconds that ``build`` takes, and the most memory, in MiB, that it holds."""
    taken = []
    held: float | None = None
    for _ in range(times):
        _release(device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
        started = time.perf_counter()
        built = build()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            held = (torch.cuda.max_memory_allocated(device) - before) / _MIB
        taken.append((time.perf_counter() - started) * 1e3)
        del built
    return statistics.median(taken), held


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
