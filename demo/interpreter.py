"""Triton's interpreter without two things that it does over and over: less than half the time, the same bits.

It runs a kernel program by program and operation by operation, and that stays so. But at each call of a
function inside a kernel it replaces the functions of triton.language by its own, replaced already or not; and
beside each addition and product of integers it computes a second one in int64 to find overflows, which a
compiled kernel does only where asked to. ``quickened`` replaces the functions once and looks for no overflow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import triton.language as tl
from triton.language import core
from triton.runtime import interpreter


@contextmanager
def quickened() -> Iterator[None]:
    """Launches inside this block are interpreted faster. A Triton with another interpreter stays as it is."""
    if not hasattr(interpreter, "_LangPatchScope"):
        yield
        return
    replace, options = interpreter._patch_lang, interpreter.interpreter_builder.options
    # It replaces what it finds among a function's globals: tl in a kernel's, core in Triton's own library.
    replaced = replace(SimpleNamespace(__globals__={"tl": tl, "core": core}))
    interpreter._patch_lang = lambda function: interpreter._LangPatchScope()  # which restores nothing
    interpreter.interpreter_builder.options = dataclasses.replace(options, sanitize_overflow=False)
    try:
        yield
    finally:
        interpreter.interpreter_builder.options = options
        interpreter._patch_lang = replace
        replaced.restore()
