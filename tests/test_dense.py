"""An input that comes to the kernels for sm_90 in tiles: which does, what is emitted, what is launched."""

from __future__ import annotations

import ast
import sys
from types import ModuleType

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from attngen.compile_check.binary import compile_launch
from attngen.compile_check.launches import launches
from attngen.compile_check.module import load
from attngen.ir.printer import print_expr
from attngen.pipeline import Compilation, compile_spec
from attngen.plan.dense import dense_input
from attngen.plan.tiles import TARGETS
from attngen.source import Source
from attngen.spec_file import find_spec

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")

BIAS = "input bias: float32[batch, heads, q_len, k_len] grad"


def built(*lines: str, backend: str = "hopper") -> Compilation:
    return compile_spec(Source("\n".join(["variant tried", *lines]), "tried.attn"), backend=backend)


# ---- The plan ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "load"),
    [
        ((BIAS, "score = score + bias[b, h, q, k]"), "bias[b, h, q, k]"),
        (("input x: float16[q_len, k_len]", "score = score * x[q, k]"), "x[q, k]"),
        (("input x: bfloat16[kv_heads, q_len, k_len]", "score = score + x[h_kv, q, k]"), "x[h_kv, q, k]"),
        # Keys that run along another dimension than the last, or not one by one, are no tiles.
        (("input x: float32[k_len, q_len]", "score = score + x[k, q]"), ""),
        (("input x: float32[heads, 257]", "score = score + x[h, clamp(dist, -128, 128) + 128]"), ""),
        # Nor is what another tensor leads to, or what does not add to a number.
        (
            (
                "input doc: int32[batch]",
                "input x: float32[docs, q_len, k_len]",
                "score = score + x[doc[b], q, k]",
            ),
            "",
        ),
        (("input x: int32[q_len, k_len]", "score = score + float(x[q, k])"), ""),
        (("input x: float32[q_len, k_len]", "mask = x[q, k] > 0.0", "score = score + x[q, k]"), ""),
    ],
)
def test_what_is_read_by_query_and_key_comes_in_tiles(lines: tuple[str, ...], load: str) -> None:
    ir = built(*lines, backend="triton").ir
    dense = dense_input(ir)
    assert (print_expr(dense.load, ir) if dense else "") == load


def test_auto_takes_tiles_but_no_other_reads_by_score_and_none_beside_dropout() -> None:
    score = "score = score + bias[b, h, q, k]"
    table = ("input t: float32[heads, q_len]", "score = score + t[h, abs(q - k)]")
    names = {
        what: built(BIAS, score, *more, backend="auto").plan.backend.name
        for what, more in (("alone", ()), ("a table", table), ("dropout", ("dropout = 0.1",)))
    }
    assert names == {"alone": "hopper", "a table": "triton", "dropout": "triton"}


def test_auto_takes_tiles_at_the_head_dims_that_were_measured() -> None:
    hopper = built(BIAS, "score = score + bias[b, h, q, k]", backend="auto").plan.backend.hopper
    assert hopper is not None and hopper.dense is not None
    assert hopper.tiles[32] is None  # Gluon's would pad to 64 columns
    for dim in (64, 128, 256):
        tile = hopper.tiles[dim]
        assert tile is not None and tile.dense == 1


def test_scores_that_leave_no_registers_for_a_tile_load_by_thread() -> None:
    heavy = "score = tanh(score * 2.0 + 1.0) * tanh(score - 3.0) + abs(score) * dist + bias[b, h, q, k]"
    for lines in ((BIAS, heavy), (BIAS, "score = score + bias[b, h, q, k]", "dropout = 0.1")):
        hopper = built(*lines).plan.backend.hopper
        assert hopper is not None and hopper.dense is None
        assert all(tile is None or tile.dense == 0 for tile in hopper.tiles.values())


# ---- The module --------------------------------------------------------------------------------------------


def test_the_maths_of_the_kernels_with_tiles_takes_the_tile_and_no_place_in_memory() -> None:
    text = built(BIAS, "mask = causal", "score = tanh(score + bias[b, h, q, k])").text
    functions = {n.name: n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef)}
    for name in ("tile_logits", "tile_logits_and_derivative"):
        parameters = [a.arg for a in functions[name].args.args]
        assert "bias_b_h_q_k" in parameters
        assert not any("ptr" in p or "stride" in p for p in parameters)
        assert "load" not in ast.dump(functions[name])


def test_a_spec_takes_no_name_of_the_kernels_with_tiles() -> None:
    text = built(BIAS, "param tile_logits: float", "score = score * tile_logits + bias[b, h, q, k]").text
    assert "def tile_logits_(" in text and "def tile_logits(" not in text


@pytest.mark.parametrize(
    ("lines", "gathers"),
    [
        ((BIAS, "score = score + 2.0 * bias[b, h, q, k]"), True),
        ((BIAS, "score = score + tanh(bias[b, h, q, k])"), False),  # its derivative is no number
        ((BIAS, "input s: float32[heads] grad", "score = score * s[h] + bias[b, h, q, k]"), False),
        ((BIAS.removesuffix(" grad"), "score = score + bias[b, h, q, k]"), False),
        # Heads from 8 on read the last of its tiles; and no head reads one that lies off the diagonal.
        (("input bias: float32[8, q_len, k_len] grad", "score = score + bias[h, q, k]"), False),
        (("input bias: float32[heads, heads, q_len, k_len] grad", "score = score + bias[h, h, q, k]"), False),
    ],
)
def test_the_fused_backward_gathers_what_is_a_number_times_the_scores_gradient(
    lines: tuple[str, ...], gathers: bool
) -> None:
    compilation = built(*lines)
    assert compilation.plan.gathers_dense == gathers
    assert ("def put_dense(" in compilation.text) == gathers
    said = " ".join((ast.get_docstring(ast.parse(compilation.text)) or "").split())
    assert (
        "the gradient of bias where more than two of batch * heads share an element of it" in said
    ) == gathers
    learned = any(item.grad for item in compilation.ir.inputs)
    assert ("a learned input's gradient is asked for" in said) == (learned and not gathers)


# ---- The launcher ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return load(compile_spec(find_spec("dense_bias"), backend="hopper").text)


def fake(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="cuda")


@pytest.mark.parametrize(
    ("shape", "k_len", "taken"),
    [
        ((2, 4, 100, 200), 200, True),
        ((1, 1, 100, 200), 200, True),
        ((2, 4, 1, 200), 200, False),  # one row for all queries
        ((2, 4, 100, 1), 200, False),
        ((2, 4, 100, 201), 201, False),  # rows of no multiple of 16 bytes
    ],
)
def test_tiles_come_of_whole_tensors_that_tma_can_address(
    module: ModuleType, shape: tuple[int, ...], k_len: int, taken: bool
) -> None:
    with FakeTensorMode():
        q, k = fake(2, 4, 100, 64), fake(2, 4, k_len, 64)
        assert module.takes_dense(fake(*shape, dtype=torch.float32), q, k) == taken


def test_an_expanded_or_transposed_bias_does_not_come_in_tiles(module: ModuleType) -> None:
    with FakeTensorMode():
        q = k = fake(2, 4, 64, 64)
        row = fake(2, 4, 1, 64, dtype=torch.float32)
        assert not module.takes_dense(row.expand(2, 4, 64, 64), q, k)
        assert not module.takes_dense(fake(2, 4, 64, 64, dtype=torch.float32).mT, q, k)


@pytest.mark.parametrize(
    ("shape", "dtype", "taken"),
    [
        ((2, 4), torch.float32, True),
        ((1, 4), torch.float32, True),  # by two of the batch: a sum of two has no order
        ((2, 1), torch.float32, False),
        ((2, 4), torch.bfloat16, True),
        ((1, 4), torch.bfloat16, False),
    ],
)
def test_the_gradient_is_gathered_where_every_order_gives_the_same_bits(
    module: ModuleType, shape: tuple[int, ...], dtype: torch.dtype, taken: bool
) -> None:
    with FakeTensorMode():
        bias = fake(*shape, 64, 64, dtype=dtype)
        assert module.gathers(bias, fake(2, 4, 64, 128), True) == taken
        assert module.gathers(bias, fake(2, 4, 64, 128), False)


def test_the_gradient_is_gathered_where_tma_can_address_its_rows(module: ModuleType) -> None:
    with FakeTensorMode():
        q, k = fake(2, 4, 64, 128), fake(2, 4, 66, 128)
        # Rows of 68 numbers, of which it has 66, as its gradient has.
        strides = (4 * 64 * 68, 64 * 68, 68, 1)
        bias = torch.empty_strided((2, 4, 64, 66), strides, dtype=torch.float32, device="cuda")
        assert module.takes_dense(bias, q, k) and module.gathers(bias, q, False)
        assert not module.gathers(bias, q, True)


# ---- The compiler ------------------------------------------------------------------------------------------


@pytest.mark.compiled
def test_what_compile_check_compiles_holds_the_backward_with_the_gradient_of_the_tiles_and_without() -> None:
    compilation = compile_spec(find_spec("dense_bias"), backend="hopper")
    found = launches(load(compilation.text), compilation.ir, TARGETS["sm_90"], 128, "bfloat16")
    fused = [launch for launch in found if launch.kernel.__name__ == "hopper_backward_kernel"]
    adds = [dict(zip(x.kernel.arg_names, x.arguments, strict=True))["ADDS"] for x in fused]
    assert adds == [None, False]


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize(("head_dim", "learned"), [(64, False), (128, False), (128, True), (256, False)])
def test_the_kernels_with_tiles_fit_and_no_product_waits_for_another(
    head_dim: int, learned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = {"learned": learned, "deterministic": False}
    monkeypatch.setattr(
        sys.modules["attngen.compile_check.launches"], "_backward_flags", lambda module, ir: [flags]
    )
    compilation = compile_spec(find_spec("dense_bias"), backend="hopper")
    found = launches(load(compilation.text), compilation.ir, TARGETS["sm_90"], head_dim, "bfloat16")
    names = [launch.kernel.__name__ for launch in found]
    assert "hopper_forward_kernel" in names
    assert ("hopper_backward_kernel" in names) == (head_dim == 128)
    for launch in found:
        if launch.kernel.__name__.startswith("hopper"):
            binary = compile_launch(launch, TARGETS["sm_90"])
            assert binary.warnings == ()
            assert binary.shared <= TARGETS["sm_90"].shared
            assert binary.spills == 0
