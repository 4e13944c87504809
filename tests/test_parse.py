"""The grammar reads as Python does, and its tree keeps every place."""

import ast as python
import re
from itertools import product
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_strategies import specs

from attngen import resources
from attngen.errors import AttnGenError, SpecSyntaxError
from attngen.ir.build import build
from attngen.ir.nodes import AttentionIR
from attngen.source import Source, Span
from attngen.syntax import ast
from attngen.syntax.parse import parse, parse_statements


def parsed(text: str) -> ast.Expr:
    clause = parse(Source(f"variant x\nscore = {text}")).statements[0]
    assert isinstance(clause, ast.Clause)
    return clause.value


def grouped(node: ast.Expr) -> str:
    """The tree with all its brackets."""
    match node:
        case ast.Literal():
            return repr(node.value)
        case ast.Name():
            return node.name
        case ast.Unary():
            return f"({node.op} {grouped(node.operand)})"
        case ast.Power():
            return f"({grouped(node.base)} ** {grouped(node.exponent)})"
        case ast.Arithmetic():
            text = grouped(node.operands[0])
            for op, operand in zip(node.ops, node.operands[1:], strict=True):
                text = f"({text} {op} {grouped(operand)})"
            return text
        case ast.Compare():
            pairs = zip(node.ops, node.operands[1:], strict=True)
            return "(" + grouped(node.operands[0]) + "".join(f" {o} {grouped(x)}" for o, x in pairs) + ")"
        case ast.Logic():
            return "(" + f" {node.op} ".join(map(grouped, node.operands)) + ")"
        case ast.Conditional():
            return f"({grouped(node.chosen)} if {grouped(node.condition)} else {grouped(node.other)})"
        case ast.Call():
            return f"{node.function.text}({', '.join(map(grouped, node.args))})"
        case ast.Index():
            return f"{node.base.text}[{', '.join(map(grouped, node.indices))}]"


_OPS = ["+", "-", "*", "/", "//", "%", "**", "<", "==", "and", "or", "if a else", "+ -", "and not"]


@pytest.mark.parametrize(("first", "second"), list(product(_OPS, _OPS)))
def test_precedence_associativity_and_chaining_are_pythons(first: str, second: str) -> None:
    for text in (f"a {first} b {second} c", f"-a {first} b {second} c", f"not a {first} b {second} c"):
        assert python.dump(python.parse(grouped(parsed(text)))) == python.dump(python.parse(text))


def test_spans_cover_exactly_the_text() -> None:
    clause = parse(Source("variant x\nscore = (score + 1) * f( t[h, 2],\n   k)")).statements[0]
    assert isinstance(clause, ast.Clause) and isinstance(clause.value, ast.Arithmetic)
    assert clause.span == Span(2, 1, 3, 6)
    assert clause.value.span == Span(2, 9, 3, 6)
    inner, call = clause.value.operands
    assert inner.span == Span(2, 10, 2, 19)
    assert isinstance(call, ast.Call) and call.span == Span(2, 23, 3, 6)
    assert call.args[0].span == Span(2, 26, 2, 33)


def test_newlines_end_statements_except_in_brackets() -> None:
    text = "\n\n# a comment\n\nvariant x; ; let a = (1 +\n # inside\n 2\n)\n"
    text += "\nlet b = min(1,\n2,)  # after\n;mask = causal;\n"
    names = [s.name.text for s in parse(Source(text)).statements]
    assert names == ["a", "b", "mask"]


def test_every_statement_has_its_node() -> None:
    spec = parse(
        Source(
            '# first\n"""Doc."""\nvariant v\nconst n: int = 4\nparam p: float\nparam r: bool = True\n'
            "input t: float32[heads, 2 * n,] grad\ninput s: int32[]\nlet a = n\n"
            "def f() = 1\ndef g(x, y,) = x\nmask = causal"
        )
    )
    assert spec.doc == "Doc." and spec.name.text == "v"
    const, param, default, table, scalar, let, f, g, clause = spec.statements
    assert isinstance(const, ast.Const) and const.type.text == "int"
    assert isinstance(param, ast.Param) and param.default is None
    assert isinstance(default, ast.Param) and default.default == ast.Literal(True, Span(6, 17, 6, 21))
    assert isinstance(table, ast.Input) and [f.text for f in table.flags] == ["grad"] and len(table.dims) == 2
    assert isinstance(scalar, ast.Input) and scalar.dims == ()
    assert isinstance(let, ast.Let) and isinstance(clause, ast.Clause)
    assert isinstance(f, ast.Def) and f.params == ()
    assert isinstance(g, ast.Def) and [p.text for p in g.params] == ["x", "y"]


@pytest.mark.parametrize("text", ["0", "007", "1_000", "1.", ".5", "1.5e3", "1e-3", "2E+5", "10_0.5"])
def test_numbers_are_pythons(text: str) -> None:
    node = parsed(text)
    expected = int(text) if text.replace("_", "").isdigit() else float(text)
    assert isinstance(node, ast.Literal) and node.value == expected and type(node.value) is type(expected)


@pytest.mark.parametrize(
    "text",
    ["1e", "1__0", "0x10", "1j", "a.b", "f(x)(y)", "t[0][1]", "(a)[0]", "lambda: 1", "a; b", "*a", "f(x=1)"],
)
def test_what_python_has_beyond_the_language_is_refused(text: str) -> None:
    with pytest.raises(SpecSyntaxError):
        parsed(text)


def test_docstring_loses_common_indentation_and_keeps_the_rest() -> None:
    spec = parse(
        Source('"""Window.\n\n      Keys:\n        caf\u00e9 \\u00e9 \\\\ \\"q\\"\n    """\nvariant x')
    )
    assert spec.doc == 'Window.\n\nKeys:\n  caf\u00e9 \u00e9 \\ "q"'


def test_every_rule_of_the_grammar_carries_an_example() -> None:
    rules = re.findall(r"^[?]?[a-z_]+:.*(?:\n +\|.*)*", resources.grammar_text(), re.MULTILINE)
    assert len(rules) > 20
    for rule in rules:
        assert re.search(r" // \S", rule), rule


def test_the_prelude_parses() -> None:
    assert len(parse_statements(Source(resources.prelude_text()))) >= 10


def build_text(text: str) -> AttentionIR:
    source = Source(text)
    return build(parse(source), source)


def only_located_errors(text: str) -> None:
    try:
        assert isinstance(build_text(text), AttentionIR)
    except AttnGenError as error:
        for each in getattr(error, "errors", [error]):
            assert each.line is not None and each.column is not None
            assert each.line <= text.count("\n") + 1
        assert str(error)


_WORDS = (
    "variant const param input let def score scale mask sink dropout x y f t int float bool float32 heads",
    "normalize weight softmax sigmoid relu",
    "q k dist causal softcap ( ) [ ] , : ; = == <= < + - * / // % ** and or not if else True inf 0 1 2.5",
    "# grad sorted min",
)
_TOKENS = [*(token for words in _WORDS for token in words.split()), "\n", '"""']


@settings(max_examples=120, deadline=None)
@given(st.one_of(st.text(max_size=80), st.binary(max_size=60).map(lambda b: b.decode("latin-1"))))
def test_any_text_gives_a_variant_or_a_located_error(text: str) -> None:
    only_located_errors(text)
    only_located_errors(f"variant x\nscore = {text}")


@settings(max_examples=120, deadline=None)
@given(st.lists(st.sampled_from(_TOKENS), max_size=40).map(" ".join))
def test_any_tokens_give_a_variant_or_a_located_error(text: str) -> None:
    only_located_errors(text)
    only_located_errors(f"variant x\nscore = {text}")


@settings(max_examples=60, deadline=None)
@given(specs(), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from(_TOKENS)), max_size=3))
def test_mutated_specs_give_a_variant_or_a_located_error(
    text: str, cuts: list[tuple[float, float, str]]
) -> None:
    for at, length, token in cuts:
        start = int(at * len(text))
        text = text[:start] + token + text[start + int(length * length * 12) :]
    only_located_errors(text)


def test_a_typical_spec_is_built_in_milliseconds() -> None:
    text = "variant x\nconst n: int = 8\nparam c: float = 2.0\n"
    text += "score = softcap(score, c) + t5_bucket(-dist, 32, 128)\nmask = sliding_window(n)"
    build_text(text)
    start = perf_counter()
    for _ in range(10):
        build_text(text)
    assert (perf_counter() - start) / 10 < 0.05
