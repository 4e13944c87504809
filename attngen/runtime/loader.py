"""Import of an emitted module from its file, under a name that no other build shares."""

from __future__ import annotations

import importlib.util
import io
import linecache
import sys
import threading
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from attngen.errors import BuildError

_importing = threading.RLock()  # a module is in sys.modules before it is whole


class _TextLoader(SourceFileLoader):
    """Runs one text as the file's: a ``.pyc`` beside it might be older, truncated or somebody else's."""

    def __init__(self, fullname: str, path: str, text: str) -> None:
        super().__init__(fullname, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self._text.encode(), self.path)
        return code

    def get_source(self, fullname: str) -> str:
        return self._text


def load_module(path: Path, text: str | None = None) -> ModuleType:
    """The module at ``path``, imported once a process.

    Where ``text`` is given it is what runs, and what Triton compiles, whatever has become of the file since
    it was compared. Raises BuildError where there is no text and the file cannot be read.
    """
    name = f"attngen_built_{path.stem}"
    with _importing:
        if name in sys.modules:
            return sys.modules[name]
        loader = _TextLoader(name, str(path), _read(path) if text is None else text)
        spec = importlib.util.spec_from_file_location(name, path, loader=loader)
        if spec is None:
            raise BuildError(f"{path} is no Python module")
        module = importlib.util.module_from_spec(spec)
        _show_to_inspect(path, loader.get_source(name))
        sys.modules[name] = module
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _show_to_inspect(path: Path, text: str) -> None:
    """Triton asks ``inspect`` for a kernel's lines, and ``inspect`` asks ``linecache``.

    An entry without a time is one that linecache never looks up again on the disk.
    """
    linecache.cache[str(path)] = (len(text), None, io.StringIO(text).readlines(), str(path))
