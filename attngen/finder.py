"""``import name`` for a ``name.attn`` on ``sys.path``, once ``attngen.install()`` was called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType


class _SpecLoader(Loader):
    """Makes a module whose ``name`` is the variant that ``name.attn`` specifies."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        import attngen

        variant = attngen.load(str(self._path))
        module.__file__ = str(self._path)
        module.__doc__ = variant.ir.doc
        setattr(module, variant.name, variant)


class SpecFinder(MetaPathFinder):
    """Looks for ``name.attn`` where Python looks for ``name.py``, after everything else has failed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for folder in sys.path if path is None else path:
            file = Path(folder or ".").absolute() / f"{fullname.rpartition('.')[2]}.attn"
            if file.is_file():
                return spec_from_loader(fullname, _SpecLoader(file), origin=str(file))
        return None


def install() -> None:
    """Let ``import name`` find ``name.attn`` on ``sys.path``. Calling it again changes nothing."""
    if not any(isinstance(finder, SpecFinder) for finder in sys.meta_path):
        sys.meta_path.append(SpecFinder())
