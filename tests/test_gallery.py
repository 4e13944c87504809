"""``generated/`` holds what the compiler writes today, to the letter; `make gallery` renews it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from attngen.pipeline import compile_spec
from attngen.spec_file import find_spec

ROOT = Path(__file__).parents[1]
GALLERY = re.search(r"^GALLERY = (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()  # type: ignore[index]


def ruff(*args: str, text: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "ruff", *args, "-"],
        input=text,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_the_gallery_has_six_kernels_and_nothing_else() -> None:
    assert len(GALLERY) == 6
    found = {path.stem for path in (ROOT / "generated").glob("*.py")} - {"__init__"}
    assert found == set(GALLERY)


@pytest.mark.parametrize("name", GALLERY)
def test_a_kernel_of_the_gallery_is_what_the_compiler_writes(name: str) -> None:
    emitted = compile_spec(find_spec(name)).text
    ruff("check", "--stdin-filename", f"generated/{name}.py", text=emitted)
    assert (ROOT / "generated" / f"{name}.py").read_text() == emitted, "run `make gallery` and read the diff"


@pytest.mark.parametrize("name", GALLERY)
def test_a_kernel_of_the_gallery_needs_torch_and_triton_only(name: str) -> None:
    text = (ROOT / "generated" / f"{name}.py").read_text()
    roots = {line.split()[1].split(".")[0] for line in text.splitlines() if re.match(r"(import|from) ", line)}
    assert {"torch", "triton"} <= roots <= {"torch", "triton"} | set(sys.stdlib_module_names)
