"""A spec's text and places in it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A stretch of text. Lines and columns count from 1; the end column is exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True)
class Source:
    """The text of one spec and the name that messages call it by (a path as the user gave it)."""

    text: str
    name: str = "<spec>"

    def line(self, number: int) -> str:
        """Line ``number`` (from 1) without its newline; empty beyond the end."""
        lines = self.text.split("\n")
        return lines[number - 1].rstrip("\r") if 1 <= number <= len(lines) else ""
