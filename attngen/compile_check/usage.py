"""Registers and spills, read from what an assembler says.

ptxas info    : Used 168 registers, used 1 barriers            ->  168 registers
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads  ->  12 bytes spilled
.vgpr_spill_count: 3                                           ->  3 registers spilled
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

# Where in the assembly, and in which kernel: the same warning is given for every place.
_PLACE = re.compile(r" (?:in )?around line \d+| in (?:the )?function '\w+'")


@dataclass(frozen=True)
class Usage:
    """``registers`` a thread, ``spills`` (NVIDIA: bytes stored and loaded; AMD: registers), ``warnings``."""

    registers: int
    spills: int
    warnings: tuple[str, ...] = ()


def from_ptxas(log: str) -> Usage:
    """The words of ``ptxas -v`` about one kernel. Warnings are those that it numbers, as C7510;
    one that comes n times stands once, with "xn"."""
    registers = re.search(r"Used (\d+) registers", log)
    spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", log)
    if registers is None:
        raise ValueError(f"not the output of ptxas -v: {log[:200]!r}")
    warnings = Counter(re.findall(r"\((C\d{4})\)\s*(.*)", _PLACE.sub("", log)))
    notes = (f"{code}{f' x{n}' if n > 1 else ''}: {text}" for (code, text), n in warnings.items())
    return Usage(int(registers[1]), sum(map(int, spills)), tuple(notes))


def from_amdgcn(assembly: str) -> Usage:
    """The metadata at the end of a kernel's AMD assembly. Its .vgpr_count holds the AGPRs too."""
    counts = dict(re.findall(r"\.(vgpr_count|vgpr_spill_count):\s*(\d+)", assembly))
    if len(counts) != 2:
        raise ValueError("not the assembly of an AMD kernel: no register counts")
    return Usage(int(counts["vgpr_count"]), int(counts["vgpr_spill_count"]))
