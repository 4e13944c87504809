"""Quotients and remainders of a streamed place, in tiles that lie within one run of the divisor's length.

    abs(q // 128 - k // 128) <= 6, tiles of 64 keys   ->   k // 128 is one number for the whole tile

A tile begins at a multiple of its size. Where that divides the divisor, no tile crosses a multiple of the
divisor: the quotient is the first place's, and the remainder counts on from its. Of a mask of neighbours in
an image, half of it then is no work for each score.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attngen.emit.names import Names
from attngen.emit.precedence import Text, call
from attngen.emit.statements import Block, Language, Writer
from attngen.ir.nodes import Expr, Op, word

_LEAST_TILE = 16  # every tile is a power of two from here on


@dataclass(frozen=True)
class _Streamed:
    """The kernels' language in a loop whose tiles of ``block`` places begin at ``first``."""

    kernel: Language
    place: Expr
    first: Text
    block: Text

    def text(self, node: Expr, args: Sequence[Text]) -> Text:
        if not _is_of_run(node, self.place):
            return self.kernel.text(node, args)
        function = "number_of_run" if node.op is Op.FLOORDIV else "place_in_run"
        return call(function, args[0], self.first, args[1], self.block)

    def operands(self, node: Expr) -> tuple[Expr, ...]:
        return self.kernel.operands(node)

    def reads(self, node: Expr) -> Iterable[str]:
        return self.kernel.reads(node)


def streamed_keys(kernel: Language, names: Names, parts: Sequence[Expr], given: Iterable[Expr]) -> Block:
    """Lines that give ``parts`` of a mask their names, in a loop over tiles of keys.

    Each begins at a key: elsewhere a remainder may lie outside its run.
    """
    language = _Streamed(kernel, word("k"), Text("n"), Text("BLOCK_N"))
    return Writer(language, names).assignments(parts, given)


def streamed_queries(kernel: Language, names: Names, parts: Sequence[Expr], given: Iterable[Expr]) -> Block:
    """The same in a loop over tiles of queries."""
    language = _Streamed(kernel, word("q"), Text("first"), Text("BLOCK_M"))
    return Writer(language, names).assignments(parts, given)


def _is_of_run(node: Expr, place: Expr) -> bool:
    if node.op not in (Op.FLOORDIV, Op.MOD) or node.args[0] is not place:
        return False
    divisor = node.args[1].value
    return (
        node.args[1].op is Op.CONST
        and isinstance(divisor, int)
        and divisor > 0
        and divisor % _LEAST_TILE == 0
    )
