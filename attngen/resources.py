"""Where the files that ship with the package lie: beside it in a checkout, inside it in a wheel."""

from __future__ import annotations

import os
import tomllib
from functools import cache
from pathlib import Path

from attngen.errors import BuildError

_PACKAGE = Path(__file__).resolve().parent


def _shipped(name: str) -> Path:
    """A shipped folder or file. The wheel puts it into ``attngen/_data``; a checkout has it at the root."""
    packed = _PACKAGE / "_data" / name
    return packed if packed.exists() else _PACKAGE.parent / name


@cache
def requirement(package: str) -> str:
    """What the package asks of a dependency, as its metadata say it: ``torch>=2.11``."""
    project = tomllib.loads(_shipped("pyproject.toml").read_text(encoding="utf-8"))["project"]
    (found,) = (str(one) for one in project["dependencies"] if str(one).startswith(package + ">"))
    return found


@cache
def grammar_text() -> str:
    """The grammar of the spec language, for lark."""
    return (_shipped("grammar") / "attention.lark").read_text(encoding="utf-8")


@cache
def prelude_text() -> str:
    """The standard words (``causal``, ``softcap``, ...), written in the spec language."""
    return (_shipped("grammar") / "prelude.attn").read_text(encoding="utf-8")


@cache
def tiles_text() -> str:
    """The table of tiles that ships (see ``plan.table``)."""
    return (_PACKAGE / "plan" / "tiles.csv").read_text(encoding="utf-8")


def user_tiles() -> tuple[str, str] | None:
    """(path, text) of the table that ``ATTNGEN_TILES`` names; None where it names none."""
    path = os.environ.get("ATTNGEN_TILES")
    if not path:
        return None
    try:
        return path, Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise BuildError(
            f"cannot read the table of tiles {path}: {reason}", hint="ATTNGEN_TILES names it"
        ) from error


def template_dir() -> Path:
    """The folder of the Jinja templates (``triton/``, ``hopper/``)."""
    return _shipped("templates")


def zoo_dir() -> Path:
    """The folder of the named specs (``alibi.attn``, ...)."""
    return _PACKAGE / "zoo"
