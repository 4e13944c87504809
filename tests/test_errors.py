"""Wrong specs give the right class, line, column, message and caret; huge and hostile ones a limit, soon."""

import pickle
from pathlib import Path
from time import perf_counter

import pytest

from attngen.errors import (
    AttnGenError,
    BuildError,
    SpecErrors,
    SpecLimitError,
    SpecNameError,
    SpecSyntaxError,
    SpecValueError,
)
from attngen.ir.build import build, prelude
from attngen.ir.nodes import AttentionIR
from attngen.ir.operators import BUILTINS
from attngen.ir.scope import Function
from attngen.source import Source
from attngen.syntax.habits import FUNCTIONS
from attngen.syntax.parse import parse, read_spec

WRONG = sorted((Path(__file__).parent / "fixtures" / "specs").glob("*.txt"))


def ir_of(text: str, name: str = "<spec>") -> AttentionIR:
    source = Source(text, name)
    return build(parse(source), source)


def error_of(text: str) -> AttnGenError:
    with pytest.raises(AttnGenError) as caught:
        ir_of(text)
    return caught.value


@pytest.mark.parametrize("path", WRONG, ids=lambda p: p.stem)
def test_each_wrong_spec_gives_its_message(path: Path) -> None:
    text, expected = path.read_text(encoding="utf-8").split("\n=====\n")
    with pytest.raises(AttnGenError) as caught:
        ir_of(text + "\n", f"{path.stem}.attn")
    assert f"{type(caught.value).__name__}\n{caught.value}\n" == expected
    assert caught.value.line is not None and caught.value.column is not None


def test_python_names_an_error_without_a_place_once() -> None:
    assert str(AttnGenError("no such file", hint="look again")) == "no such file; look again"


def test_there_are_many_wrong_specs() -> None:
    assert len(WRONG) >= 80


DOUBLING = "variant x\ndef f0(x) = x + 1\n" + "".join(
    f"def f{i + 1}(x) = f{i}(x) * f{i}(x + {i})\n" for i in range(40)
)
WIDE = "variant x\ndef f0(x) = tanh(x)\n" + "".join(
    f"def f{i + 1}(x) = f{i}(x + {i}.5) + f{i}(x * {i}.5)\n" for i in range(14)
)
LIMITS = {
    "parentheses": "variant x\nscore = " + "(" * 5000 + "1" + ")" * 5000,
    "open parentheses": "variant x\nscore = " + "(" * 5000,
    "indices": "variant x\nscore = " + "t[" * 5000,
    "not": "variant x\nmask = " + "not " * 5000 + "causal",
    "minus": "variant x\nscore = " + "- " * 5000 + "score",
    "powers": "variant x\nscore = " + "2**" * 4000 + "2",
    "conditionals": "variant x\nscore = " + "1 if causal else " * 2400 + "2",
    "calls": "variant x\nscore = " + "exp(" * 3000 + "1" + ")" * 3000,
    "terms": "variant x\nscore = score" + "+1" * 20_000,
    "words": "variant x\n" + "let a = score\n" * 2_600,
    "bytes": "variant x\n#" + "x" * 70_000,
    "nodes": "variant x\nscore = score" + "".join(f" + q * {i}.5" for i in range(2000)),
    "name": "variant x\nlet " + "a" * 65 + " = 1",
    "expansion": DOUBLING + "score = f40(score)",
    "wide expansion": WIDE + "score = f14(score)",
    "chain of defs": "variant x\ndef f0(x) = x\n"
    + "".join(f"def f{i + 1}(x) = f{i}(x)\n" for i in range(100))
    + "score = f100(score)",
}


@pytest.mark.parametrize("text", list(LIMITS.values()), ids=list(LIMITS))
def test_large_and_deep_specs_meet_a_located_limit_soon(text: str) -> None:
    start = perf_counter()
    error = error_of(text)
    assert isinstance(error, SpecLimitError)
    assert error.line is not None
    assert all(len(line) < 400 for line in str(error).split("\n"))
    assert perf_counter() - start < 10


def test_memoised_calls_make_doubling_text_cheap() -> None:
    text = "variant x\ndef f0(x) = x * 2\n"
    text += "".join(f"def f{i + 1}(x) = f{i}(x) + f{i}(x)\n" for i in range(25))
    start = perf_counter()
    ir_of(text + "score = f25(score)")
    assert perf_counter() - start < 2


def test_a_sum_of_300_terms_is_not_deep() -> None:
    assert ir_of("variant x\nscore = score" + " + q * 2" * 300).final_score


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [(b"variant x\nmask = \xff\xfe", 2, 8), (b"\x80", 1, 1), (b"# \xc3\xa9 \xe9\n", 1, 5)],
)
def test_bytes_that_are_not_utf8_are_located(tmp_path: Path, data: bytes, line: int, column: int) -> None:
    path = tmp_path / "x.attn"
    path.write_bytes(data)
    with pytest.raises(SpecSyntaxError) as caught:
        read_spec(path)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_binary_and_nul_are_syntax_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.attn"
    path.write_bytes(b"variant x\nmask = causal\x00\n")
    source = read_spec(path)
    with pytest.raises(SpecSyntaxError, match="control character"):
        parse(source)
    path.write_bytes(bytes(range(256)) * 8)
    with pytest.raises(SpecSyntaxError):
        parse(read_spec(path))


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.attn", tmp_path, "nul\x00byte"):
        with pytest.raises(BuildError, match="cannot read"):
            read_spec(path)
    big = tmp_path / "big.attn"
    big.write_bytes(b"#" * 100_000)
    with pytest.raises(SpecLimitError, match="64 KiB"):
        read_spec(big)


def test_newlines_of_every_system_and_a_byte_order_mark_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "x.attn"
    path.write_bytes(b"\xef\xbb\xbfvariant x\r\nmask = causal\rscale = 1.0\n")
    source = read_spec(path)
    assert source.name == str(path)
    assert source.text == "variant x\nmask = causal\nscale = 1.0\n"
    assert build(parse(source), source) == ir_of("variant x\nmask = causal\nscale = 1.0")


def test_errors_survive_pickling() -> None:
    several = error_of("variant x\nscore = aa\nmask = bb")
    assert isinstance(several, SpecErrors)
    again = pickle.loads(pickle.dumps(several))
    assert str(again) == str(several)
    assert [type(e) for e in again.errors] == [SpecNameError, SpecNameError]
    one = pickle.loads(pickle.dumps(several.errors[0]))
    assert (str(one), one.line, one.column) == (str(several.errors[0]), 2, 9)


@pytest.mark.parametrize("literal", ["1e39", "1e400", "9.9e999", "1." + "0" * 400 + "e309"])
def test_a_literal_that_float32_cannot_hold_is_refused_however_large(literal: str) -> None:
    error = error_of(f"variant x\nscore = score * {literal}")
    assert isinstance(error, SpecValueError)
    assert error.message == "the constant is too large for float32"
    assert (error.line, error.column) == (2, 17)


@pytest.mark.parametrize("rest", ["t[h][0]", "torch.tanh(score)", "1.0\nscore += 3.0"])
def test_a_hint_costs_nothing_in_a_long_text(rest: str) -> None:
    start = perf_counter()
    assert error_of(f"variant x\nscore = {rest}\n#" + "x" * 60_000).hint
    assert perf_counter() - start < 2


def test_the_word_inf_is_no_overflow() -> None:
    assert ir_of("variant x\nscore = where(causal, score, -inf)").final_score


def test_hints_are_a_field_of_their_own() -> None:
    error = error_of("variant x\nmask = casual")
    assert error.hint == "did you mean 'causal'?"
    assert error.message == "unknown name 'casual'"


def test_a_hint_offers_functions_that_there_are() -> None:
    standard = {name for name, entity in prelude().items() if isinstance(entity, Function)}
    assert standard | set(BUILTINS) >= FUNCTIONS >= set(BUILTINS) - {"bool"}
    for name in FUNCTIONS:
        assert error_of(f"variant x\nscore = score.{name}()").hint == f"write {name}(score)"


@pytest.mark.parametrize(
    ("text", "hint"),
    [("float('-inf')", "-inf"), ('float("inf")', "inf"), ('float( "-Infinity" )', "-inf"), ('"-inf"', None)],
)
def test_infinity_in_quotes_is_a_word(text: str, hint: str | None) -> None:
    found = error_of(f"variant x\nscore = where(causal, score, {text})").hint or ""
    assert found == f"write {hint}" if hint else found.startswith("a spec has no strings")


def test_a_def_that_takes_words_and_is_not_flex_attentions_has_its_arguments_renamed() -> None:
    error = error_of("variant x\ndef f(b, h) = b + h")
    assert isinstance(error, SpecErrors) and {e.hint for e in error.errors} == {"choose another name"}
