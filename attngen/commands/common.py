"""What the commands share: settings, and messages on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from math import isinf

import typer

from attngen.errors import AttnGenError, BuildError
from attngen.ir.types import Scalar


class Backend(StrEnum):
    """Who writes the kernel."""

    AUTO = "auto"
    TRITON = "triton"
    HOPPER = "hopper"


def require_cuda() -> None:
    """BuildError where torch has no CUDA device."""
    import torch

    if not torch.cuda.is_available():
        raise BuildError("torch sees no CUDA device", hint="--device cpu runs Triton's interpreter")


def complain(what: object) -> None:
    """Print a message on stderr as it is: no colour, no wrapping, so that editors can read the place."""
    sys.stdout.flush()
    is_placed = not isinstance(what, AttnGenError) or what.source is not None
    print(what if is_placed else f"error: {what}", file=sys.stderr)


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
    """``["window=1024", "exact=True"]`` as ``{"window": 1024, "exact": True}``.

    What does not fit is a usage error that names every misfit.
    """
    found: dict[str, Scalar] = {}
    wrong: list[str] = []
    for pair in pairs:
        name, equals, text = (part.strip() for part in pair.partition("="))
        value = _scalar(text)
        if not (name and equals) or value is None:
            wrong.append(f"{pair!r} is not name=value, where the value is a number, True or False")
        elif isinstance(value, float) and isinf(value) and "inf" not in text.lower():
            wrong.append(f"{pair!r}: the value is too large for float32")
        elif name in found:
            wrong.append(f"{name!r} is set twice")
        else:
            found[name] = value
    if wrong:
        raise typer.BadParameter("; ".join(wrong))
    return found


def _scalar(text: str) -> Scalar | None:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return None
