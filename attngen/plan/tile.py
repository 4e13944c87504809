"""The tile of one program, as Triton's kernels take it and as Gluon's do, and how a table writes them.

Tile(64, 32, 4, 3)   <->   block_m=64 block_n=32 warps=4 stages=3
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

_Either = TypeVar("_Either", "Tile", "HopperTile")


@dataclass(frozen=True)
class Tile:
    """One program's tile: query rows, key rows, warps, and the pipeline's stages."""

    block_m: int
    block_n: int
    warps: int
    stages: int


@dataclass(frozen=True)
class HopperTile:
    """One program of the forward: ``parts`` consumer warpgroups of 64 queries, BLOCK_N keys a step.

    ``stages`` tiles of keys and of values lie in shared memory. ``registers`` is of a consumer's thread.
    ``turns``: the warpgroups begin their products one after the other. ``late``: a step takes all its
    exponentials before it waits for the product with V. ``programs`` run on a multiprocessor at once.
    ``dense`` tiles of an input that each score reads at its own place lie there for each warpgroup.
    """

    parts: int
    block_n: int
    stages: int
    registers: int
    turns: bool
    late: bool
    programs: int = 1
    dense: int = 0


def tile_text(tile: Tile | HopperTile) -> str:
    """A tile as a table writes it: ``NAME=NUMBER`` for each field, and ``yes`` or ``no`` for a choice.

    What has its default value is left out.
    """
    given = [(field, getattr(tile, field.name)) for field in fields(tile)]
    said = {field.name: value for field, value in given if value != field.default}
    return " ".join(f"{name}={_WORDS[x] if isinstance(x, bool) else x}" for name, x in said.items())


def tile_of(kind: type[_Either], text: str) -> _Either:
    """The tile of this kind that a table writes so. ValueError says what was expected and what came."""
    known = {field.name: field.default for field in fields(kind)}
    given: dict[str, Any] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals or name not in known:
            raise ValueError(f"expected {_form(kind)}, got {word!r}")
        if name in given:
            raise ValueError(f"{name} is given twice")
        given[name] = _value(name, value, name in ("turns", "late"))
    if missing := [name for name, default in known.items() if default is MISSING and name not in given]:
        raise ValueError(f"expected {_form(kind)}: {', '.join(missing)} missing")
    return kind(**given)


_WORDS = {True: "yes", False: "no"}
_POWERS_OF_TWO = {"block_m": 16, "block_n": 16, "warps": 1}  # and the least that a kernel takes
# And the most: three consumers beside a producer have all of a multiprocessor's registers.
_MOST = {
    "block_m": 256,
    "block_n": 256,
    "warps": 16,
    "stages": 8,
    "parts": 3,
    "registers": 240,
    "programs": 8,
}


def _value(name: str, text: str, is_choice: bool) -> int | bool:
    if is_choice:
        if text not in _WORDS.values():
            raise ValueError(f"{name} is yes or no, got {text!r}")
        return text == _WORDS[True]
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
    least, most = _POWERS_OF_TWO.get(name), _MOST.get(name, 8)
    if least is not None and (not least <= number <= most or number & (number - 1)):
        raise ValueError(f"{name} is a power of two from {least} to {most}, got {text!r}")
    if not 1 <= number <= most:
        raise ValueError(f"{name} is a number from 1 to {most}, got {text!r}")
    if name == "registers" and number % 8:
        raise ValueError(f"registers are a multiple of 8, got {text!r}")
    return number


def _form(kind: type[Tile] | type[HopperTile]) -> str:
    return " ".join(f"{field.name}=..." for field in fields(kind) if field.default is MISSING)
