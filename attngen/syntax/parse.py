"""Text → AST. Lark (LALR) recognises; its reductions build ``ast`` nodes at once, so nothing recurses.

Every bound of a spec's text (size, tokens, depth) is checked here, before anything can grow with it, and
every message says in words what was expected: lark's names for its terminals never reach a user.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from math import isinf
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from attngen import resources
from attngen.errors import AttnGenError, BuildError, SpecLimitError, SpecSyntaxError, SpecValueError
from attngen.source import Source, Span
from attngen.syntax import ast
from attngen.syntax.ast import MAX_DEPTH
from attngen.syntax.docstring import decode_docstring
from attngen.syntax.habits import (
    attribute_hint,
    augmented_hint,
    chained_index_hint,
    def_hint,
    infinity_hint,
)

MAX_BYTES = 64 * 1024
MAX_TOKENS = 10_000
MAX_NAME = 64

STATEMENTS = ("variant", "const", "param", "input", "let", "def")
CLAUSES = ("score", "scale", "mask", "normalize", "weight", "sink", "dropout")
# Words of the grammar that no position of a spec reads as a name.
KEYWORDS = {"and": "AND", "or": "OR", "not": "NOT", "if": "IF", "else": "ELSE"}
LITERALS = {"True": "TRUE", "False": "FALSE", "inf": "INF"}

_CLOSER = {"(": ")", "[": "]"}


class Problem(Exception):
    """A mistake found by a part that knows its place but not its source; ``parse`` makes it an error."""

    def __init__(self, kind: type[AttnGenError], message: str, span: Span, hint: str | None = None) -> None:
        super().__init__(message)
        self.kind, self.message, self.span, self.hint = kind, message, span, hint

    def located(self, source: Source) -> AttnGenError:
        return self.kind(self.message, source=source, span=self.span, hint=self.hint)


def read_spec(path: str | PathLike[str]) -> Source:
    """The spec in the file ``path``, named as the caller named it.

    Raises BuildError where the file cannot be read, SpecLimitError where it is larger than 64 KiB, and
    SpecSyntaxError, with the place, where its bytes are not UTF-8.
    """
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 4)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BuildError(f"cannot read {name!a}: {reason}") from error
    return decode_spec(data, name)


def decode_spec(data: bytes, name: str) -> Source:
    """The spec whose file, called ``name``, holds ``data``. Raises as ``read_spec`` does."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if len(data) > MAX_BYTES:
        raise SpecLimitError(
            f"a spec is at most {MAX_BYTES // 1024} KiB", source=Source("", name), span=Span(1, 1, 1, 2)
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8").replace("\r\n", "\n")
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        raise SpecSyntaxError(
            "the file is not text in UTF-8",
            source=Source(data.decode("utf-8", "replace"), name),
            span=Span(line, column, line, column + 1),
        ) from error
    return Source(text.replace("\r\n", "\n").replace("\r", "\n"), name)


def parse(source: Source) -> ast.Spec:
    """The AST of a spec. Raises SpecSyntaxError, SpecLimitError or SpecValueError, located, and no other."""
    found = parse_statements(source)
    doc, rest = _leading_docstring(found, source)
    if not rest or not isinstance(rest[0], Variant):
        where = rest[0].span if rest else Span(1, 1, 1, 2)
        raise SpecSyntaxError(
            "a spec starts with 'variant NAME'",
            source=source,
            span=Span(where.line, where.column, where.line, where.column + 1),
            hint="add that line before every other statement",
        )
    statements: list[ast.Statement] = []
    for statement in rest[1:]:
        if isinstance(statement, Variant):
            first = rest[0].span.line
            raise SpecSyntaxError(
                f"a spec holds one variant, and line {first} named it", source=source, span=statement.span
            )
        if isinstance(statement, Docstring):
            raise SpecSyntaxError(
                "a docstring stands before every statement", source=source, span=statement.span
            )
        statements.append(statement)
    return ast.Spec(rest[0].name, doc, tuple(statements))


@dataclass(frozen=True)
class Variant:
    """``variant alibi``: becomes the name of the Spec."""

    name: ast.Ident
    span: Span


@dataclass(frozen=True)
class Docstring:
    r"""``\"\"\"text\"\"\"``: becomes the doc of the Spec."""

    text: str
    span: Span


AnyStatement = ast.Statement | Variant | Docstring


def _leading_docstring(found: list[AnyStatement], source: Source) -> tuple[str, list[AnyStatement]]:
    if not found or not isinstance(found[0], Docstring):
        return "", found
    doc = found[0]
    try:
        return decode_docstring(doc.text), found[1:]
    except ValueError as error:
        raise SpecSyntaxError(str(error), source=source, span=doc.span) from error


def parse_statements(source: Source) -> list[AnyStatement]:
    """The statements of a text that need not name a variant (the prelude). Raises as ``parse`` does."""
    text = source.text
    _check_text(source)
    try:
        found: list[AnyStatement] = _parser().parse(text)  # type: ignore[assignment]
    except Problem as problem:
        raise problem.located(source) from None
    except UnexpectedInput as error:
        raise _explain(error, text).located(source) from None
    return found


def _check_text(source: Source) -> None:
    try:
        size = len(source.text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise SpecSyntaxError(
            "the text holds half a surrogate pair", source=source, span=_span_at(source.text, error.start)
        ) from error
    if size > MAX_BYTES:
        raise SpecLimitError(
            f"a spec is at most {MAX_BYTES // 1024} KiB; this one is {size} bytes",
            source=source,
            span=_span_at(source.text, min(MAX_BYTES, len(source.text) - 1)),
        )
    odd = re.search(r"[\x00-\x08\x0b\x0e-\x1f\x7f]", source.text)
    if odd:
        raise SpecSyntaxError(
            f"the text holds a control character, {odd.group()!a}",
            source=source,
            span=_span_at(source.text, odd.start()),
        )


def _span_at(text: str, start: int, length: int = 1) -> Span:
    line = text.count("\n", 0, start) + 1
    column = start - (text.rfind("\n", 0, start) + 1) + 1
    return Span(line, column, line, column + length)


# --- between lexer and parser --------------------------------------------------------------------------


class _Brackets:
    """Drops newlines inside brackets, and bounds tokens and nesting while the lexer runs."""

    always_accept = ("NEWLINE",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        opened: list[Token] = []
        count = 0
        for token in stream:
            if token.type == "NEWLINE" and opened:
                continue
            count += 1
            if count > MAX_TOKENS:
                raise Problem(SpecLimitError, f"a spec is at most {MAX_TOKENS:,} tokens", span_of(token))
            if token.type in ("LPAR", "LSQB"):
                opened.append(token)
                if len(opened) > MAX_DEPTH:
                    raise _too_deep(span_of(token))
            elif token.type in ("RPAR", "RSQB"):
                _close(opened, token)
            elif token.type == "NAME":
                token = _as_keyword(token)
            yield token


def _close(opened: list[Token], token: Token) -> None:
    if not opened:
        raise Problem(SpecSyntaxError, f"unmatched '{token}'", span_of(token))
    opener = opened.pop()
    if _CLOSER[opener] != token:
        raise Problem(
            SpecSyntaxError, f"'{opener}' of line {opener.line} is closed by '{token}'", span_of(token)
        )


def _as_keyword(token: Token) -> Token:
    # The contextual lexer reads a keyword as a NAME wherever the grammar does not allow the keyword.
    kind = KEYWORDS.get(token) or LITERALS.get(token)
    if kind:
        return Token.new_borrow_pos(kind, token.value, token)
    if len(token) > MAX_NAME:
        raise Problem(SpecLimitError, f"a name has at most {MAX_NAME} characters", span_of(token))
    return token


def _too_deep(span: Span) -> Problem:
    return Problem(
        SpecLimitError,
        f"the expression is nested deeper than {MAX_DEPTH} levels",
        span,
        "name a part of it with 'let'",
    )


# --- reductions ----------------------------------------------------------------------------------------


def span_of(token: Token) -> Span:
    line, column = token.line or 1, token.column or 1
    return Span(line, column, token.end_line or line, token.end_column or column + 1)


class _Sub(NamedTuple):
    """A finished subexpression: its place with the brackets around it, and how deep it nests."""

    node: ast.Expr
    span: Span
    depth: int


_Piece = Token | _Sub


def _cover(children: list[_Piece]) -> Span:
    first, last = _place(children[0]), _place(children[-1])
    return Span(first.line, first.column, last.end_line, last.end_column)


def _place(piece: _Piece) -> Span:
    return span_of(piece) if isinstance(piece, Token) else piece.span


def _ident(token: _Piece) -> ast.Ident:
    assert isinstance(token, Token)
    return ast.Ident(str(token), span_of(token))


def _subs(children: list[_Piece]) -> list[_Sub]:
    return [c for c in children if isinstance(c, _Sub)]


def _tokens(children: list[_Piece], *types: str) -> list[Token]:
    return [c for c in children if isinstance(c, Token) and (not types or c.type in types)]


def _finish(node: ast.Expr, children: list[_Piece]) -> _Sub:
    depth = 1 + max((c.depth for c in _subs(children)), default=0)
    if depth > MAX_DEPTH:
        raise _too_deep(_cover(children))
    return _Sub(node, _cover(children), depth)


def _nodes(children: list[_Piece]) -> tuple[ast.Expr, ...]:
    return tuple(sub.node for sub in _subs(children))


class _Reductions(Transformer[Token, object]):
    """One method for each rule of the grammar; ``children`` are the rule's tokens and subexpressions."""

    def start(self, children: list[object]) -> list[AnyStatement]:
        return [c for c in children if not isinstance(c, Token)]  # type: ignore[misc]

    def docstring(self, children: list[Token]) -> Docstring:
        return Docstring(str(children[0])[3:-3], span_of(children[0]))

    def variant(self, children: list[_Piece]) -> Variant:
        return Variant(_ident(children[1]), _cover(children))

    def const(self, children: list[_Piece]) -> ast.Const:
        return ast.Const(_ident(children[1]), _ident(children[3]), _nodes(children)[0], _cover(children))

    def param(self, children: list[_Piece]) -> ast.Param:
        default = next(iter(_nodes(children)), None)
        return ast.Param(_ident(children[1]), _ident(children[3]), default, _cover(children))

    def input(self, children: list[_Piece]) -> ast.Input:
        name, dtype, *flags = map(_ident, _tokens(children, "NAME"))
        return ast.Input(name, dtype, _nodes(children), tuple(flags), _cover(children))

    def let(self, children: list[_Piece]) -> ast.Let:
        return ast.Let(_ident(children[1]), _nodes(children)[0], _cover(children))

    # "def" is a Python keyword, so the method gets its rule's name below the class.
    def _def(self, children: list[_Piece]) -> ast.Def:
        name, *params = map(_ident, _tokens(children, "NAME"))
        return ast.Def(name, tuple(params), _nodes(children)[0], _cover(children))

    def clause(self, children: list[_Piece]) -> ast.Clause:
        name = _ident(children[0])
        if name.text not in CLAUSES:
            close = get_close_matches(name.text, CLAUSES, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"a new name is 'let {name.text} = ...'"
            raise Problem(SpecSyntaxError, f"there is no clause '{name.text}'", name.span, hint)
        return ast.Clause(name, _nodes(children)[0], _cover(children))

    def conditional(self, children: list[_Piece]) -> _Sub:
        chosen, condition, other = _nodes(children)
        return _finish(ast.Conditional(chosen, condition, other, _cover(children)), children)

    def _logic(self, children: list[_Piece]) -> _Sub:
        op = str(_tokens(children)[0])
        return _finish(ast.Logic(op, _nodes(children), _cover(children)), children)

    disjunction = conjunction = _logic

    def comparison(self, children: list[_Piece]) -> _Sub:
        ops = tuple(map(str, _tokens(children)))
        return _finish(ast.Compare(_nodes(children), ops, _cover(children)), children)

    def _arithmetic(self, children: list[_Piece]) -> _Sub:
        ops = tuple(map(str, _tokens(children)))
        return _finish(ast.Arithmetic(_nodes(children), ops, _cover(children)), children)

    sum = product = _arithmetic

    def unary(self, children: list[_Piece]) -> _Sub:
        return _finish(ast.Unary(str(children[0]), _nodes(children)[0], _cover(children)), children)

    def power(self, children: list[_Piece]) -> _Sub:
        base, exponent = _nodes(children)
        return _finish(ast.Power(base, exponent, _cover(children)), children)

    def group(self, children: list[_Piece]) -> _Sub:
        return _finish(_nodes(children)[0], children)

    def call(self, children: list[_Piece]) -> _Sub:
        return _finish(ast.Call(_ident(children[0]), _nodes(children), _cover(children)), children)

    def index(self, children: list[_Piece]) -> _Sub:
        return _finish(ast.Index(_ident(children[0]), _nodes(children), _cover(children)), children)

    def name(self, children: list[_Piece]) -> _Sub:
        return _finish(ast.Name(str(children[0]), _cover(children)), children)

    def integer(self, children: list[_Piece]) -> _Sub:
        digits = str(children[0]).replace("_", "").lstrip("0") or "0"
        # A bound on the digits keeps int() cheap; the value's own bound is checked when it is used.
        if len(digits) > 19 or int(digits) >= 2**63:
            raise Problem(SpecValueError, "an int constant is less than 2**63", _cover(children))
        return self._literal(int(digits), children)

    def real(self, children: list[_Piece]) -> _Sub:
        value = float(str(children[0]))
        if isinf(value):  # 'inf' is its own word, and a number this large is a mistake as 1e39 is one
            raise Problem(SpecValueError, "the constant is too large for float32", _cover(children))
        return self._literal(value, children)

    def infinity(self, children: list[_Piece]) -> _Sub:
        return self._literal(float("inf"), children)

    def true(self, children: list[_Piece]) -> _Sub:
        return self._literal(True, children)

    def false(self, children: list[_Piece]) -> _Sub:
        return self._literal(False, children)

    def _literal(self, value: bool | int | float, children: list[_Piece]) -> _Sub:
        return _finish(ast.Literal(value, _cover(children)), children)


setattr(_Reductions, "def", _Reductions._def)


@cache
def _parser() -> Lark:
    return Lark(
        resources.grammar_text(),
        parser="lalr",
        lexer="contextual",
        transformer=_Reductions(),
        postlex=_Brackets(),
        keep_all_tokens=True,
        maybe_placeholders=False,
    )


# --- messages ------------------------------------------------------------------------------------------

_OPERATORS = {"PLUS", "MINUS", "STAR", "SLASH", "EQUAL", "LESS", "POWER", "AND", "OR", "IF"}
_SYMBOLS = {
    "NAME": "a name",
    "ASSIGN": "'='",
    "COMMA": "','",
    "LPAR": "'('",
    "RPAR": "')'",
    "LSQB": "'['",
    "RSQB": "']'",
}
_LONG = {"const": "constant", "param": "parameter", "let": "value", "def": "function"}
_STRANGERS = {
    "&": "write 'and'",
    "|": "write 'or'",
    "!": "write 'not', or '!=' to compare",
    "~": "write 'not'",
    "^": "a power is '**'",
    '"': "a spec has no strings, only a docstring in triple quotes before the first statement",
    "'": "a spec has no strings, only a docstring in triple double quotes before the first statement",
    "\\": "an expression goes on over the next line inside brackets",
    "?": "a choice is 'x if condition else y'",
    "{": "an index is in square brackets",
    "}": "an index is in square brackets",
}
_SCAN = re.compile(r'"""(?:[^"\\]|\\[\s\S]|"(?!""))*"""|#[^\n]*|[A-Za-z_0-9.]+|\n|[^\s]')


def _explain(error: UnexpectedInput, text: str) -> Problem:
    """What the grammar expected, in words, with the place that a reader would look at."""
    start = error.pos_in_stream
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        start = None
    before, opened = _scan(text, len(text) if start is None else start)
    if isinstance(error, UnexpectedCharacters):
        return _strange_character(text, error.pos_in_stream or 0)
    assert isinstance(error, UnexpectedToken)
    token = error.token
    at_end = token.type in ("$END", "NEWLINE") or start is None
    new_line = not at_end and "\n" in text[before[-1].end() if before else 0 : start]
    if opened and (at_end or new_line):
        opener = opened[-1]
        return Problem(SpecSyntaxError, f"unclosed '{opener.group()}'", _span_at(text, opener.start()))
    previous = before[-1].group() if before and before[-1].group() not in "\n;" else ""
    if at_end:
        last = before[-1] if before else None
        place = _span_at(text, last.start(), last.end() - last.start()) if last else Span(1, 1, 1, 2)
    else:
        place = span_of(token)
    expected = set(error.accepts or error.expected)
    wanted = _wanted(expected, previous, before)
    hint = _hint(token, expected, previous, wanted)
    hint = hint or _habit(text, token, [m.group() for m in before])
    if previous and len(previous) <= 40:
        wanted += f" after '{previous}'"
    found = "" if at_end else f", found '{_shown(str(token))}'"
    return Problem(SpecSyntaxError, f"expected {wanted}{found}", place, hint)


def _scan(text: str, end: int) -> tuple[list[re.Match[str]], list[re.Match[str]]]:
    """The tokens of ``text[:end]``, roughly, and the brackets still open there."""
    before: list[re.Match[str]] = []
    opened: list[re.Match[str]] = []
    for match in _SCAN.finditer(text, 0, end):
        if match.group().startswith("#") or (match.group() == "\n" and opened):
            continue
        if match.group() in "([":
            opened.append(match)
        elif match.group() in ")]" and opened:
            opened.pop()
        before.append(match)
    while before and before[-1].group() == "\n" and end == len(text):
        before.pop()
    return before, opened


def _wanted(expected: set[str], previous: str, before: list[re.Match[str]]) -> str:
    line_start = max((m.end() for m in before if m.group() in "\n;"), default=0)
    line = [m.group() for m in before if m.start() >= line_start]
    head = line[0] if line else ""
    if "INT" in expected:
        if previous == "[":
            return "an index" if head != "input" else "a dim"
        return "an expression"
    if "VARIANT" in expected:
        return "a statement"
    if "NAME" in expected and previous in STATEMENTS:
        return f"a name for the {_LONG.get(previous, previous)}"
    if "NAME" in expected and previous == ":":
        return "a dtype, as float32" if head == "input" else "a type (int, float or bool)"
    if "COLON" in expected:
        example = "float32[heads]" if head == "input" else "int"
        return f"':' and a type, as in '{head} {previous}: {example}',"
    if "LSQB" in expected and head == "input" and "LPAR" not in expected:
        return f"the dims in brackets, as in '{previous}[heads]' ('[]' for a scalar),"
    if "ELSE" in expected:
        return "'else' and the other value"
    if expected & _OPERATORS:
        return " or ".join(["an operator", *_named(expected - {"LPAR", "LSQB"})])
    return " or ".join(_named(expected))


def _named(expected: set[str]) -> list[str]:
    named = [words for terminal, words in _SYMBOLS.items() if terminal in expected]
    return [*named, "the end of the statement"] if "SEMICOLON" in expected else named


def _hint(token: Token, expected: set[str], previous: str, wanted: str) -> str | None:
    if token.type == "ASSIGN" and expected & _OPERATORS:
        return "'==' compares"
    if token.type == "DOCSTRING":
        return "only a docstring, before the first statement, is in quotes"
    if wanted == "an index" and token.type == "RSQB":
        return "an input without dims is read by its name alone"
    if wanted == "a statement":
        if token.type in ("PLUS", "MINUS", "STAR", "SLASH", "AND", "OR", "POWER", "FLOORDIV"):
            return "an expression goes on over the next line only inside brackets"
        return "statements begin with " + ", ".join(STATEMENTS + CLAUSES)
    if expected == {"ASSIGN"} and previous == "return":
        return "a spec returns nothing: write lines such as score = ... or mask = ..."
    if expected == {"ASSIGN"} and previous not in CLAUSES and token.type == "NAME":
        close = get_close_matches(previous, STATEMENTS, 1)
        if close:
            return f"did you mean '{close[0]}'?"
        return "statements begin with " + ", ".join(STATEMENTS + CLAUSES)
    return None


def _habit(text: str, token: Token, before: list[str]) -> str | None:
    """What to write instead of Python that the language does not have."""
    start, previous = token.start_pos, before[-1] if before else ""
    if start is None:
        return None
    if token.type == "LSQB" and previous == "]":
        return chained_index_hint(text, start)
    if token.type == "COLON" and previous == ")":
        ends = [n for n, word in enumerate(before) if word in ("\n", ";")]
        line = before[ends[-1] + 1 if ends else 0 :]
        return def_hint(line[1], line[2:]) if line[0] == "def" and len(line) > 1 else None
    # The clauses that may read what they change.
    return augmented_hint(text, start, previous) if previous in ("score", "weight") else None


def _shown(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def _strange_character(text: str, at: int) -> Problem:
    character = text[at] if at < len(text) else ""
    place = _span_at(text, at)
    if text.startswith('"""', at):
        return Problem(SpecSyntaxError, "the docstring is not closed", _span_at(text, at, 3))
    if not character.isascii():
        message = f"unexpected character {character!a}"
        return Problem(SpecSyntaxError, message, place, "names are ASCII letters, digits and '_'")
    hint = attribute_hint(text, at) if character == "." else _STRANGERS.get(character)
    if character in "\"'":
        hint = infinity_hint(text, at) or hint
    return Problem(SpecSyntaxError, f"unexpected character '{character}'", place, hint)
