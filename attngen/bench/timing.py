"""Times of several calls that take turns, so that a warming card slows all of them alike.

Each round gives every call a burst; the rounds begin with another call each time. A call's time is the median
over all its bursts, by CUDA events (by the clock on a CPU).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

Call = Callable[[], object]

_FLUSH_BYTES = 256 * 2**20  # larger than any L2, so that every call finds it cold


class Clock(Protocol):
    """Marks in a stream of work, and the milliseconds between two of them once it is done."""

    def mark(self) -> Any: ...
    def between(self, first: Any, last: Any) -> float: ...
    def wait(self) -> None: ...
    def before_call(self) -> None: ...


class CudaClock:
    """CUDA events. Before each call a large buffer is cleared: a cold L2, and work ahead of the host."""

    def __init__(self) -> None:
        self._buffer = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device="cuda")

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between(self, first: torch.cuda.Event, last: torch.cuda.Event) -> float:
        return float(first.elapsed_time(last))

    def wait(self) -> None:
        torch.cuda.synchronize()

    def before_call(self) -> None:
        self._buffer.zero_()


class WallClock:
    """The processor's clock, for calls that have finished when they return."""

    def mark(self) -> float:
        return time.perf_counter()

    def between(self, first: float, last: float) -> float:
        return (last - first) * 1e3

    def wait(self) -> None:
        pass

    def before_call(self) -> None:
        pass


def clock_of(device: torch.device) -> Clock:
    return CudaClock() if device.type == "cuda" else WallClock()


@dataclass(frozen=True)
class Race:
    """The median milliseconds of each call, and what a call raised that could not finish."""

    ms: dict[str, float]
    failed: dict[str, Exception]


def race(
    calls: Mapping[str, Call],
    clock: Clock,
    *,
    warm_ms: float = 150.0,
    budget_ms: float = 150.0,
    rounds: int = 6,
) -> Race:
    """Time ``calls``, taking turns. Each is warmed for ``warm_ms`` and then timed for about ``budget_ms``."""
    times: dict[str, list[float]] = {}
    failed: dict[str, Exception] = {}
    bursts: dict[str, int] = {}
    for name, call in calls.items():
        try:
            each = _warm(call, clock, warm_ms)
        except Exception as error:
            failed[name] = error
            continue
        times[name] = []
        bursts[name] = max(1, min(40, round(budget_ms / rounds / max(each, 1e-3))))
    names = list(times)
    for number in range(rounds):
        turn = number % max(1, len(names))
        for name in names[turn:] + names[:turn]:
            times[name] += _burst(calls[name], clock, bursts[name])
    return Race({name: statistics.median(found) for name, found in times.items()}, failed)


def _warm(call: Call, clock: Clock, warm_ms: float) -> float:
    """Run ``call`` for ``warm_ms`` at least, three times at least; the fastest time, in milliseconds."""
    call()
    clock.wait()
    started, fastest, done = time.perf_counter(), float("inf"), 0
    while done < 2 or (time.perf_counter() - started) * 1e3 < warm_ms:
        fastest = min(fastest, *_burst(call, clock, 2))
        done += 2
    return fastest


def _burst(call: Call, clock: Clock, count: int) -> list[float]:
    """The times of ``count`` calls, queued one behind the other."""
    marks = []
    for _ in range(count):
        clock.before_call()
        first = clock.mark()
        result = call()
        last = clock.mark()
        del result  # its memory serves the next call
        marks.append((first, last))
    clock.wait()
    return [clock.between(first, last) for first, last in marks]
