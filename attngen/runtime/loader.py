"""Import of an emitted module from its file, under a name that no other build shares."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from attngen.errors import BuildError


class _TextLoader(SourceFileLoader):
    """Runs the file's own text: a ``.pyc`` beside it might be older, truncated or somebody else's."""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def load_module(path: Path) -> ModuleType:
    """The module at ``path``, imported once a process. Triton reads the file, so it must stay."""
    name = f"attngen_built_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, loader=_TextLoader(name, str(path)))
    if spec is None or spec.loader is None:
        raise BuildError(f"{path} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
