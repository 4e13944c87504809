"""``attngen build``: specs to kernel files. All are compiled before the first is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attngen.commands.common import Backend, Failures
from attngen.errors import BuildError
from attngen.ir.types import Scalar
from attngen.runtime import files
from attngen.spec_file import find_spec


@dataclass(frozen=True)
class Module:
    """One file to be written."""

    path: Path
    text: str
    warnings: tuple[str, ...]

    def is_current(self) -> bool:
        """Whether the file on disk is this text already."""
        try:
            return self.path.read_bytes() == self.text.encode()
        except OSError:
            return False

    def write(self) -> None:
        files.write(self.path, self.text)


def compile_all(
    specs: Sequence[str], out: Path, overrides: Mapping[str, Scalar], backend: Backend, failures: Failures
) -> list[Module]:
    """Every spec compiled, in order; errors go to ``failures``."""
    from attngen.commands.check import warnings
    from attngen.pipeline import compile_spec

    modules: dict[Path, Module] = {}
    for file in specs:
        with failures.caught():
            source = find_spec(file)
            result = compile_spec(source, overrides=overrides, backend=backend.value)
            path = out / f"{result.ir.name}.py"
            if path in modules:
                raise BuildError(f"{file}: another of these specs is called {result.ir.name!r} too")
            modules[path] = Module(path, result.text, tuple(warnings(source, result.lints)))
    return list(modules.values())
