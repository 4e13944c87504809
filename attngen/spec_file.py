"""Which text a name means: a path's, or a spec's of the zoo."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from attngen.errors import BuildError
from attngen.resources import zoo_dir
from attngen.source import Source
from attngen.syntax.parse import read_spec


def is_path(name: str) -> bool:
    """Whether ``name`` means a file: it has a separator or ends in ``.attn``. Anything else is a zoo name."""
    separators = [os.sep, *([os.altsep] if os.altsep else [])]
    return name.endswith(".attn") or any(s in name for s in separators)


def zoo_names() -> list[str]:
    """The ready specs, in order of name."""
    return sorted(path.stem for path in zoo_dir().glob("*.attn"))


def find_spec(path_or_zoo_name: str | os.PathLike[str]) -> Source:
    """The text of a spec. Raises BuildError for an unknown zoo name, and whatever ``read_spec`` raises.

    A path is named in messages as it was given; a zoo spec as ``NAME.attn``.
    """
    name = os.fspath(path_or_zoo_name)
    if not isinstance(path_or_zoo_name, str) or is_path(name):
        return read_spec(name)
    if name not in zoo_names():
        raise BuildError(f"no zoo spec is called {name!a}", hint=_hint(name))
    return Source(read_spec(zoo_dir() / f"{name}.attn").text, f"{name}.attn")


def _hint(name: str) -> str:
    if "\0" not in name and Path(name).is_file():
        return f"for the file, write './{name}'"
    if "\0" not in name and Path(f"{name}.attn").is_file():
        return f"did you mean '{name}.attn'?"
    near = get_close_matches(name, zoo_names(), n=1)
    return f"did you mean '{near[0]}'?" if near else "`attngen zoo` lists them; a file's name ends in .attn"
