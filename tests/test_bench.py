"""The bench counts, checks, times and tabulates what it says it does. Nothing here is timed for real."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask
from triton.runtime.jit import JITFunction
from zoo_share import share

from attngen.bench import from_ir, host
from attngen.bench import measure as measuring
from attngen.bench.compiles import compiled
from attngen.bench.formulas import FORMULAS
from attngen.bench.inputs import other_params, plausible_inputs, plausible_params
from attngen.bench.measure import RowResult, against_reference, measure, run, short
from attngen.bench.peers import PEERS, Attention, Case, Peer, make_case, variant_of
from attngen.bench.report import markdown
from attngen.bench.rows import ROWS, SHAPES, Row, Shape, forward_work, kept_scores, parse_shape
from attngen.bench.session import Settings
from attngen.bench.suite import row_of
from attngen.bench.table import checks_table, columns, peers_table, preparation_table, reasons
from attngen.bench.timing import Call, Race, race
from attngen.spec_file import find_spec, zoo_names
from attngen.variant import build_variant

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


# ---- Rows --------------------------------------------------------------------------------------------------


def kept_by_hand(row: str, n: int, inputs: dict[str, torch.Tensor]) -> list[int]:
    """Kept scores of one head of each of two batches: closed forms for a length n from 1028 to 2048."""
    if row == "documents":
        lengths = [doc.bincount() for doc in inputs["doc"]]
        return [int((m * (m + 1) // 2).sum()) for m in lengths]
    causal = n * (n + 1) // 2
    window = 1024 * 1025 // 2 + (n - 1024) * 1024
    prefix = min(1024, n // 2)
    one = {
        **dict.fromkeys(("full", "table", "table_frozen", "bias", "bias_frozen"), n * n),
        "window": window,
        "gemma2": window,
        "streaming": window + 1 + 2 + 3 + 4 * (n - 1027),  # the first keys that have left the window
        "neighbours": sum(_neighbours(at, n) for at in range(n)),
        "prefix": causal + prefix * (prefix - 1) // 2,  # the keys of the prefix that causal hides from it
    }.get(row, causal)
    return [one, one]


def _neighbours(at: int, n: int) -> int:
    """Pixels within 6 rows and columns of one, in an image 128 wide whose last row is cut off."""
    row, column = divmod(at, 128)
    left, right = max(column - 6, 0), min(column + 6, 127)
    rows = range(max(row - 6, 0), min(row + 6, (n - 1) // 128) + 1)
    return sum(max(0, min(right, n - 1 - 128 * r) - left + 1) for r in rows)


@pytest.mark.parametrize("name", ROWS)
def test_the_scores_that_count_are_those_that_the_mask_keeps(name: str) -> None:
    row, shape = ROWS[name], Shape("small", 2, 4, 1500, 16)
    shape = row.at(shape)
    inputs = row.inputs(shape, CPU)
    kept = kept_scores(variant_of(row).ir, shape, inputs, row.params, CPU)
    assert kept == 4 * sum(kept_by_hand(name, 1500, inputs))


def test_work_is_four_operations_a_score_and_dimension() -> None:
    """peers.md's full attention at B2 H16 S8192 D128 is 1.1 TFLOP forward."""
    shape = SHAPES["d128"]
    assert forward_work(shape.batch * shape.heads * shape.length**2, shape.head_dim) == 2**40


# ---- Peers -------------------------------------------------------------------------------------------------


def reference_call(case: Case) -> Attention:
    return partial(variant_of(case.row).reference, dtype=torch.float32, **case.keywords)  # type: ignore[return-value]


def small_case(row: Row) -> Case:
    length = 1100 if row.spec in ("sliding_window", "gemma2_local") else 150  # past the window
    return make_case(row, Shape("small", 2, 4, length, 16), torch.float32, CPU)


def without_dropout(row: Row) -> Row:
    return Row(row.name, row.title, row.spec, row.consts, {"p": 0.0}) if row.dropout else row


@pytest.mark.parametrize("name", ROWS)
def test_standard_attention_computes_the_same_as_the_spec(name: str) -> None:
    case = small_case(without_dropout(ROWS[name]))
    want, got = (run(prepare(case), case) for prepare in (reference_call, PEERS["standard"].prepare))
    for tensor in want:
        torch.testing.assert_close(got[tensor], want[tensor], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", [name for name in ROWS if not PEERS["flex"].refuses(ROWS[name])])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_flex_attention_computes_the_same_as_the_spec(name: str) -> None:
    case = small_case(ROWS[name])
    with torch.no_grad():
        q, k, v = (x.detach() for x in (case.q, case.k, case.v))  # flex has no backward on a CPU
        want = reference_call(case)(q, k, v)
        got = PEERS["flex"].prepare(case)(q, k, v)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("peer", ["fa2", "sdpa"])
@pytest.mark.parametrize("name", ["full", "causal"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sdpa_computes_the_same_as_the_spec(name: str, peer: str) -> None:
    case = small_case(ROWS[name])
    want, got = (run(prepare(case), case) for prepare in (reference_call, PEERS[peer].prepare))
    for tensor in want:
        torch.testing.assert_close(got[tensor], want[tensor], atol=1e-4, rtol=1e-3)


WITH_SINK = """variant query_temp
input temp: float32[batch, heads, q_len] grad
input sinks: float32[heads] grad
score = score / exp(temp[b, h, q])
mask = causal
sink = {sink}
"""


@pytest.mark.parametrize("sink", ["sinks[h]", "0.5", "2.0 * sinks[h] - 0.5"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_peers_run_a_users_spec_with_a_sink_as_its_reference(sink: str, tmp_path: Path) -> None:
    (tmp_path / "x.attn").write_text(WITH_SINK.format(sink=sink))
    row = row_of(str(tmp_path / "x.attn"), {})
    assert not PEERS["standard"].refuses(row) and not PEERS["flex"].refuses(row)
    assert PEERS["cudnn"].refuses(row)
    case = make_case(row, Shape("small", 2, 4, 70, 16, 2), torch.float32, CPU)
    calls = {name: PEERS[name].prepare(case) for name in ("standard", "flex")}
    with torch.no_grad():
        q, k, v = (x.detach() for x in (case.q, case.k, case.v))  # flex has no backward on a CPU
        torch.testing.assert_close(
            calls["flex"](q, k, v), reference_call(case)(q, k, v), atol=1e-4, rtol=1e-3
        )
    if "sinks" in sink:
        want, got = (run(call, case) for call in (reference_call(case), calls["standard"]))
        assert "dsinks" in want
        for tensor in want:
            torch.testing.assert_close(got[tensor], want[tensor], atol=1e-4, rtol=1e-3)


def test_a_report_says_what_a_peer_cannot_express() -> None:
    rows = (ROWS["softcap"], ROWS["alibi"])
    peers = tuple(PEERS[name] for name in ("attngen", "cudnn", "fa2"))
    settings = Settings(rows, (SHAPES["d64"],), peers, torch.float16, CPU)
    assert markdown(settings, [], []).endswith(
        "- SDPA cuDNN, SDPA FA2: takes no score or mask function: softcap 50, causal, ALiBi, causal\n"
    )


def test_a_block_mask_spans_the_batch_where_its_formula_reads_the_batch() -> None:
    place = torch.arange(256)
    inputs = {
        "prefix": torch.tensor([3, 130], dtype=torch.int32),
        "doc": torch.stack([place // 128, place // 140]).int(),
    }
    for name, formula in FORMULAS.items():
        if formula.mask is not None:
            blocks = create_block_mask(formula.mask(inputs), 2, None, 256, 256, device="cpu").to_dense()
            assert torch.equal(blocks[0], blocks[1]) is not formula.mask_reads_batch, name


def test_a_peer_refuses_what_it_cannot_express() -> None:
    assert PEERS["flex"].refuses(ROWS["dropout"])
    assert PEERS["cudnn"].refuses(ROWS["softcap"])
    assert not PEERS["cudnn"].refuses(ROWS["dropout"])
    assert not any(PEERS["attngen"].refuses(row) for row in ROWS.values())


def test_the_peer_for_sm_90_refuses_with_the_plans_reason() -> None:
    assert not PEERS["hopper"].refuses(ROWS["softcap"])
    sigmoid = replace(ROWS["full"], name="sigmoid_attention", spec="sigmoid_attention")
    assert "normalize = sigmoid" in PEERS["hopper"].refuses(sigmoid)


@pytest.mark.parametrize("name", ROWS)
def test_the_first_heads_are_judged_by_the_reference_of_a_slice(name: str) -> None:
    """The slice is a problem of its own: the whole reference's first heads, dropout bits included."""
    case = make_case(ROWS[name], Shape("small", 2, 8, 40, 16), torch.float32, CPU)
    exact = run(reference_call(case), case)
    assert max(against_reference(exact, case).values()) < 1e-4
    wrong = {**exact, "dk": exact["dk"] * 1.1}
    assert against_reference(wrong, case)["dk"] > 0.09


@pytest.mark.parametrize(
    "name", [name for name, formula in FORMULAS.items() if formula.score or formula.mask]
)
def test_what_is_made_of_a_spec_is_what_was_written_by_hand(name: str) -> None:
    case = make_case(ROWS[name], Shape("small", 2, 4, 1100, 16), torch.float32, CPU)
    by_hand = FORMULAS[name]
    made = from_ir.formula(variant_of(case.row).ir, case.row.params, case.sizes)
    assert made.mask_reads_batch == by_hand.mask_reads_batch
    words = [
        torch.arange(n).view([-1 if i == axis else 1 for i in range(4)])
        for axis, n in enumerate((2, 4, 1100, 1100))
    ]
    words[2] = words[2][:, :, ::37]
    if by_hand.mask or made.mask:
        want, got = (f.mask(case.inputs)(*words) for f in (by_hand, made) if f.mask)
        assert torch.equal(want.expand_as(got), got) or torch.equal(want, got.expand_as(want))
    if by_hand.score:
        assert made.score is not None
        given = torch.randn(2, 4, words[2].numel(), 1100)
        want, got = (f.score(case.inputs)(given, *words) for f in (by_hand, made) if f.score)
        kept = made.mask(case.inputs)(*words) if made.mask else torch.ones((), dtype=torch.bool)
        torch.testing.assert_close(want.where(kept, 0.0), got.where(kept, 0.0))


SHARED = sorted(set(zoo_names()) - {"swin_window_bias", "graphormer_spatial"})


@pytest.mark.parametrize("name", SHARED[::3])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_standard_attention_of_any_spec_is_its_reference(name: str) -> None:
    row = row_of(name, {})
    reason = PEERS["standard"].refuses(row)
    if reason or row.dropout:
        assert row.dropout or reason.startswith(("no ", "one scale for all heads"))
        return
    case = make_case(row, Shape("small", 2, 4, 70, 16, 2), torch.float32, CPU)
    _, lse = variant_of(row).reference(case.q, case.k, case.v, return_lse=True, **case.keywords)
    if lse.isneginf().any():
        pytest.skip("a row keeps nothing: NaN in standard attention")
    want, got = (run(prepare(case), case) for prepare in (reference_call, PEERS["standard"].prepare))
    assert set(want) == set(got) >= {"out", "dq", "dk", "dv"}
    for tensor in want:
        torch.testing.assert_close(got[tensor], want[tensor], atol=1e-4, rtol=1e-3)


def test_a_learned_input_has_its_gradient_checked_unless_frozen() -> None:
    shape = Shape("small", 2, 4, 40, 16)
    learned, frozen = (make_case(ROWS[name], shape, torch.float32, CPU) for name in ("table", "table_frozen"))
    exact = run(reference_call(learned), learned)
    assert set(exact) == {"out", "dq", "dk", "dv", "dtable"}
    assert set(run(reference_call(frozen), frozen)) == {"out", "dq", "dk", "dv"}
    assert set(against_reference(exact, learned)) == set(exact)


# ---- Shapes ------------------------------------------------------------------------------------------------


def test_a_shape_is_a_name_or_sizes() -> None:
    assert parse_shape("d64") is SHAPES["d64"]
    shape = parse_shape("B2,h16, S8192,D128,G4")
    assert (shape.q, shape.k) == ((2, 16, 8192, 128), (2, 4, 8192, 128))
    longer = parse_shape("d128").with_length(512)
    assert (longer.batch, longer.length, longer.tokens) == (32, 512, 16384)


@pytest.mark.parametrize(
    "text", ["", "d12", "B2,H16,S8192", "B2,H16,S8192,D128,G3", "B2,B2,H1,S1,D16", "Bx,H1,S1,D16"]
)
def test_a_wrong_shape_is_told_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected d128, d64, d256, or sizes as B2,H16"):
        parse_shape(text)


# ---- Measuring ---------------------------------------------------------------------------------------------


def peer(name: str, prepare: Any, reason: str = "") -> Peer:
    return Peer(name, name.upper(), lambda row: reason, prepare)


def scaled(factor: float) -> Any:
    def prepare(case: Case) -> Attention:
        exact = reference_call(case)
        return lambda q, k, v: exact(q, k, v) * factor

    return prepare


def broken(case: Case) -> Attention:
    raise RuntimeError("no kernel\nand a long tale")


def fixed_race(calls: dict[str, Call]) -> Race:
    for call in calls.values():
        call()
    return Race(dict.fromkeys(calls, 2.0), {})


def measured(*others: Peer) -> RowResult:
    peers = [peer("attngen", reference_call), *others]
    shape = Shape("tiny", 1, 2, 20, 16)
    return measure(ROWS["causal"], shape, peers, dtype=torch.float32, device=CPU, race=fixed_race)


def test_a_peer_that_fails_or_refuses_stops_nobody_else() -> None:
    result = measured(
        peer("bad", broken), peer("unable", broken, "no rows today"), peer("good", reference_call)
    )
    assert result.outcomes["bad"].reason == "RuntimeError: no kernel"
    assert result.outcomes["unable"].reason == "no rows today"
    assert result.outcomes["bad"].forward_ms is None
    assert result.outcomes["good"].forward_ms == result.outcomes["good"].backward_ms == 2.0
    assert result.outcomes["attngen"].backward_ms == 2.0
    assert reasons([result], but=["no rows today"]) == ["tiny causal: bad: RuntimeError: no kernel"]


def test_a_result_that_differs_is_seen() -> None:
    assert measured(peer("good", reference_call)).agrees
    result = measured(peer("off", scaled(1.05)))
    assert not result.agrees
    assert result.errors["off"]["out"] == pytest.approx(0.05 / 1.05, rel=1e-3)


def test_a_result_that_is_not_a_number_does_not_agree() -> None:
    result = measured(peer("nan", scaled(float("nan"))))
    assert not result.agrees


def test_a_row_whose_kernel_did_not_run_is_not_called_wrong_but_does_not_pass() -> None:
    shape = Shape("tiny", 1, 2, 20, 16)
    peers = [peer("attngen", broken), peer("good", reference_call)]
    for check in (True, False):
        result = measure(
            ROWS["causal"], shape, peers, dtype=torch.float32, device=CPU, race=fixed_race, check=check
        )
        assert not result.is_compared and not result.is_sound(check)
        assert result.as_dict()["agrees"] is None
        assert "not compared" in checks_table([result]) and "NO" not in checks_table([result])
    assert measured(peer("good", reference_call)).is_sound()
    assert not measured(peer("off", scaled(1.05))).is_sound()


def test_only_forward_and_backward_work_of_kept_scores_is_counted() -> None:
    result = measured()
    assert result.scores == 2 * 20 * 21 // 2
    assert result.forward_flops == 4 * 16 * result.scores
    assert result.backward_flops == 2.5 * result.forward_flops


def no_memory(case: Case) -> Any:
    raise torch.cuda.OutOfMemoryError("no memory\nand a long tale")


def nothing(case: Case) -> object:
    return None


def test_another_length_keeps_the_tokens_but_is_one_sequence_in_a_dry_run() -> None:
    shape = SHAPES["d128"].with_length(512)
    assert (shape.batch, shape.length) == (32, 512)
    dry = SHAPES["d128"].with_length(512, keep_tokens=False)
    assert (dry.batch, dry.heads, dry.length) == (1, 16, 512)


@pytest.mark.parametrize(
    ("lean", "told"),
    [(nothing, r"out of memory; compiled \d+\.\d"), (no_memory, "out of memory"), (None, "out of memory")],
)
def test_what_a_peer_cannot_make_for_want_of_memory_is_told_and_stops_nobody(lean: Any, told: str) -> None:
    wide = Peer("wide", "WIDE", lambda row: "", reference_call, no_memory, lean)
    result = measured(wide, Peer("narrow", "NARROW", lambda row: "", reference_call, nothing))
    assert result.outcomes["wide"].forward_ms == result.outcomes["narrow"].forward_ms == 2.0
    table = preparation_table([result], [(n, n) for n in ("attngen", "wide", "narrow")]).splitlines()
    cells = [cell.strip() for cell in table[2].split("|")[1:-1]]
    assert re.fullmatch(told, cells[1]) and re.fullmatch(r"\d+\.\d", cells[3])


@pytest.mark.parametrize("row", ["causal", "documents", "alibi"])
def test_a_sequence_too_long_for_the_dense_reference_is_judged_by_rows(
    row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, peers = Shape("tiny", 1, 2, 24, 16), [peer("attngen", reference_call)]
    monkeypatch.setattr(measuring, "_REFERENCE_SCORES", 5 * 24)

    def errors() -> dict[str, float]:
        result = measure(ROWS[row], shape, peers, dtype=torch.float32, device=CPU, race=fixed_race)
        return result.errors["reference"]

    dense = errors()
    monkeypatch.setattr(measuring, "LONGEST_REFERENCE", 20)
    assert errors().keys() == dense.keys() and max(errors().values()) < 1e-5
    peers[0] = peer("attngen", scaled(1.05))
    assert errors()["out"] == pytest.approx(0.05, rel=1e-2)


def test_an_error_is_told_in_a_line() -> None:
    assert short(ValueError("x" * 500)).endswith("…")
    assert len(short(ValueError("x" * 500))) == 160
    assert short(ValueError()) == "ValueError: "


# ---- Timing ------------------------------------------------------------------------------------------------


class FakeClock:
    """Time that passes only when a call says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def mark(self) -> float:
        return self.now

    def between(self, first: float, last: float) -> float:
        return last - first

    def wait(self) -> None: ...
    def before_call(self) -> None: ...


def test_calls_take_turns_and_the_median_is_theirs() -> None:
    clock, order = FakeClock(), []
    slow = itertools.chain([5.0] * 3, itertools.cycle([3.0, 3.0, 90.0]))  # now and then disturbed

    def call(name: str, times: Iterator[float]) -> None:
        order.append(name)
        clock.now += next(times)

    calls = {"a": partial(call, "a", itertools.repeat(1.0)), "b": partial(call, "b", slow)}
    found = race(calls, clock, warm_ms=0.0, budget_ms=12.0, rounds=4)
    assert found.ms == {"a": 1.0, "b": 3.0}
    timed = order[6:]  # after three calls of each to warm up
    assert [name for name, _ in itertools.groupby(timed)] == ["a", "b", "a", "b", "a"]
    assert timed.count("a") == 12 and timed.count("b") == 4


def test_a_call_that_fails_leaves_the_race() -> None:
    def fail() -> None:
        raise RuntimeError("out of breath")

    found = race({"a": fail, "b": lambda: None}, FakeClock(), warm_ms=0.0)
    assert set(found.ms) == {"b"}
    assert str(found.failed["a"]) == "out of breath"


def test_a_first_call_tells_its_seconds_and_what_took_them(monkeypatch: pytest.MonkeyPatch) -> None:
    ast.parse(host._FIRST_CALL)
    found = {"seconds": 2.5, "build": 0.4, "kernels": [["forward_kernel", 1.25]]}
    done = SimpleNamespace(stdout=f"a warning\n{json.dumps(found)}\n")
    monkeypatch.setattr(host.subprocess, "run", lambda *args, **options: done)
    assert str(host.first_call("causal", backward=False)) == "2.50 (module 0.40; forward_kernel 1.25)"


# ---- Tables ------------------------------------------------------------------------------------------------


def test_the_table_shows_times_rates_and_ratios() -> None:
    result = measured(peer("flex", broken), peer("cudnn", reference_call))
    result.forward_flops = 1e9
    result.outcomes["cudnn"].forward_ms = 3.0
    titles = [("attngen", "attngen"), ("flex", "Flex"), ("cudnn", "cuDNN")]
    lines = peers_table([result], titles).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == [
        *("variant", "pass", "attngen", "Flex", "cuDNN", "vs Flex", "vs cuDNN")
    ]
    forward, backward = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:])
    assert forward == ["causal", "forward", "2.000 (0)", "-", "3.000 (0)", "-", "1.50x"]
    assert backward == ["", "backward", "2.000 (1)", "-", "2.000 (1)", "-", "1.00x"]
    assert len({len(line) for line in lines}) == 1
    assert "yes" in checks_table([result])


def test_columns_align() -> None:
    assert columns([["a", "b"], ["long", "1"]]) == "| a    |  b |\n| ---- | -: |\n| long |  1 |"


# ---- Any spec ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", share(zoo_names(), 3))
def test_every_spec_of_the_zoo_gets_inputs_and_params(name: str) -> None:
    variant = build_variant(find_spec(name), overrides={})
    q, k = torch.randn(2, 4, 9, 16), torch.randn(2, 2, 11, 16)
    named = {**plausible_inputs(variant.ir, q, k, k), **plausible_params(variant.ir)}
    out = variant.reference(q, k, k, seed=1, **named)
    assert isinstance(out, Tensor) and out.isfinite().all()
    other = other_params(variant.ir, plausible_params(variant.ir))
    assert all(other[p.name] != p.default for p in variant.ir.params if p.name in other)


def test_compiled_kernels_are_counted_over_devices() -> None:
    kernel = object.__new__(JITFunction)
    kernel.device_caches = {0: ({"a": 1, "b": 2}, {}, None, None, None), 1: ({"a": 1}, {}, None, None, None)}
    module = ModuleType("built")
    module.forward_kernel, module.other = kernel, 3  # type: ignore[attr-defined]
    assert compiled(module) == {"forward_kernel": 3}


# ---- Scripts -----------------------------------------------------------------------------------------------


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["compiles", "property_run"])
def test_a_script_says_how_it_is_used(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as stopped:
        script(name).main()
    assert stopped.value.code == 0
    assert f"benchmarks/{name}.py" in capsys.readouterr().out


@pytest.mark.parametrize("examples", [1, 18, 200])
def test_the_property_runs_cells_cover_every_dtype_and_head_dim(examples: int) -> None:
    module = script("property_run")
    cells = module.cells_of("alibi", 3, examples, module.DTYPES, module.HEAD_DIMS)
    assert examples <= sum(cell.examples for cell in cells) <= examples + 18
    fixed = {(cell.dtypes[0], cell.head_dims[0]) for cell in cells if len(cell.dtypes) == 1}
    assert fixed == set(itertools.product(module.DTYPES, module.HEAD_DIMS))
    assert len({cell.seed for cell in cells}) == len(cells)
    if examples == 200:
        assert {kind for cell in cells for kind in cell.strides} == set(module.STRIDES)


def test_the_property_runs_table_shows_a_failure() -> None:
    module = script("property_run")
    cells = module.cells_of("alibi", 0, 18, ("float16",), (16,))
    passed = module.Outcome(cells[0], {"float16": 9}, {"float16": (0.5, "dq")})
    failed = module.Outcome(cells[1], {"float16": 2}, {"float16": (1.7, "dk")}, "wrong")
    assert "| alibi   | float16 |       11 |        1.70 | dk | FAILED |" in module.table([passed, failed])
    assert "passed" in module.table([passed])


def test_a_cell_is_built_and_judged() -> None:
    module = script("property_run")
    cell = module.Cell("causal", ("float32",), (16,), ("transposed",), 3, 0, small=False)
    assert module.build(cell, "cpu") == ""
    outcome = module.judge(cell, "cpu")
    assert outcome.failure == ""
    assert outcome.examples == {"float32": 3}
    nothing = module.Cell("no_such_spec", ("float32",), (16,), ("offset",), 1, 0, small=False)
    assert module.build(nothing, "cpu").startswith("no_such_spec float32 16 offset: ")
    assert module.judge(nothing, "cpu").failure
