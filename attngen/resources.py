"""Where the files that ship with the package lie: beside it in a checkout, inside it in a wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    """A shipped folder. The wheel puts it into ``attngen/_data``; a checkout has it at the root."""
    packed = _PACKAGE / "_data" / name
    return packed if packed.is_dir() else _PACKAGE.parent / name


@cache
def grammar_text() -> str:
    """The grammar of the spec language, for lark."""
    return (_folder("grammar") / "attention.lark").read_text(encoding="utf-8")


@cache
def prelude_text() -> str:
    """The standard words (``causal``, ``softcap``, ...), written in the spec language."""
    return (_folder("grammar") / "prelude.attn").read_text(encoding="utf-8")


def template_dir() -> Path:
    """The folder of the Jinja templates (``triton/``, ``hopper/``)."""
    return _folder("templates")


def zoo_dir() -> Path:
    """The folder of the named specs (``alibi.attn``, ...)."""
    return _PACKAGE / "zoo"
