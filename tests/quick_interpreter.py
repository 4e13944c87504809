"""Triton's interpreter, faster: what it patches at every call of a device function, it need not seek anew.

At each such call it looks for the builtins of ``triton.language`` among all that the modules have, to replace
them. Which names those are never changes, and mostly they are replaced already.
"""

from __future__ import annotations

import inspect
from typing import Any


def remember_builtins() -> None:
    """Seek the builtins once. To be called before a kernel has run: then none of them is replaced yet."""
    import triton.language as tl
    from triton.runtime import interpreter

    packages: tuple[Any, ...] = (tl, tl.core, tl.tensor, tl.math, tl.core.tensor_descriptor_base)
    names = {
        id(p): [n for n, member in inspect.getmembers(p) if tl.core.is_builtin(member)] for p in packages
    }

    def patch_builtin(package: Any, builder: Any, scope: Any) -> None:
        if id(package) not in names:
            return usual(package, builder, scope)
        mine = names[id(package)]
        if mine and tl.core.is_builtin(getattr(package, mine[0])):  # else all of them are replaced
            for name in mine:
                interpreter._patch_attr(package, name, getattr(package, name), builder, scope)
        return None

    usual, interpreter._patch_builtin = interpreter._patch_builtin, patch_builtin
