"""What has been measured so far, one line a measurement, written at once: a killed run loses one heat.

The first line says on what machine, with which versions and for which dtype; a journal of another is refused.
A line that was cut in the write is dropped when the journal is opened again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from attngen.errors import BuildError


@dataclass(frozen=True)
class Measurement:
    """A candidate's milliseconds and those of the current tile in the same heat; or why there are none.

    ``is_final``: of the last heat, which decides. ``work`` is floating-point operations.
    """

    search: str
    tile: str
    ms: float | None
    current_ms: float | None
    work: float = 0.0
    why: str = ""
    is_final: bool = False

    @property
    def ratio(self) -> float | None:
        """The candidate's time over the current tile's: below 1 where it is faster."""
        return None if self.ms is None or not self.current_ms else self.ms / self.current_ms


class Journal:
    """The measurements of one run and of those that it goes on from."""

    def __init__(self, path: Path, about: Mapping[str, str], *, resume: bool) -> None:
        self.path = path
        self.found: list[Measurement] = []
        self._about = dict(about)
        try:
            text = path.read_bytes() if path.exists() else b""
            if text and not resume:
                raise BuildError(
                    f"{path} holds the measurements of another run", hint="--resume goes on, or remove it"
                )
            whole = text[: text.rfind(b"\n") + 1]
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.truncate(len(whole))
            self._read(whole)
        except OSError as error:
            raise BuildError(f"cannot use {path}: {error.strerror or error}") from error
        if not whole:
            self._append(self._about)

    def has(self, search: str, tile: str) -> bool:
        return any((m.search, m.tile) == (search, tile) and not m.is_final for m in self.found)

    def of(self, search: str) -> list[Measurement]:
        return [m for m in self.found if m.search == search]

    def add(self, measurement: Measurement) -> None:
        self.found.append(measurement)
        self._append(asdict(measurement))

    def _append(self, entry: Mapping[str, object]) -> None:
        with self.path.open("ab") as file:
            file.write((json.dumps(entry) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def _read(self, text: bytes) -> None:
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                entry = json.loads(line)
                if number > 1:
                    self.found.append(Measurement(**entry))
            except (ValueError, TypeError) as error:
                raise BuildError(f"{self.path}:{number}: error: no line of a journal") from error
            if number == 1 and entry != self._about:
                raise BuildError(
                    f"{self.path} is of {_said(entry)}, and this is {_said(self._about)}",
                    hint="take another --out, or remove it",
                )


def _said(about: object) -> str:
    return ", ".join(map(str, about.values())) if isinstance(about, dict) else "something else"
