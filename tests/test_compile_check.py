"""Kernels compiled for GPUs that are not there: as the launcher would have them, and within the limits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest

from attngen import compile_check
from attngen.compile_check import Row, check
from attngen.compile_check.binary import Binary, source_of
from attngen.compile_check.launches import Launch, launches
from attngen.compile_check.module import load
from attngen.compile_check.usage import from_amdgcn, from_ptxas
from attngen.errors import AttnGenError, BuildError
from attngen.pipeline import Compilation, compile_spec
from attngen.plan.tiles import TARGETS, Target
from attngen.source import Source
from attngen.spec_file import find_spec, zoo_names

KERNELS = ["forward", "delta", "dkdv", "dq"]

# Every kind of argument and work: loads by row, column and head, a param, dropout, exponentials, integers.
HEAVY = """
variant heavy
param cap: float
param step: int = 4
input slopes: float32[heads]
input table: bfloat16[heads, buckets]
input doc: int32[batch, k_len]
input seen: bool[q_len]
let near = exp(-abs(float(dist)) / 64.0) + sin(float(q % 7)) * sigmoid(score)
score = score + table[h, min(abs(dist) // step, 31)] - slopes[h] * abs(dist)
score = cap * tanh((score + near) / cap) + log(1.0 + score * score)
mask = dist >= 0 and (doc[b, q] == doc[b, k] or seen[q]) and (q // 8 + k) % step != 1
dropout = 0.1
"""


@pytest.fixture(scope="module")
def heavy() -> Compilation:
    return compile_spec(Source(HEAVY, "heavy.attn"))


def zoo(name: str) -> Compilation:
    return compile_spec(find_spec(name), backend="triton")  # Gluon's kernels: tests/test_hopper.py


def signature_of(
    compilation: Compilation, kernel: str, target: str, dtype: str = "bfloat16"
) -> dict[str, str]:
    """Triton's types of a kernel's arguments, by name. Nothing is compiled."""
    return source_parts(compilation, kernel, target, dtype)[0]


def source_parts(
    compilation: Compilation, kernel: str, target: str, dtype: str = "bfloat16"
) -> tuple[dict[str, str], dict[str, object], set[str]]:
    """(types, constants, arguments known to be divisible by 16), each by name."""
    module = load(compilation.text)
    found = launches(module, compilation.ir, TARGETS[target], 64, dtype)
    launch = next(x for x in found if x.kernel.__name__ == f"{kernel}_kernel")
    source, _ = source_of(launch, TARGETS[target])
    names = list(source.signature)

    def name(path: tuple[int, ...]) -> str:
        return ".".join([names[path[0]], *map(str, path[1:])])  # an argument may be a tuple

    constants = {name(path): value for path, value in source.constants.items()}
    divisible = {name(path) for path, known in source.attrs.items() if ["tt.divisibility", 16] in known}
    return source.signature, constants, divisible


def kernels(rows: Sequence[Row]) -> list[str]:
    return [row.kernel for row in rows]


@pytest.mark.compiled
@pytest.mark.parametrize("target", ["sm_90", "sm_80"])
@pytest.mark.parametrize("name", ["full", "alibi", "packed_documents"])
def test_a_zoo_spec_keeps_within_the_targets_limits(name: str, target: str) -> None:
    rows = check(zoo(name), [target], [64])
    assert kernels(rows) == KERNELS
    for row in rows:
        assert row.ok, row
        assert row.registers is not None and 16 <= row.registers <= 255
        assert row.shared is not None and 0 < row.shared <= TARGETS[target].shared
        assert "C7510" not in row.note, "the tensor cores wait for one another"
    if target == "sm_90":
        assert all(row.spills == 0 for row in rows)


@pytest.mark.compiled
@pytest.mark.parametrize("head_dim", [64, 256])
def test_the_kernels_of_calls_that_gluon_does_not_take_are_launched_too(head_dim: int) -> None:
    compilation = compile_spec(find_spec("causal"), backend="hopper")
    found = launches(load(compilation.text), compilation.ir, TARGETS["sm_90"], head_dim, "bfloat16")
    assert {x.kernel.__name__ for x in found if not x.kernel.is_gluon()} >= {f"{k}_kernel" for k in KERNELS}
    assert [x.kernel.__name__ for x in found if x.kernel.is_gluon()].count("hopper_forward_kernel") == 1


@pytest.mark.parametrize(
    ("kernel", "spills", "of_gluon", "ok", "note"),
    [
        ("forward_kernel", 0, 512, True, ""),
        ("forward_kernel", 8, 4096, False, "8 bytes spilled, 0 allowed"),
        ("hopper_forward_kernel", 512, 512, True, "512 bytes spilled, 512 allowed"),
        ("hopper_forward_kernel", 520, 512, False, "520 bytes spilled, 512 allowed"),
        ("hopper_forward_kernel", 520, 4096, True, "520 bytes spilled, 4096 allowed"),
    ],
)
def test_how_much_a_kernel_may_spill_on_sm_90_is_said_beside_what_it_spills(
    kernel: str, spills: int, of_gluon: int, ok: bool, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = Binary(registers=168, spills=spills, shared=1000, tensor_memory=0, warnings=())
    monkeypatch.setattr(compile_check, "compile_launch", lambda launch, target: binary)
    launch = Launch(SimpleNamespace(__name__=kernel), (), {})
    row = compile_check._row(launch, TARGETS["sm_90"], 128, "bfloat16", of_gluon)
    assert (row.ok, row.note) == (ok, note)
    wide = compile_check._row(launch, TARGETS["sm_90"], 136, "bfloat16", of_gluon)
    assert wide.ok  # no such promise
    assert compile_check._row(launch, TARGETS["sm_80"], 128, "bfloat16", of_gluon).ok


@pytest.mark.compiled
@pytest.mark.slow
@pytest.mark.parametrize("name", zoo_names())
def test_no_zoo_spec_spills_on_hopper(name: str) -> None:
    assert [row for row in check(zoo(name), ["sm_90"], [64, 128]) if not row.ok] == []


def test_beside_dropout_some_tiles_are_smaller_or_have_more_warps() -> None:
    usual, tiles = zoo("causal").plan.tiles, zoo("dropped").plan.tiles
    changed = [
        (old, new)
        for target, rows in usual.items()
        for width in rows
        for old, new in zip(rows[width], tiles[target][width], strict=True)
        if old != new
    ]
    shares = [
        (new.block_m * new.block_n / new.warps, old.block_m * old.block_n / old.warps) for old, new in changed
    ]
    assert any(new < old for new, old in shares)
    assert all(new <= old for new, old in shares)  # other stages take no registers


@pytest.mark.compiled
def test_a_spec_with_heavy_score_lines_compiles(heavy: Compilation) -> None:
    rows = check(heavy, ["sm_90"], [64], ["float16"])
    assert kernels(rows) == ["look", *KERNELS]  # its mask reads tables without order
    for row in rows:
        assert row.registers is not None, row.note
        assert (row.target, row.head_dim, row.dtype) == ("sm_90", 64, "float16")


@pytest.mark.compiled
def test_kernels_compile_for_amd(heavy: Compilation) -> None:
    rows = check(zoo("full"), ["gfx942"], [32])
    assert kernels(rows) == KERNELS
    assert all(row.ok for row in rows)


@pytest.mark.compiled
def test_tiles_come_through_descriptors_on_hopper_in_16_bits_only(heavy: Compilation) -> None:
    for target in ("sm_90", "sm_100"):
        assert signature_of(heavy, "forward", target)["Q"].startswith("tensordesc<bf16[1, 1, ")
        assert signature_of(heavy, "dkdv", target, "float16")["DOut"].startswith("tensordesc<fp16[1, 1, ")
        assert signature_of(heavy, "forward", target, "float32")["Q"] == "*fp32"
    for target in ("sm_80", "sm_86", "gfx942"):
        assert signature_of(heavy, "forward", target)["Q"] == "*bf16"


@pytest.mark.compiled
def test_a_specs_own_arguments_have_the_types_it_declares(heavy: Compilation) -> None:
    types = signature_of(heavy, "dkdv", "sm_90")
    declared = {
        "slopes_ptr": "*fp32",
        "table_ptr": "*bf16",
        "doc_ptr": "*i32",
        "seen_ptr": "*u1",
        "Seed": "*i64",
        "cap": "fp32",
        "step_": "i32",  # the templates have a step of their own
    }
    assert {name: types[name] for name in declared} == declared


@pytest.mark.compiled
def test_only_what_the_launcher_specialises_is_specialised(heavy: Compilation) -> None:
    types, constants, divisible = source_parts(heavy, "forward", "sm_80")
    assert constants["q_strides.3"] == constants["slopes_stride_0"] == 1
    assert {"Q", "K", "V", "Out", "q_strides.0", "k_strides.1", "v_strides.2", "out_strides.2"} <= divisible
    free = {"heads", "kv_heads", "q_len", "k_len", "step_"}
    assert {types[name] for name in free} == {"i32"}
    assert not free & divisible


@pytest.mark.compiled
def test_the_tanh_instruction_is_for_nvidia_and_16_bits(heavy: Compilation) -> None:
    exact = compile_spec(Source(HEAVY, "heavy.attn"), math="exact")
    fast = {
        (target, dtype): source_parts(heavy, "dq", target, dtype)[1]["FAST_TANH"]
        for target in ("sm_80", "sm_90", "gfx942")
        for dtype in ("bfloat16", "float32")
    }
    assert [key for key, value in fast.items() if value] == [("sm_80", "bfloat16"), ("sm_90", "bfloat16")]
    assert source_parts(exact, "dq", "sm_90")[1]["FAST_TANH"] is False


@pytest.mark.compiled
def test_passing_the_shared_memory_of_the_target_is_not_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "sm_80", Target("sm_80", 1024, (8, 0)))
    rows = {row.kernel: row for row in check(zoo("full"), ["sm_80"], [64])}
    assert not rows["forward"].ok
    assert rows["forward"].note == f"{rows['forward'].shared} bytes of shared memory, sm_80 has 1024"
    assert rows["delta"].ok


@pytest.mark.compiled
def test_a_kernel_that_does_not_compile_is_a_row_and_the_others_stand() -> None:
    good = zoo("full")
    head, kernel, rest = good.text.partition("def dq_kernel(")
    broken = kernel + rest.replace('):\n    """', '):\n    tl.static_assert(False, "broken")\n    """', 1)
    rows = check(replace(good, text=head + broken), ["sm_80"], [64])
    assert [(row.kernel, row.ok) for row in rows] == [(k, k != "dq") for k in KERNELS]
    assert rows[-1].registers is rows[-1].spills is rows[-1].shared is None
    assert "broken" in rows[-1].note


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((["sm_3"], [64], ["bfloat16"]), "sm_3"),
        ((["sm_90"], [0], ["bfloat16"]), "0"),
        ((["sm_90"], [257], ["bfloat16"]), "257"),
        ((["sm_90"], [64], ["float64"]), "float64"),
    ],
)
def test_what_no_kernel_can_be_compiled_for_is_refused(
    arguments: tuple[list[str], list[int], list[str]], named: str
) -> None:
    with pytest.raises(AttnGenError, match=named):
        check(zoo("full"), *arguments)


@pytest.mark.skipif(os.environ["TRITON_INTERPRET"] != "1", reason="asks for the interpreter")
def test_the_interpreter_is_refused() -> None:
    with pytest.raises(BuildError, match="TRITON_INTERPRET is set"):
        check(zoo("full"), ["sm_90"], [64])


def test_ptxas_words_are_read() -> None:
    log = """
ptxas info    : (C7519) warpgroup.arrive is injected in around line 14 by compiler in function 'dq_kernel'
ptxas info    : (C7519) warpgroup.arrive is injected in around line 30 by compiler in function 'dq_kernel'
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async are serialized in function 'dq_kernel'
ptxas info    : Function properties for dq_kernel
    40 bytes stack frame, 36 bytes spill stores, 48 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 40 bytes cumulative stack size
"""
    usage = from_ptxas(log)
    assert (usage.registers, usage.spills) == (255, 84)
    assert usage.warnings == (
        "C7519 x2: warpgroup.arrive is injected by compiler",
        "C7510: Potential Performance Loss: wgmma.mma_async are serialized",
    )


def test_amd_assembly_is_read() -> None:
    assembly = "    .vgpr_count:     377\n    .vgpr_spill_count: 5\n    .sgpr_count: 40\n"
    usage = from_amdgcn(assembly)
    assert (usage.registers, usage.spills, usage.warnings) == (377, 5, ())


@pytest.mark.parametrize("read", [from_ptxas, from_amdgcn])
def test_text_that_counts_no_registers_is_not_read_as_none_used(read: object) -> None:
    assert callable(read)
    with pytest.raises(ValueError, match=r"regist|ptxas"):
        read("nothing of the sort")
