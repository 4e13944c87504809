"""A mask's quotients and remainders of a streamed place, as a loop writes them (see ``plan.runs``).

k // 128   ->   number_of_run(k, n, 128, BLOCK_N)
k % 128    ->   place_in_run(k, n, 128, BLOCK_N)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attngen.emit.names import Names
from attngen.emit.precedence import Text, call
from attngen.emit.statements import Block, Language, Writer
from attngen.ir.nodes import Expr, Op, word
from attngen.plan.runs import is_by_run


@dataclass(frozen=True)
class _Streamed:
    """The kernels' language in a loop whose tiles of ``block`` places begin at ``first``."""

    kernel: Language
    place: Expr
    first: Text
    block: Text

    def text(self, node: Expr, args: Sequence[Text]) -> Text:
        if not is_by_run(node, self.place):
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
