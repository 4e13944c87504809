"""The emitted module as a Python module of its own. Triton reads a kernel's source from its file."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import tempfile
from pathlib import Path
from types import ModuleType

_numbers = itertools.count()


@functools.lru_cache(maxsize=8)
def load(text: str) -> ModuleType:
    """Import ``text`` from a file that is gone afterwards: Triton keeps the source of what it has seen."""
    name = f"attngen_compile_check_{next(_numbers)}"  # operators are registered under the module's name
    with tempfile.TemporaryDirectory(prefix="attngen-") as folder:
        path = Path(folder, f"{name}.py")
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module
