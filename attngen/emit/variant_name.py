"""The variant's name is the emitted function's: it must not replace what the module itself reads.

variant torch   ->   refused: every function of the module reads ``torch``
variant acc     ->   fine: only locals are called so
"""

from __future__ import annotations

import symtable

from attngen.errors import SpecNameError
from attngen.ir.nodes import AttentionIR
from attngen.source import Source


def require_free_name(text: str, ir: AttentionIR, source: Source) -> None:
    """Raises a located SpecNameError where a function of the variant's name would break the module."""
    if ir.name in names_read(text):
        message = f"the emitted module needs the name '{ir.name}' itself"
        hint = f"call the variant '{ir.name}_attention' or the like"
        raise SpecNameError(message, source=source, span=ir.spans.get("variant"), hint=hint)


def names_read(text: str) -> set[str]:
    """The module's names, and the built-ins, that some function of the module reads when it is called."""
    found: set[str] = set()
    scopes = list(symtable.symtable(text, "<module>", "exec").get_children())
    while scopes:
        scope = scopes.pop()
        scopes.extend(scope.get_children())
        found.update(s.get_name() for s in scope.get_symbols() if s.is_global() and s.is_referenced())
    return found
