"""A built module is imported from its own text, once a process, under a name that no other build has."""

from __future__ import annotations

import inspect
import linecache
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import attngen
from attngen.errors import BuildError
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


@pytest.mark.parametrize("damage", [None, b"", b"x = 2\n", b"\xff"])
def test_a_file_changed_after_it_was_compared_is_not_what_runs(damage: bytes | None, tmp_path: Path) -> None:
    """Neither when Python runs the module nor when Triton reads a kernel's lines, however late."""
    name = f"small_{'none' if damage is None else damage.hex()}_"
    path, text = tmp_path / f"{name}.py", "x = 1\ndef f():\n    return 1\n"
    if damage is not None:
        path.write_bytes(damage)
    module = load_module(path, text)
    assert (module.x, module.f()) == (1, 1)
    path.write_bytes(b"def f():\n    return 3\n" * 9)
    linecache.checkcache()
    assert inspect.getsource(module.f) == "def f():\n    return 1\n"


def test_a_file_that_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"cannot read .*: No such file"):
        load_module(tmp_path / "none.py")
    (tmp_path / "odd.py").write_bytes(b"\xff")
    with pytest.raises(BuildError, match=r"cannot read .*odd\.py"):
        load_module(tmp_path / "odd.py")


def test_threads_that_import_at_once_all_get_the_whole_module(tmp_path: Path) -> None:
    path = tmp_path / "small_slow.py"
    path.write_text("import time\ntime.sleep(0.2)\nlast = []\n")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: load_module(path).last, range(4)))
    assert all(one is found[0] for one in found)


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
    assert inspect.getsourcefile(kernel) == variant.module.__file__
