"""A built module is imported from its own text, once a process, under a name that no other build has."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

import attngen
from attngen.runtime.loader import load_module


def test_a_module_is_what_its_file_says(tmp_path: Path) -> None:
    path = tmp_path / "small_1.py"
    path.write_text('"""Words."""\nx = 1\n')
    module = load_module(path)
    assert (module.x, module.__doc__, module.__file__) == (1, "Words.", str(path))


def test_a_module_is_imported_once_a_process(tmp_path: Path) -> None:
    path = tmp_path / "small_2.py"
    path.write_text("x = []\n")
    assert load_module(path) is load_module(path)
    assert sys.modules["attngen_built_small_2"] is load_module(path)


def test_two_builds_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for number in (3, 4):
        (tmp_path / f"small_{number}.py").write_text(f"x = {number}\n")
    assert [load_module(tmp_path / f"small_{number}.py").x for number in (3, 4, 3)] == [3, 4, 3]


def test_a_module_that_fails_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "small_5.py"
    path.write_text("raise KeyError('x')\n")
    with pytest.raises(KeyError):
        load_module(path)
    assert "attngen_built_small_5" not in sys.modules
    path.write_text("x = 1\n")
    assert load_module(path).x == 1


def test_nothing_is_written_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "small_6.py"
    path.write_text("x = 1\n")
    load_module(path)
    assert list(tmp_path.iterdir()) == [path]


def test_the_text_of_a_kernel_can_be_read_back() -> None:
    """Triton compiles what ``inspect`` shows of the file."""
    variant = attngen.load("causal")
    kernel = variant._module.forward_kernel.fn
    assert inspect.getsource(kernel) in variant.source
    assert inspect.getsourcefile(kernel) == str(variant.path)
