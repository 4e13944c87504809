"""Fuzzing of the whole compiler: every text must become a kernel or a located error of attngen's own.

    python -m tests.fuzz --count 1000000 --jobs 16 --seed 1

counts what came of each kind of text. Text number i depends on the seed and i alone: ``--first`` resumes.
Every text is parsed and checked; a share of those that pass (``--deep``) goes on to Python source, which is
compiled. At the first exception that is not ours the run ends, with a shrunk text and the traceback;
``--all`` goes on, and shows one for each place that raises.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # as pytest has it

import fuzz_specs  # noqa: E402

from attngen.errors import AttnGenError, SpecErrors  # noqa: E402
from attngen.ir.nodes import AttentionIR  # noqa: E402
from attngen.pipeline import check_spec, compile_spec  # noqa: E402
from attngen.source import Source  # noqa: E402
from attngen.syntax.parse import decode_spec  # noqa: E402

BLOCK = 1000
NAME = "fuzzed.attn"


class NotLocated(Exception):
    """An error of ours without a place in the text."""


class TooSlow(Exception):
    """A text took longer than it may."""


@dataclass(frozen=True)
class Choices:
    """What is done with a text that is well typed, beside checking it: settled before it is looked at."""

    deep: bool
    math: str
    setting: float  # the const's value that an override sets; no override where negative


@dataclass(frozen=True)
class Finding:
    """An exception that is not ours: where it was raised (type, file, function), and by what."""

    place: tuple[str, str, str]
    kind: str
    spec: str | bytes
    choices: Choices
    trace: str


@dataclass
class Tally:
    """What came of some texts: (kind of text, outcome) -> how many."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, 0)  # seconds, and the text's number

    def add(self, other: Tally) -> None:
        self.counts.update(other.counts)
        self.findings += other.findings
        self.slowest = max(self.slowest, other.slowest)


def outcome(spec: str | bytes, choices: Choices) -> str:
    """What comes of a text: "kernel", "checked" (well typed; not carried on) or the class of the error.

    Raises whatever else the compiler raises, and NotLocated where its error has no place.
    """
    try:
        source = decode_spec(spec, NAME) if isinstance(spec, bytes) else Source(spec, NAME)
        front = check_spec(source)
        overrides = _overrides(front.ir, choices.setting)
        if not choices.deep:
            if overrides:
                check_spec(source, overrides=overrides)
            return "checked"
        result = compile_spec(source, overrides=overrides, math=choices.math)
    except AttnGenError as error:
        _require_place(error)
        return type(error).__name__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile(result.text, NAME, "exec", dont_inherit=True)
    return "kernel"


def _overrides(ir: AttentionIR, value: float) -> dict[str, bool | int | float]:
    """``value`` for the first const, as a number of its type."""
    first = next(iter(ir.consts), None) if value >= 0 else None
    return {} if first is None else {first[0]: type(first[1])(value)}


def _require_place(error: AttnGenError) -> None:
    for one in error.errors if isinstance(error, SpecErrors) else (error,):
        if one.source is None or one.line is None or one.column is None:
            raise NotLocated(f"{type(one).__name__}: {one.message}") from one
        lines = one.source.text.count("\n") + 1
        if one.source.text and not (1 <= one.line <= lines and one.column >= 1):
            raise NotLocated(f"{one.line}:{one.column} is outside the text's {lines} lines") from one
        if not one.message.strip() or not str(one).startswith(f"{NAME}:{one.line}:{one.column}: error: "):
            raise NotLocated(f"the message is {str(one)!r}") from one


def choices_for(seed: int, number: int, deep: float) -> Choices:
    rng = random.Random(f"{seed}:{number}:choices")
    setting = float(rng.choice([0, 1, 2, 5, 2**20, 2**31, 1e30])) if rng.random() < 0.1 else -1.0
    return Choices(rng.random() < deep, rng.choice(["approx", "exact"]), setting)


# --- one process ------------------------------------------------------------------------------------------


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TooSlow in the body after so long (in the main thread, where there are such alarms)."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlow(f"longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def try_one(kind: str, spec: str | bytes, choices: Choices, limit: float) -> str | Finding:
    try:
        with limited(limit):
            return outcome(spec, choices)
    except Exception as error:
        return Finding(_place(error), kind, spec, choices, traceback.format_exc())


def _place(error: Exception) -> tuple[str, str, str]:
    """The innermost function of attngen's that the exception passed through."""
    if isinstance(error, TooSlow):  # which may strike anywhere
        return ("TooSlow", "", "")
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f"{os.sep}attngen{os.sep}" in f.filename] or list(frames)
    return (type(error).__name__, Path(ours[-1].filename).name, ours[-1].name)


def run_block(seed: int, number: int, first: int, count: int, deep: float, limit: float) -> Tally:
    """Texts ``first`` to ``count`` (exclusive) of a block."""
    tally = Tally()
    texts = fuzz_specs.block(seed, number, count)
    for i, text in enumerate(texts[first:], first):
        choices = choices_for(seed, number * BLOCK + i, deep)
        start = time.perf_counter()
        found = try_one(text.kind, text.spec, choices, limit)
        elapsed = time.perf_counter() - start
        tally.slowest = max(tally.slowest, (elapsed, number * BLOCK + i))
        if isinstance(found, Finding):
            tally.findings.append(found)
            found = found.place[0]
        tally.counts[text.kind, found] += 1
    return tally


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _job(arguments: tuple[int, int, int, int, float, float]) -> tuple[int, Tally]:
    return arguments[1], run_block(*arguments)


def blocks(first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """(block, from, to) that cover the texts from ``first`` on."""
    last = first + count
    for number in range(first // BLOCK, -(-last // BLOCK)):
        start = number * BLOCK
        yield number, max(first - start, 0), min(last - start, BLOCK)


# --- shrinking --------------------------------------------------------------------------------------------


def shrunk(finding: Finding, limit: float, tries: int = 3000) -> Finding:
    """A smaller text that raises the same exception in the same function."""
    best = finding
    left = tries

    def fails(spec: str | bytes) -> bool:
        nonlocal best, left
        left -= 1
        found = try_one(best.kind, spec, best.choices, limit) if left > 0 else ""
        if isinstance(found, Finding) and found.place == best.place:
            best = found
            return True
        return False

    cuts: Sequence[Callable[[str], list[str]]] = (
        lambda text: text.splitlines(keepends=True),
        fuzz_specs.tokens_of,
        list,
    )
    if isinstance(best.spec, str):
        for cut in cuts:
            _remove_parts(cut(best.spec), lambda parts: fails("".join(parts)))
    else:
        _remove_parts([best.spec[i : i + 1] for i in range(len(best.spec))], lambda p: fails(b"".join(p)))
    return best


def _remove_parts(parts: list[Any], fails: Callable[[list[Any]], bool]) -> None:
    """Removes runs of parts, long ones first, as long as what is left fails."""
    size = max(1, len(parts) // 2)
    while parts:
        at, removed = 0, False
        while at < len(parts):
            fewer = parts[:at] + parts[at + size :]
            if fewer != parts and fails(fewer):
                parts, removed = fewer, True
            else:
                at += size
        if size == 1 and not removed:
            return
        size = max(1, size // 2)


# --- the run ----------------------------------------------------------------------------------------------


def table(counts: Counter[tuple[str, str]]) -> str:
    """Outcomes as columns, kinds of text as rows."""
    kinds = sorted({kind for kind, _ in counts})
    outcomes = [
        o
        for o, _ in Counter(
            {o: sum(n for (_, p), n in counts.items() if p == o) for _, o in counts}
        ).most_common()
    ]
    rows = [["", *outcomes, "all"]]
    for kind in [*kinds, "all"]:
        cells = [sum(n for (k, o), n in counts.items() if kind in (k, "all") and o == c) for c in outcomes]
        rows.append([kind, *(f"{n:,}" for n in cells), f"{sum(cells):,}"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in rows)


def report(finding: Finding, limit: float) -> None:
    small = shrunk(finding, limit)
    print(f"\n{'.'.join(small.place)} for a text of the kind {small.kind!r}, {small.choices}, shrunk:")
    print(repr(small.spec))
    print(small.spec if isinstance(small.spec, str) else "", small.trace, sep="\n", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="how many texts")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same texts")
    parser.add_argument("--first", type=int, default=0, help="the number of the first text: resumes a run")
    parser.add_argument(
        "--deep", type=float, default=0.05, help="share that goes on to source, of what checks"
    )
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that one text may take")
    parser.add_argument("--all", action="store_true", help="do not end at the first exception")
    given = parser.parse_args(arguments)
    jobs = [(given.seed, n, a, z, given.deep, given.limit) for n, a, z in blocks(given.first, given.count)]
    tally, shown, start = Tally(), set[tuple[str, str, str]](), time.perf_counter()
    # Ctrl-C ends a run as its last text does: with what was counted.
    with suppress(KeyboardInterrupt), multiprocessing.Pool(given.jobs, _ignore_interrupts) as pool:
        # In order, so that a run that is cut off says where to resume.
        for number, found in pool.imap(_job, jobs):
            tally.add(found)
            done = min((number + 1) * BLOCK, given.first + given.count)
            rate = (done - given.first) / (time.perf_counter() - start)
            print(f"\r{done:,} ({rate:,.0f} a second; resume with --first {done})", end="", file=sys.stderr)
            new = [f for f in found.findings if f.place not in shown]
            for finding in new:
                if finding.place not in shown:
                    shown.add(finding.place)
                    report(finding, given.limit)
            if new and not given.all:
                break
    seconds = time.perf_counter() - start
    print(f"\n\n{table(tally.counts)}\n\nseed {given.seed}, {given.jobs} processes, {seconds:.0f} s")
    print(f"slowest: {tally.slowest[0]:.2f} s for text {tally.slowest[1]}")
    verdict = "each a kernel or a located error" if not shown else f"{len(tally.findings):,} exceptions"
    print(f"{tally.counts.total():,} texts: {verdict}")
    return 1 if shown else 0


if __name__ == "__main__":
    sys.exit(main())
