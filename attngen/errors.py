"""Every error that a spec or a build can cause: one class a kind, each message with a place and a caret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attngen.source import Source, Span


class AttnGenError(Exception):
    """An error of a spec.

    ``message`` says what was expected and what came; ``line`` and ``column`` count from 1 (None where the
    error has no place in a text, as a missing file); ``hint`` is a suggestion, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        source: Source | None = None,
        span: Span | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.source = source
        self.span = span
        self.hint = hint

    @property
    def line(self) -> int | None:
        return self.span.line if self.span else None

    @property
    def column(self) -> int | None:
        return self.span.column if self.span else None

    def __str__(self) -> str:
        place = self.source.name if self.source else ""
        if self.span:
            place += f":{self.span.line}:{self.span.column}"
        text = f"{place}: error: " if place else ""
        text += self.message + (f"; {self.hint}" if self.hint else "")
        if self.source and self.span:
            text += "\n" + excerpt(self.source, self.span)
        return text


_WIDEST = 120  # columns of an excerpt; a longer line is cut around the caret


def excerpt(source: Source, span: Span) -> str:
    """The line of a place, indented, and carets under the place."""
    line = source.line(span.line).replace("\t", " ")
    line = "".join(c if c.isprintable() else "?" for c in line)
    start = span.column - 1
    end = span.end_column - 1 if span.end_line == span.line else len(line)
    if len(line) > _WIDEST:
        shift = max(0, start - _WIDEST // 2)
        line, start, end = line[shift : shift + _WIDEST], start - shift, end - shift
    end = max(start + 1, min(end, len(line)))
    return f"    {line}\n    {' ' * start}{'^' * (end - start)}"


class SpecSyntaxError(AttnGenError):
    """The text is not a spec."""


class SpecNameError(AttnGenError):
    """A name is unknown, taken, or not allowed here."""


class SpecTypeError(AttnGenError):
    """A value has the wrong type or rank."""


class SpecValueError(AttnGenError):
    """A constant has a value that cannot be used."""


class SpecLimitError(AttnGenError):
    """The text is larger or deeper than a spec may be."""


class ResourceError(AttnGenError):
    """No kernel for this spec fits the target's registers or shared memory."""


class BuildError(AttnGenError):
    """A file could not be read, written or trusted."""


class SpecErrors(AttnGenError):
    """Several errors of one spec. ``errors`` holds all; line, column and hint are the first one's."""

    def __init__(self, errors: Sequence[AttnGenError]) -> None:
        first = errors[0]
        super().__init__(first.message, source=first.source, span=first.span, hint=first.hint)
        self.errors = tuple(errors)

    def __reduce__(self) -> tuple[object, ...]:
        # An exception is pickled as its class and message; this one is made from its parts.
        return SpecErrors, (self.errors,)

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))
