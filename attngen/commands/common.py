"""What the commands share: settings, messages on stderr, and files written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

import typer

from attngen.errors import AttnGenError, BuildError
from attngen.ir.types import Scalar


class Backend(StrEnum):
    """Who writes the kernel."""

    AUTO = "auto"
    TRITON = "triton"


def complain(error: object) -> None:
    """Print a message on stderr as it is: no colour, no wrapping, so that editors can read the place."""
    sys.stdout.flush()
    print(error, file=sys.stderr)


class Failures:
    """Errors met so far. Every FILE is looked at before the command fails."""

    def __init__(self) -> None:
        self.count = 0

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        try:
            yield
        except AttnGenError as error:
            self.count += 1
            complain(error)

    def exit_if_any(self) -> None:
        if self.count:
            raise typer.Exit(1)


def settings(pairs: Sequence[str]) -> dict[str, Scalar]:
    """``["window=1024", "exact=True"]`` as ``{"window": 1024, "exact": True}``. A misfit is a usage error."""
    found: dict[str, Scalar] = {}
    for pair in pairs:
        name, equals, text = (part.strip() for part in pair.partition("="))
        value = _scalar(text)
        if not (name and equals) or value is None:
            raise typer.BadParameter(
                f"{pair!r} is not name=value, where the value is a number, True or False"
            )
        if name in found:
            raise typer.BadParameter(f"{name!r} is set twice")
        found[name] = value
    return found


def _scalar(text: str) -> Scalar | None:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return None


def write_atomically(path: Path, text: str) -> None:
    """Write ``path`` so that a reader sees the old file or the new one, never a part of either."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp gives 0600; this is an ordinary file
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise BuildError(f"cannot write {path}: {error.strerror or error}") from None


def _umask() -> int:
    # The only way to read it is to set it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
