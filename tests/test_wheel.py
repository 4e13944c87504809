"""The wheel, installed away from the checkout, has all that it needs: grammar, templates, zoo, commands."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow

PROGRAM = """
import attngen, torch
from pathlib import Path
assert Path(attngen.__file__).is_relative_to(SITE), attngen.__file__
text = "variant doubled\\nparam c: float = 5.0\\nscore = softcap(score, c)\\nmask = causal\\n"
variant = attngen.compile(text)
q, k, v = torch.randn(3, 1, 2, 40, 16, requires_grad=True).unbind()
out = variant(q, k, v, c=3.0)
out.sum().backward()
assert torch.allclose(out.double(), variant.reference(q, k, v, c=3.0), atol=1e-4)
print("right")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
    ]
    subprocess.run([*build, str(ROOT)], check=True)
    (found,) = folder.glob("attngen-*.whl")
    return found


def test_the_wheel_holds_the_package_and_its_data_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, packed in (("grammar", "attngen/_data/grammar"), ("templates", "attngen/_data/templates")):
        files = [p.relative_to(ROOT / folder).as_posix() for p in (ROOT / folder).rglob("*") if p.is_file()]
        assert files
        assert {f"{packed}/{file}" for file in files if "__pycache__" not in file} <= names
    assert {"attngen/plan/tiles.csv", "attngen/_data/pyproject.toml"} <= names
    for spec in (ROOT / "attngen/zoo").glob("*.attn"):
        assert f"attngen/zoo/{spec.name}" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"attngen"}


def test_the_wheel_builds_and_runs_a_spec_elsewhere(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*install, str(site), str(wheel)], check=True)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PYTHONPATH": str(site),
        "TRITON_INTERPRET": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }

    def python(*args: str) -> str:
        run = subprocess.run(
            [sys.executable, *args],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    assert python("-c", PROGRAM.replace("SITE", repr(str(site)))) == "right\n"
    python("-m", "attngen", "build", "alibi", "-o", "kernels")
    assert "def alibi(" in (tmp_path / "kernels/alibi.py").read_text()
    assert "Author" not in python("-m", "attngen", "zoo", "alibi")
