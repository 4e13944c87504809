"""A Variant: what it shows, how it is built and found, and that two of one name never meet."""

from __future__ import annotations

import copy
import importlib
import inspect
import logging
import multiprocessing
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from kernel_calls import qkv
from torch import Tensor

import attngen
from attngen import variant as variant_module
from attngen.errors import AttnGenError, BuildError, SpecNameError, SpecTypeError
from attngen.finder import SpecFinder
from attngen.variant import Variant

WINDOW = '"""The last few keys."""\nvariant near\nconst window: int = 3\nmask = sliding_window(window)\n'


def seen(variant: Any, length: int = 8) -> int:
    """How many keys the last query of a plain call attends to."""
    q = torch.zeros(1, 1, length, 16)
    out = variant(q, q, torch.eye(length)[None, None])
    return int((out[0, 0, -1] > 0).sum())


# ---- What it shows ----------------------------------------------------------------------------------------


def test_a_variant_shows_its_name_its_spec_its_ir_and_its_text() -> None:
    variant = attngen.compile(WINDOW)
    assert isinstance(variant, attngen.Variant)
    assert variant.name == variant.__name__ == variant.ir.name == "near"
    assert variant.spec == WINDOW
    assert variant.ir.doc == "The last few keys."
    assert variant.source.startswith('"""Attention variant near')
    assert variant.path.read_text() == variant.source
    assert repr(variant) == f"<attngen variant 'near' at {variant.path}>"
    assert "Sq, D]" in inspect.cleandoc(variant.__doc__ or "")


def test_its_signature_names_inputs_params_and_options_as_the_emitted_function_does() -> None:
    declared = "input lengths: int32[batch]\nparam cap: float = 3.0\nparam n: int\n"
    clauses = "mask = k < lengths[b] + n\nscore = softcap(score, cap)\n"
    variant = attngen.compile(f"variant own\n{declared}{clauses}")
    assert str(inspect.signature(variant)) == (
        "(q, k, v, *, lengths, cap=3.0, n, seed=None, return_lse=False, layout='bhsd', deterministic=None)"
    )
    assert inspect.signature(variant) == inspect.signature(variant.module.own)
    copied = pickle.loads(pickle.dumps(variant))
    assert inspect.signature(copied) == inspect.signature(variant)
    assert "q" in inspect.signature(attngen.Variant.__call__).parameters  # the class keeps its own


def test_the_reference_takes_the_same_keywords() -> None:
    variant = attngen.load("dropped")
    q, k, v = qkv(q_len=4)
    call: dict[str, Any] = {"p": 0.5, "seed": 3, "return_lse": True, "layout": "bhsd", "deterministic": True}
    out, lse = variant(q, k, v, **call)
    want, want_lse = variant.reference(q, k, v, **call)
    assert want.dtype == want_lse.dtype == torch.float64
    torch.testing.assert_close(out.double(), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lse.double(), want_lse, rtol=1e-4, atol=1e-5)
    assert variant.reference(q, k, v, p=0.5, seed=3, dtype=torch.float32).dtype == torch.float32  # type: ignore[union-attr]


def test_the_reference_keeps_float64_gradients() -> None:
    leaves = [x.double().requires_grad_() for x in qkv(q_len=4)]
    out = attngen.compile(WINDOW).reference(*leaves)
    assert isinstance(out, Tensor)
    assert all(g.dtype == torch.float64 for g in torch.autograd.grad(out.sum(), leaves))


def test_importing_the_package_loads_neither_torch_nor_triton() -> None:
    code = "import sys, attngen; print(sorted({'torch', 'triton'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_attribute_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="variant_"):
        attngen.variant_  # noqa: B018


# ---- Building ---------------------------------------------------------------------------------------------


def test_a_path_has_a_separator_or_ends_in_attn_and_the_rest_is_the_zoo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "causal.attn").write_text(WINDOW)
    monkeypatch.chdir(tmp_path)
    assert attngen.load("causal").name == "causal"
    for path in ("causal.attn", "./causal.attn", tmp_path / "causal.attn", str(tmp_path / "causal.attn")):
        assert attngen.load(path).name == "near"
    with pytest.raises(BuildError, match="no zoo spec"):
        attngen.load("near")
    with pytest.raises(AttnGenError, match=r"near\.attn"):
        attngen.load("near.attn")


def test_consts_override_the_specs() -> None:
    assert [seen(attngen.compile(WINDOW, window=n)) for n in (1, 2, 5)] == [1, 2, 5]
    with pytest.raises(SpecNameError, match=r"windw.*window"):
        attngen.compile(WINDOW, windw=3)
    with pytest.raises(SpecTypeError, match="window"):
        attngen.compile(WINDOW, window=2.5)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match="math is 'approx' or 'exact', got 'fast'"):
        attngen.compile(WINDOW, math="fast")
    with pytest.raises(ValueError, match=r"backend is .*, got 'cuda'"):
        attngen.compile(WINDOW, backend="cuda")


def test_exact_math_is_another_build() -> None:
    text = "variant capped\nscore = softcap(score, 3.0)"
    approx, exact = attngen.compile(text), attngen.compile(text, math="exact")
    assert approx.path != exact.path
    q, k, v = qkv(q_len=4)
    assert torch.equal(approx(q, k, v), exact(q, k, v))  # float32 never has the approximate tanh


def test_a_built_variant_is_taken_from_the_cache_and_both_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "attngen")
    text = "variant logged\nscore = score + 0.125 * k"
    one, two = attngen.compile(text), attngen.compile(text)
    assert caplog.messages == [f"logged: built in {one.path}", f"logged: taken from {two.path}"]
    assert one.path == two.path


def test_a_comment_is_no_other_build() -> None:
    assert attngen.compile(WINDOW).path == attngen.compile(WINDOW + "# the end\n").path


# ---- Two of one name --------------------------------------------------------------------------------------


def test_two_windows_of_one_variant_live_side_by_side() -> None:
    q, k, v = qkv(q_len=8)
    near, far = attngen.compile(WINDOW), attngen.compile(WINDOW, window=6)
    leaves = [[x.clone().requires_grad_() for x in (q, k, v)] for _ in range(4)]
    variants = [near, far, near, far]
    outs = [variant(*own) for variant, own in zip(variants, leaves, strict=True)]
    for out in reversed(outs):
        out.sum().backward()
    for variant, own, out in zip(variants, leaves, outs, strict=True):
        want = variant.reference(*(x.detach().requires_grad_() for x in own))
        torch.testing.assert_close(out.double(), want, rtol=1e-4, atol=1e-5)
    assert torch.equal(outs[0], outs[2])
    assert torch.equal(leaves[1][2].grad, leaves[3][2].grad)  # type: ignore[arg-type]
    assert not torch.equal(leaves[0][2].grad, leaves[1][2].grad)  # type: ignore[arg-type]


def test_a_variant_outlives_the_change_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "near.attn"
    path.write_text(WINDOW)
    old = attngen.load(path)
    assert seen(old) == 3
    path.write_text(WINDOW.replace("= 3", "= 5"))
    new = attngen.load(path)
    assert (seen(old), seen(new), seen(old)) == (3, 5, 3)
    path.unlink()
    assert (seen(old), seen(new)) == (3, 5)


# ---- Copies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_a_copy_is_the_same_variant(again: Any) -> None:
    variant = attngen.compile(WINDOW, window=4, math="exact")
    other = again(variant)
    assert isinstance(other, Variant)
    assert (other.source, other.spec, other.path) == (variant.source, variant.spec, variant.path)
    assert seen(other) == 4


def test_a_module_that_holds_a_variant_can_be_copied_and_pickled() -> None:
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attngen.compile(WINDOW)

    assert seen(copy.deepcopy(Layer()).attention) == 3


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_holds_the_spec_not_the_kernels(protocol: int) -> None:
    data = pickle.dumps(attngen.compile(WINDOW), protocol)
    assert len(data) < 1000
    assert seen(pickle.loads(data)) == 3


def work(variant: Variant, queue: Any) -> None:
    queue.put((variant.name, seen(variant)))


def test_a_spawned_worker_can_be_handed_a_variant() -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(target=work, args=(attngen.compile(WINDOW, window=5), queue))
    worker.start()
    assert queue.get(timeout=60) == ("near", 5)
    worker.join()


# ---- import name ------------------------------------------------------------------------------------------


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on ``sys.path`` whose specs can be imported; what was imported is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = set(sys.modules)
    attngen.install()
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) is None or str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


def test_import_finds_specs_on_the_path(importable: Path) -> None:
    (importable / "near.attn").write_text(WINDOW)
    module = importlib.import_module("near")
    assert isinstance(module.near, Variant)
    assert seen(module.near) == 3
    assert module.__file__ == str(importable / "near.attn")
    assert module.__doc__ == "The last few keys."


def test_import_finds_specs_inside_packages(importable: Path) -> None:
    (importable / "specs").mkdir()
    (importable / "specs" / "__init__.py").write_text("")
    (importable / "specs" / "near.attn").write_text(WINDOW)
    assert seen(importlib.import_module("specs.near").near) == 3


def test_a_reload_reads_the_spec_again(importable: Path) -> None:
    (importable / "near.attn").write_text(WINDOW)
    module = importlib.import_module("near")
    old = module.near
    (importable / "near.attn").write_text(WINDOW.replace("= 3", "= 5"))
    importlib.reload(module)
    assert (seen(old), seen(module.near)) == (3, 5)


def test_a_python_file_of_the_name_comes_first(importable: Path) -> None:
    (importable / "near.attn").write_text(WINDOW)
    (importable / "near.py").write_text("x = 1\n")
    assert importlib.import_module("near").x == 1


def test_what_is_no_spec_is_no_module(importable: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="absent"):
        importlib.import_module("absent")


def test_an_error_of_the_spec_reaches_the_importer_and_leaves_no_module(importable: Path) -> None:
    (importable / "wrong.attn").write_text("variant wrong\nmask = casual\n")
    with pytest.raises(SpecNameError) as caught:
        importlib.import_module("wrong")
    assert (caught.value.line, caught.value.column) == (2, 8)
    assert "wrong.attn:2:8" in str(caught.value)
    assert "wrong" not in sys.modules


def test_installing_twice_changes_nothing(importable: Path) -> None:
    attngen.install()
    assert sum(isinstance(finder, SpecFinder) for finder in sys.meta_path) == 1


def test_triton_gets_ready_beside_the_compiler_and_its_failure_is_left_to_the_launch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    met: list[str] = []

    def fail() -> None:
        met.append(threading.current_thread().name)
        raise RuntimeError("no driver")

    driver = property(lambda self: fail())
    monkeypatch.setattr(variant_module, "_INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(type(triton.runtime.driver), "active", driver)
    text = "variant got_ready\nscore = 1.25 * score"
    assert attngen.compile(text).name == "got_ready"
    assert len(met) == 1 and met[0] != threading.main_thread().name
