"""Imports go one way, as CONTRIBUTING.md draws it. Read from the sources, so a lazy import counts too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "attngen"

# A unit (a module or a folder of attngen/) may import the units of the rows above its own.
ROWS: tuple[tuple[str, ...], ...] = (
    ("source", "errors", "resources"),
    ("syntax", "spec_file"),
    ("ir",),
    ("analysis",),
    ("plan",),
    ("emit",),
    ("pipeline",),
    ("eager", "dropout_bits", "reference", "blockwise", "runtime", "debug"),
    ("variant", "cpu_operators", "tile_map"),
    ("testing", "bench", "compile_check", "tune"),
    ("__init__", "finder"),
    ("cli", "commands", "plugin", "__main__"),
)
ROW_OF = {unit: number for number, units in enumerate(ROWS, start=1) for unit in units}
LAST_WITHOUT_TORCH = ROW_OF["pipeline"]

# Beside the rows: neighbours in one row that may meet, and units that see only some of what is above them.
NEIGHBOURS = {
    "errors": {"source"},
    "resources": {"errors"},
    "spec_file": {"syntax"},
    "reference": {"eager", "dropout_bits"},
    "blockwise": {"eager", "dropout_bits", "reference"},
    "variant": {"cpu_operators"},
    "tune": {"bench"},  # what is timed, and how
    "__init__": {"finder"},
    "finder": {"__init__"},  # a spec is loaded as attngen.load does
    "cli": {"commands"},
    "__main__": {"cli"},
}
FIRST = set(ROWS[0])
ONLY = {
    "emit": FIRST | {"ir", "analysis", "plan"},
    **dict.fromkeys(("eager", "dropout_bits", "reference", "blockwise"), FIRST | {"ir"}),
}
# The AST is for these alone; how a docstring is quoted is no secret of the AST's.
SEES_SYNTAX = {"attngen.ir.build", "attngen.ir.scope", "attngen.pipeline"}
QUOTING = "attngen.syntax.docstring."


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if "_data" in path.parts:
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts), path


def imported(name: str, tree: ast.AST) -> set[str]:
    """The full names of everything that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = name.split(".")[: -node.level]
                base = ".".join([*parent, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def unit_of(name: str) -> str:
    """The unit of ``attngen.x.y``; ``__init__`` for a name that the package itself exports."""
    if name.startswith("attngen.testing.plugin"):
        return "plugin"  # pytest's door to the package, as the command line is the shell's
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROW_OF else "__init__"


def faults(name: str, source: str) -> list[str]:
    """What a module imports and may not."""
    mine = unit_of(name)
    found = []
    for target in sorted(imported(name, ast.parse(source))):
        root = target.split(".")[0]
        if root in ("torch", "triton") and ROW_OF[mine] <= LAST_WITHOUT_TORCH:
            found.append(f"{name} imports {root}")
        if root != "attngen":
            continue
        other = unit_of(target)
        allowed = other == mine or ROW_OF[other] < ROW_OF[mine] or other in NEIGHBOURS.get(mine, ())
        seen = ONLY.get(mine, set(ROW_OF)) | NEIGHBOURS.get(mine, set()) | {mine}
        if not allowed or other not in seen:
            found.append(f"{name} ({mine}) imports {target} ({other})")
        if (
            other == "syntax"
            and ROW_OF["syntax"] < ROW_OF[mine] <= LAST_WITHOUT_TORCH
            and name not in SEES_SYNTAX
            and not target.startswith(QUOTING)
        ):
            found.append(f"{name} sees the syntax tree")
    return found


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=lambda value: str(value).rpartition("/")[2])
def test_a_module_imports_only_what_stands_above_it(name: str, path: Path) -> None:
    assert name.split(".")[1] in ROW_OF, f"give {name} a row in tests/test_layers.py and CONTRIBUTING.md"
    assert faults(name, path.read_text()) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("attngen.analysis.simplify", "import torch"),
        ("attngen.analysis.simplify", "def f():\n    from triton import language"),
        ("attngen.ir.nodes", "from attngen.plan import loops"),
        ("attngen.ir.printer", "from attngen.syntax import ast"),
        ("attngen.ir.printer", "from ..syntax import ast"),
        ("attngen.emit.render", "from attngen.syntax.ast import Spec"),
        ("attngen.emit.render", "from attngen.reference import attention"),
        ("attngen.reference", "from attngen.analysis.derivative import gradients"),
        ("attngen.reference", "from attngen.runtime import loader"),
        ("attngen.runtime.loader", "from attngen.variant import Variant"),
        ("attngen.runtime.loader", "import attngen"),
        ("attngen.variant", "from attngen import testing"),
    ],
)
def test_a_wrong_import_is_seen(name: str, source: str) -> None:
    assert faults(name, source)


def loaded_after(code: str) -> set[str]:
    """Top-level modules loaded after ``code`` ran in a fresh interpreter."""
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return {name.split(".")[0] for name in run.stdout.splitlines()[-1].split()}


def test_importing_the_package_does_not_load_torch() -> None:
    assert loaded_after("import attngen").isdisjoint({"torch", "triton", "numpy"})


def test_checking_a_spec_does_not_load_torch() -> None:
    code = "from attngen.cli import app\napp(['check', 'alibi', 'packed_documents'], standalone_mode=False)"
    assert loaded_after(code).isdisjoint({"torch", "triton", "numpy", "matplotlib"})


def test_showing_the_kernel_does_not_load_torch() -> None:
    code = "from attngen.cli import app\napp(['show', 'alibi'], standalone_mode=False)"
    assert loaded_after(code).isdisjoint({"torch", "triton"})
