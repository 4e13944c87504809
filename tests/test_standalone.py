"""The emitted module stands alone: it needs torch and triton, and says how where it cannot run."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kernel_calls import qkv
from zoo_share import share

import attngen
from attngen.spec_file import zoo_names

ROOT = Path(__file__).parent.parent

# A process in which attngen cannot be imported, wherever it may be installed.
BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "attngen":
            raise ImportError("attngen is not installed here")

sys.meta_path.insert(0, Block())
"""


def run(code: str, folder: Path, **env: str) -> str:
    """The output of code in a process that finds the modules of ``folder``, and no attngen."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_saved_alibi_runs_forward_and_backward_where_attngen_is_not_installed(tmp_path: Path) -> None:
    variant = attngen.load("alibi")
    variant.save(tmp_path / "vendored" / "alibi.py")
    given = {n: x.requires_grad_() for n, x in zip("qkv", qkv(heads=2, kv_heads=1), strict=True)}
    slopes = torch.tensor([0.5, 0.25])
    out, lse = variant(**given, slopes=slopes, return_lse=True)
    weights = torch.randn_like(out)
    want = [out, lse, *torch.autograd.grad(out, list(given.values()), weights)]
    torch.save([x.detach() for x in (*given.values(), slopes, weights, *want)], tmp_path / "call.pt")
    code = """
import torch
from vendored.alibi import alibi
q, k, v, slopes, weights, *want = torch.load("call.pt")
leaves = [x.requires_grad_() for x in (q, k, v)]
out, lse = alibi(q, k, v, slopes=slopes, return_lse=True)
got = [out, lse, *torch.autograd.grad(out, leaves, weights)]
print([torch.equal(x, y) for x, y in zip(got, want, strict=True)])
try:
    import attngen
except ImportError as error:
    print(error, [name for name in sys.modules if name.startswith("attngen")])
"""
    lines = run(code, tmp_path, TRITON_INTERPRET="1").splitlines()
    assert lines == ["[True, True, True, True, True]", "attngen is not installed here []"]


def test_without_a_gpu_and_the_interpreter_a_call_says_how_to_run_it(tmp_path: Path) -> None:
    attngen.load("causal").save(tmp_path / "causal.py")
    code = """
import torch
from causal import causal
q = torch.ones(1, 1, 3, 16)
try:
    causal(q, q, q)
except RuntimeError as error:
    print(error)
"""
    said = run(code, tmp_path, TRITON_INTERPRET="0", CUDA_VISIBLE_DEVICES="")
    assert "CUDA tensors, got cpu" in said
    assert "TRITON_INTERPRET=1" in said


def test_two_copies_and_two_builds_in_one_process_each_give_their_own_result(tmp_path: Path) -> None:
    """Two copies of one file under two packages, another window's build of that name, and a reload."""
    for package, window in (("one", 2), ("two", 2), ("three", 5), ("größe", 4)):
        variant = attngen.compile(
            "variant near\nconst window: int = 2\nmask = sliding_window(window)", window=window
        )
        variant.save(tmp_path / package / "near.py")
    code = """
import importlib
import torch
import one.near, two.near, three.near, größe.near
print(len({m.NAMESPACE for m in (one.near, two.near, three.near, größe.near)}))
q = torch.zeros(1, 1, 8, 16)
v = torch.eye(8)[None, None]
calls = [m.near for m in (one.near, three.near, two.near, größe.near)]
print([int((call(q, q, v)[0, 0, 7] > 0).sum()) for call in calls])
leaves = [q.clone().requires_grad_() for call in calls]
outs = [call(leaf, q, v.clone().requires_grad_()) for call, leaf in zip(calls, leaves)]
for out in reversed(outs):
    out.sum().backward()
print(all(leaf.grad is not None for leaf in leaves))
again = importlib.reload(two.near).near
print(torch.equal(again(q, q, v), calls[2](q, q, v)))
"""
    assert run(code, tmp_path, TRITON_INTERPRET="1").splitlines() == ["4", "[2, 5, 2, 4]", "True", "True"]


@pytest.mark.parametrize("name", share(zoo_names(), 3))
def test_a_module_imports_torch_and_triton_and_says_nothing_of_where_it_was_built(name: str) -> None:
    text = attngen.load(name).source
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    assert found <= {"copy", "functools", "math", "numbers", "torch", "triton"}
    assert text.isascii()
    assert str(ROOT) not in text
    assert os.path.expanduser("~") not in text
    assert attngen.__version__ not in text


def test_the_text_is_the_same_in_every_process() -> None:
    """Whatever order Python's sets have there."""
    code = """
import hashlib, sys
from attngen.pipeline import compile_spec
from attngen.spec_file import find_spec, zoo_names
texts = [compile_spec(find_spec(name)).text for name in zoo_names()]
print(hashlib.sha256("".join(texts).encode()).hexdigest())
assert "torch" not in sys.modules
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("0", "1", "12345")
    ]
    found = {process.communicate(timeout=120)[0] for process in processes}
    assert len(found) == 1
    assert len(found.pop().strip()) == 64
