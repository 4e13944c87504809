"""racecheck's hazards, and which of them are ordered in a way that the tool does not see.

racecheck (seen of 2025.3.1) loses the order of two hand-overs that PTX defines. Plain CUDA shows both: see
docs/correctness.md.

- Triton's ``warp_specialize``: the first warps store what the others are to do, and with which arguments; all
  warps meet at barrier 1; the others load it. Once some warps have met at a barrier of their own
  (``bar.sync 0, 128``), the tool no longer counts the barrier of all.
- ``note`` and ``noted``: all threads meet, one arrives at an mbarrier for all, another warp waits for it. The
  tool counts what the arriving thread itself did, not what others did before they met.

A hazard is taken for one of these by the memory and the code it is on: the bytes that PTX's stores before
``barrier.sync 1`` fill, written by the first warps and read by others; or a store of ``note`` and a load of
``noted`` in different warps. Two writes never are. That the kernels wait and meet where they should, no tool
says of these hand-overs: tests read the PTX for it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

FIRST_THREADS = 128  # of a program's first group of warps
RESERVED = 1024  # bytes of shared memory that the system keeps before a program's own, from sm_90 on

HAND_OVER = "what warp_specialize hands over"
NOTES = "notes"

_ACCESS = r"=+ +(Read|Write) Thread \((\d+),\d+,\d+\) at (.+?)\+0x([0-9a-f]+)(?: in (\S+):(\d+))?\n"
_HAZARD = re.compile(
    r"Potential (RAW|WAR|WAW) hazard detected at __shared__ 0x([0-9a-f]+) in block \((\d+),.*\n" + 2 * _ACCESS
)
_SUMMARY = re.compile(r"RACECHECK SUMMARY: (\d+) hazards? displayed \((\d+) errors?, (\d+) warnings?\)")
_STORE = re.compile(r"st\.shared\.(?:v([24])\.)?b(\d+)\s+\[global_smem(?:\+(\d+))?\],")
_ENDS_A_RUN = re.compile(r"^\$?\w+:|^(@\S+ )?(bra|brx|ret|bar|barrier|mbarrier|setmaxnreg|cp|wgmma|fence)\b")


@dataclass(frozen=True)
class Access:
    """One side of a hazard. ``file`` and ``line`` are "" and 0 where the kernel has no line numbers."""

    writes: bool
    thread: int
    kernel: str
    offset: int
    file: str
    line: int

    def __str__(self) -> str:
        where = f" in {self.file}:{self.line}" if self.file else ""
        what = "write" if self.writes else "read"
        return f"{what} by thread {self.thread} at {self.kernel}+{self.offset:#x}{where}"


@dataclass(frozen=True)
class Hazard:
    """Two accesses to one byte of shared memory, the later one last. ``kind`` is RAW, WAR or WAW."""

    kind: str
    address: int
    block: int
    first: Access
    second: Access

    def __str__(self) -> str:
        return f"{self.kind} at {self.address:#x} of block {self.block}: {self.first}, {self.second}"


class Cut(ValueError):
    """A log that does not hold all that the tool found."""


def hazards_in(log: str) -> list[Hazard]:
    """The hazards of a log of ``--racecheck-report hazard`` or all. Raises Cut unless it shows every one."""
    summary = _SUMMARY.search(log)
    if summary is None:
        raise Cut("expected a line RACECHECK SUMMARY, found none: the run did not end by itself")
    shown, errors, warnings = map(int, summary.groups())
    if shown != errors + warnings:
        raise Cut(f"expected all {errors + warnings} hazards, found {shown}: --print-limit 0 shows all")
    found = recorded(log)
    if len(found) != (said := log.count(" hazard detected at ")):
        raise Cut(f"expected {said} hazards in the form known here, found {len(found)}")
    if bool(found) != bool(shown):
        raise Cut(f"expected {shown} hazards, found none: --racecheck-report hazard lists them")
    return found


def recorded(log: str) -> list[Hazard]:
    """The hazards that a log shows, which need not be all: a run that hangs has no end."""
    return [_hazard(match) for match in _HAZARD.finditer(log)]


def _hazard(match: re.Match[str]) -> Hazard:
    kind, address, block, *sides = match.groups()
    first, second = (
        Access(writes == "Write", int(thread), kernel, int(offset, 16), file or "", int(line or 0))
        for writes, thread, kernel, offset, file, line in (sides[:6], sides[6:])
    )
    return Hazard(kind, int(address, 16), int(block), first, second)


def handed_over(ptx: str) -> tuple[range, ...]:
    """The bytes of shared memory, from where a program's own begins, in which a kernel's first warps store
    just before all warps meet at barrier 1: in straight lines of code, with no other barrier between."""
    found = []
    lines = [line.strip() for line in ptx.splitlines()]
    for at in (n for n, line in enumerate(lines) if re.match(r"barrier\.sync\s+1;", line)):
        for line in reversed(lines[:at]):
            if _ENDS_A_RUN.match(line):
                break
            if store := _STORE.match(line):
                count, bits, first = (int(x or 0) for x in store.groups())
                found.append(range(first, first + max(count, 1) * bits // 8))
    return tuple(dict.fromkeys(found))


def order_of(
    hazard: Hazard, areas: Mapping[str, Iterable[range]], function_of: Callable[[str, int], str]
) -> str | None:
    """What orders a hazard's accesses, HAND_OVER or NOTES; None for all that is not known to be ordered.

    ``areas`` are what ``handed_over`` gives, by kernel; ``function_of`` names the function at a file's line.
    """
    if hazard.first.writes == hazard.second.writes or hazard.first.kernel != hazard.second.kernel:
        return None
    sides = (hazard.first, hazard.second)
    write, read = sides if hazard.first.writes else sides[::-1]
    place = hazard.address - RESERVED
    if write.thread < FIRST_THREADS <= read.thread and any(
        place in area for area in areas.get(write.kernel, ())
    ):
        return HAND_OVER
    functions = function_of(write.file, write.line), function_of(read.file, read.line)
    if functions == ("note", "noted") and write.thread // 32 != read.thread // 32:
        return NOTES
    return None


def function_at(source: str, line: int) -> str:
    """The name of the innermost function of a module's text that a line belongs to; "" outside of all."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    around = [node for node in found if node.lineno <= line <= (node.end_lineno or 0)]
    return max(around, key=lambda node: node.lineno).name if around else ""
