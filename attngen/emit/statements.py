"""Expressions as statements: shared terms get a line and a name, and every line stays short.

1.0 - tanh(x) * tanh(x)   ->   squashed = tanh(x)
                               1.0 - squashed * squashed
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from attngen.emit.names import Names
from attngen.emit.precedence import Text
from attngen.ir.nodes import Expr

_LONGEST = 80  # characters of an expression before its parts get lines of their own


class Language(Protocol):
    """What turns one node into text: for the kernels ``TritonExpr``, for the launcher ``HostExpr``."""

    def text(self, node: Expr, args: Sequence[Text]) -> Text: ...

    def operands(self, node: Expr) -> tuple[Expr, ...]: ...

    def reads(self, node: Expr) -> Iterable[str]: ...


@dataclass(frozen=True)
class Block:
    """Finished lines, the expressions they end in, and the names they read and set.

    ``results`` has one text per root. ``uses`` are names the block reads and does not define, in the order
    of their first use; ``defines`` the names that its lines set.
    """

    lines: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    defines: tuple[str, ...] = ()


class Writer:
    """Writes blocks for one variant. Names are shared between blocks: one value, one name."""

    def __init__(self, language: Language, names: Names) -> None:
        self._language = language
        self._names = names

    def results(self, roots: Sequence[Expr], given: Iterable[Expr] = ()) -> Block:
        """Lines that lead to the texts of ``roots``; the values in ``given`` already have their names."""
        return self.written(roots, given)[0]

    def assignments(self, roots: Sequence[Expr], given: Iterable[Expr] = ()) -> Block:
        """Lines that give each root its name, in this order."""
        known = {g: None for g in given if g not in set(roots)}
        return self._write(tuple(dict.fromkeys(roots)), known, frozenset(roots))[0]

    def written(self, roots: Sequence[Expr], given: Iterable[Expr] = ()) -> tuple[Block, list[Text]]:
        """``results``, and its texts with what binds them, for a larger expression around them."""
        return self._write(roots, dict.fromkeys(given), frozenset())

    def _write(
        self, roots: Sequence[Expr], known: dict[Expr, None], assigned: frozenset[Expr]
    ) -> tuple[Block, list[Text]]:
        nodes = self._below(roots, known)
        users = Counter(roots)
        users.update(a for n in nodes if n not in known for a in self._language.operands(n))
        texts: dict[Expr, Text] = {}
        lines: list[str] = []
        uses: dict[str, None] = {}
        defines: dict[str, None] = {}

        def bind(node: Expr) -> None:
            name = self._names.part(node)
            lines.append(f"{name} = {texts[node].text}")
            defines[name] = None
            texts[node] = Text(name)

        for node in nodes:
            if node in known:
                texts[node] = Text(self._names.part(node))
                uses[texts[node].text] = None
                continue
            args = [texts[a] for a in self._language.operands(node)]
            texts[node] = self._language.text(node, args)
            while len(texts[node].text) > _LONGEST and (long := self._longest_part(node, texts)):
                bind(long)
                texts[node] = self._language.text(node, [texts[a] for a in self._language.operands(node)])
            uses.update(dict.fromkeys(self._language.reads(node)))
            if node in assigned or (self._language.operands(node) and users[node] > 1):
                bind(node)
        results = [texts[r] for r in roots]
        own = tuple(u for u in uses if u not in defines)
        return Block(tuple(lines), tuple(r.text for r in results), own, tuple(defines)), results

    def _longest_part(self, node: Expr, texts: dict[Expr, Text]) -> Expr | None:
        """The operand whose text is the longest, if it is more than a name."""
        operands = self._language.operands
        part = max(operands(node), key=lambda a: len(texts[a].text), default=None)
        return None if part is None or texts[part].text.isidentifier() or not operands(part) else part

    def _below(self, roots: Sequence[Expr], known: dict[Expr, None]) -> list[Expr]:
        """The nodes under ``roots`` down to the known ones, operands first."""
        order: list[Expr] = []
        seen: set[Expr] = set()
        stack: list[tuple[Expr, bool]] = [(r, False) for r in reversed(roots)]
        while stack:
            node, ready = stack.pop()
            if ready:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                if node not in known:
                    stack.extend((a, False) for a in reversed(self._language.operands(node)))
        return order
