"""Pieces of expressions and how tightly they bind: the only precedence table, for kernels and launcher alike.

Text("a + b", SUM).at(PRODUCT)   ->   (a + b)
Text("a * b", PRODUCT).at(SUM)   ->   a * b
"""

from __future__ import annotations

from dataclasses import dataclass

# Binding strength of Python's operators, loosest first.
CONDITIONAL, OR, AND, NOT, COMPARE, BIT_OR, BIT_AND, SUM, PRODUCT, UNARY, ATOM = range(11)


@dataclass(frozen=True)
class Text:
    """A piece of an expression and the strength of its loosest operator."""

    text: str
    level: int = ATOM

    def at(self, level: int) -> str:
        """The text where an operand of at least this strength is expected."""
        return self.text if self.level >= level else f"({self.text})"


def infix(left: Text, sign: str, right: Text, level: int) -> Text:
    """``left sign right``, grouped as the IR groups it: sums and products of floats are not associative."""
    tighter = level if level in (OR, AND, BIT_OR, BIT_AND) else level + 1
    looser = level + 1 if level == COMPARE else level
    return Text(f"{left.at(looser)} {sign} {right.at(tighter)}", level)


def call(function: str, *args: Text) -> Text:
    """``function(args)``."""
    return Text(f"{function}({', '.join(a.text for a in args)})")
