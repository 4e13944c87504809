"""The pytest plugin: ``pytest specs/`` property-tests every ``.attn`` file that it meets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from attngen.errors import AttnGenError


class CounterExample(Exception):
    """A property test's report; shown as it is, without a traceback."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("attngen")
    group.addoption(
        "--attngen-examples", type=int, default=30, metavar="N", help="calls drawn for each .attn file"
    )
    group.addoption(
        "--attngen-device", default="cpu", choices=["cpu", "cuda"], help="where .attn files are tested"
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> SpecFile | None:
    return SpecFile.from_parent(parent, path=file_path) if file_path.suffix == ".attn" else None


class SpecFile(pytest.File):
    def collect(self) -> Iterable[SpecItem]:
        yield SpecItem.from_parent(self, name="matches_reference")


class SpecItem(pytest.Item):
    """One spec: its kernel against its reference."""

    def runtest(self) -> None:
        from attngen.spec_file import find_spec
        from attngen.testing.builds import builds_of
        from attngen.testing.run import run_property_tests

        examples = self.config.getoption("--attngen-examples")
        for variant, _, count in builds_of(find_spec(str(self.path)), examples):
            report = run_property_tests(
                variant, examples=count, device=self.config.getoption("--attngen-device")
            )
            if not report.passed:
                raise CounterExample(str(report))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        if isinstance(excinfo.value, CounterExample | AttnGenError):
            return str(excinfo.value)
        return str(excinfo.getrepr(style="short"))

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.path.name
