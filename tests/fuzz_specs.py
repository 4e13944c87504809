"""Spec texts for fuzzing: derived from the grammar, drawn well typed, and broken by token and by byte.

Texts come in blocks, each a function of its seed alone, so that a run can be cut off, resumed and shared
among processes. Within a block the well-typed texts (the zoo's and hypothesis's) are the stock that the
mutations break: most of what comes out is nearly right, and gets far into the compiler.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import spec_strategies
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from lark.grammar import NonTerminal, Rule, Symbol

from attngen.ir.build import prelude
from attngen.ir.operators import BUILTINS
from attngen.ir.scope import WORDS
from attngen.ir.types import DTYPES, Type
from attngen.spec_file import find_spec, zoo_names
from attngen.syntax.parse import CLAUSES, KEYWORDS, LITERALS, STATEMENTS, _parser
from attngen.testing import specs as tame_specs

DRAWN = 60  # texts that hypothesis draws for a block, from each of two strategies


@dataclass(frozen=True)
class Text:
    """One spec: how it was made, and its text (str) or its file's bytes."""

    kind: str
    spec: str | bytes


def block(seed: int, number: int, count: int) -> list[Text]:
    """The first ``count`` texts of block ``number`` of the run ``seed``."""
    rng = random.Random(f"{seed}:{number}")
    drawn = [spec for strategy in _strategies() for spec in _draw(strategy, rng.getrandbits(64))]
    stock = _Stock(drawn, [find_spec(name).text for name in zoo_names()])
    rng.shuffle(drawn)
    texts = [Text("drawn", spec) for spec in drawn[:count]]
    kinds, weights = zip(*_KINDS.items(), strict=True)
    while len(texts) < count:
        make = rng.choices(kinds, weights)[0]
        texts.append(Text(make.__name__, make(rng, stock)))
    return texts


# --- drawn by hypothesis: well typed, but for constants without a value -------------------------------------


@cache
def _strategies() -> tuple[object, ...]:
    return spec_strategies.specs(), tame_specs()


def _draw(strategy: object, seed: int) -> list[str]:
    found: dict[str, None] = {}

    @seeded(seed)
    @settings(
        max_examples=DRAWN,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)  # type: ignore[arg-type]
    def collect(spec: str) -> None:
        found[spec] = None

    collect()
    return list(found)


@dataclass(frozen=True)
class _Stock:
    drawn: Sequence[str]
    zoo: Sequence[str]

    def pick(self, rng: random.Random) -> str:
        return rng.choice(self.zoo if rng.random() < 0.3 else self.drawn)


# --- derived from the grammar -----------------------------------------------------------------------------

#: What a terminal of the grammar that is a pattern may be.
_EXAMPLES: dict[str, Sequence[str]] = {
    "INT": [*"1234567", "64", "1_000", "007", "0", str(2**31), str(2**63 - 1)],
    "FLOAT": ["0.0", "1.", ".5", "0.25", "2.5e-3", "1e-45", "1e38", "1_0.5", "1e-999", "2.0", "0.1"],
    "DOCSTRING": ['"""A line."""', '""""""', '"""caf\\xe9 \\u00e9 \\n"""', '"""\n  two\n    lines"""'],
    "NEWLINE": ["\n", "\n", "\n\n", " # a comment\n"],
}
_BEYOND = (str(2**63), "9" * 25, "3.5e38", "1e999")  # numbers that no constant can be
_FRESH = ("a", "f", "x", "y", "z2", "_u", "torch", "tl", "q_first")
_ODD_NAMES = ("lambda", "__x__", "é", "n" * 70, "layout")


@cache
def vocabulary() -> tuple[str, ...]:
    """Every name that means something in a spec, and some that do not."""
    declared = re.findall(r"^(?:const|param|input|def) (\w+)", spec_strategies.DECLARATIONS, re.MULTILINE)
    own = [*WORDS, *BUILTINS, *prelude(), *declared, *CLAUSES, *STATEMENTS, *KEYWORDS, *LITERALS]
    kinds = [*DTYPES, *(t.value for t in Type), "grad", "sorted", "heads", "batch", "q_len", "k_len"]
    return tuple(dict.fromkeys([*own, *kinds, *_FRESH, *_ODD_NAMES]))


def _numbers() -> list[str]:
    return [*WORDS, "n", "c", "p", "m", "score", "q", "k", "dist", "a", "x"]


#: What usually stands where the n-th NAME of a rule does; anywhere else a name is any word.
_USUAL: dict[tuple[str, int], Callable[[], Sequence[str]]] = {
    ("clause", 0): lambda: CLAUSES,
    ("const", 1): lambda: [t.value for t in Type],
    ("param", 1): lambda: [t.value for t in Type],
    ("input", 1): lambda: list(DTYPES),
    ("__input_star_1", 0): lambda: ["grad", "sorted"],
    ("let", 0): lambda: _FRESH,
    ("def", 0): lambda: _FRESH,
    ("def", 1): lambda: ["x", "y"],
    ("index", 0): lambda: ["t", "doc", "u", "w"],
    ("call", 0): lambda: [*BUILTINS, *prelude(), "twice", "mix"],
    ("name", 0): _numbers,
}


@cache
def _rules() -> dict[str, list[tuple[Rule, int]]]:
    """The grammar's own productions by their origin, each with the depth of its shallowest derivation."""
    rules = [r for r in _parser().rules if not r.origin.name.startswith("$")]
    depths: dict[str, int] = {}
    changed = True
    while changed:
        changed = False
        for rule in rules:
            depth = _depth(rule, depths)
            if depth is not None and depth < depths.get(rule.origin.name, 1 << 30):
                depths[rule.origin.name], changed = depth, True
    found: dict[str, list[tuple[Rule, int]]] = {}
    for rule in rules:
        depth = _depth(rule, depths)
        assert depth is not None, f"{rule} derives nothing"
        found.setdefault(rule.origin.name, []).append((rule, depth))
    return found


def _depth(rule: Rule, depths: dict[str, int]) -> int | None:
    below = [depths.get(s.name) for s in rule.expansion if isinstance(s, NonTerminal)]
    return None if None in below else 1 + max((d for d in below if d is not None), default=0)


@cache
def _literals() -> dict[str, str]:
    return {t.name: t.pattern.value for t in _parser().terminals if t.pattern.type == "str"}


def derive(rng: random.Random, origin: str, depth: int) -> list[str]:
    """Random tokens that the grammar derives from the rule ``origin``, about ``depth`` productions deep."""
    choices = _rules()[origin]
    least = min(d for _, d in choices)
    rule = rng.choice([r for r, d in choices if d <= max(depth, least)])
    tokens: list[str] = []
    names = 0
    for symbol in rule.expansion:
        if isinstance(symbol, NonTerminal):
            tokens += derive(rng, symbol.name, depth - 1)
        else:
            tokens.append(_terminal(rng, symbol, rule.alias or origin, names))
            names += symbol.name == "NAME"
    return tokens


def _terminal(rng: random.Random, symbol: Symbol, rule: str, place: int) -> str:
    if symbol.name in _literals():
        return _literals()[symbol.name]
    if symbol.name != "NAME":
        beyond = symbol.name in ("INT", "FLOAT") and rng.random() < 0.01
        return rng.choice(_BEYOND if beyond else _EXAMPLES[symbol.name])
    usual = _USUAL.get((rule, place))
    return rng.choice(usual() if usual and rng.random() < 0.98 else vocabulary())


def _joined(rng: random.Random, tokens: Sequence[str]) -> str:
    odd = rng.random() < 0.1
    blanks = (" ", "  ", "\t", "", "\n", " # c\n", "\r\n", "\f")
    return "".join(t + (rng.choice(blanks) if odd and rng.random() < 0.1 else " ") for t in tokens)


def derived(rng: random.Random, stock: _Stock) -> str:
    """A whole spec from the grammar."""
    lead = rng.choice(["variant derived\n"] * 4 + [""])
    return lead + _joined(rng, derive(rng, "start", rng.randint(4, 24)))


def derived_body(rng: random.Random, stock: _Stock) -> str:
    """Statements from the grammar after declarations that they can use."""
    lines = [spec_strategies.DECLARATIONS.rstrip()]
    for _ in range(rng.randint(1, 4)):
        origin = rng.choices(["clause", "let", "def", "statement"], [6, 2, 1, 1])[0]
        lines.append(_joined(rng, derive(rng, origin, rng.randint(9, 17))))
    return "\n".join(lines) + "\n"


# --- mutations --------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\[\s\S]|"(?!""))*"""|#[^\n]*|[A-Za-z_][A-Za-z_0-9]*|[0-9.]+|\*\*|//|[<>=!]=|.|\n'
)


def tokens_of(text: str) -> list[str]:
    """The text in pieces that join to it again."""
    return _TOKEN.findall(text)


def _new_token(rng: random.Random, stock: _Stock) -> str:
    way = rng.randrange(5)
    if way == 0:
        return rng.choice(list(_literals().values()))
    if way == 1:
        return rng.choice(_EXAMPLES[rng.choice(list(_EXAMPLES))])
    if way == 2:
        return rng.choice(tokens_of(stock.pick(rng)) or [""])
    if way == 3:
        return "(" + _joined(rng, derive(rng, "expr", rng.randint(8, 16))) + ")"
    return rng.choice(vocabulary())


_ALIKE = (
    ("+", "-", "*", "/", "//", "%", "**", "and", "or", "<", "==", "if"),
    ("<", "<=", ">", ">=", "==", "!=", "and", "or", "+"),
    ("float16", "bfloat16", "float32", "int32", "int64", "bool", "int", "float"),
    ("score", "mask", "scale", "normalize", "weight", "sink", "dropout"),
    ("softmax", "sigmoid", "relu"),
    ("heads", "kv_heads", "batch", "q_len", "k_len", "head_dim", "v_dim", "extra", "4", "1"),
    ("grad", "sorted"),
    ("abs", "floor", "exp", "log", "sqrt", "rsqrt", "sin", "tanh", "int", "float", "sigmoid", "not"),
    ("min", "max", "softcap", "mix", "band", "dot"),
)


def _alike(rng: random.Random, token: str) -> str:
    """A token that often may stand where ``token`` does."""
    fitting = [kind for kind in _ALIKE if token in kind]
    if fitting:
        return rng.choice(fitting[0])
    if token[:1].isdigit():
        return rng.choice([*_EXAMPLES["INT"], *_EXAMPLES["FLOAT"], *_BEYOND])
    if token[:1].isalpha():
        return rng.choice([*_numbers(), *_numbers(), *vocabulary()])
    return token


def tokens_changed(rng: random.Random, stock: _Stock) -> str:
    """A right spec with a few tokens dropped, doubled, swapped, replaced or put in."""
    tokens = tokens_of(stock.pick(rng))
    for _ in range(min(rng.randint(1, 3), rng.randint(1, 3))):
        # Blanks are no tokens: a change of one would seldom be a change.
        solid = [i for i, t in enumerate(tokens) if not t.isspace()]
        if not solid:
            break
        at, other = rng.choice(solid), rng.choice(solid)
        way = rng.randrange(14)
        if way > 5:  # one of its own kind: what stays a sentence of the grammar gets further
            tokens[at] = _alike(rng, tokens[at])
        elif way == 0:
            del tokens[at]
        elif way == 1:
            tokens.insert(at, tokens[other])
        elif way == 2:
            tokens[at], tokens[other] = tokens[other], tokens[at]
        elif way == 3:
            tokens[at] = tokens[other]
        elif way == 4:
            tokens[at] = _new_token(rng, stock)
        else:
            tokens.insert(at, f" {_new_token(rng, stock)} ")
    return "".join(tokens)


def lines_changed(rng: random.Random, stock: _Stock) -> str:
    """The lines of a right spec, or of two, dropped, doubled and shuffled."""
    lines = stock.pick(rng).split("\n")
    if rng.random() < 0.5:
        lines += stock.pick(rng).split("\n")
    for _ in range(rng.randint(1, 4)):
        at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
        way = rng.randrange(3)
        if way == 0 and len(lines) > 1:
            del lines[at]
        elif way == 1:
            lines.insert(to, lines[at])
        else:
            lines.insert(min(to, len(lines) - 1), lines.pop(at))
    return "\n".join(lines)


def mixed(rng: random.Random, stock: _Stock) -> str:
    """Clauses of several drawn specs under the declarations that they share: well typed as a rule."""
    bodies = [s.removeprefix(spec_strategies.DECLARATIONS) for s in stock.drawn]
    pool = [b for b, s in zip(bodies, stock.drawn, strict=True) if b != s and b]
    lines = [line for _ in range(rng.randint(1, 3)) for line in rng.choice(pool or [""]).split("\n")]
    clauses = [line for line in lines if not line.startswith(("let", "scale"))]
    once: dict[str, None] = {}
    for line in clauses:
        if line.startswith("score") or not any(seen.startswith(line[:5]) for seen in once):
            once[line] = None
    body = [line for line in once if not re.search(r"\b(raw|near|total)\d", line)]
    return spec_strategies.DECLARATIONS + "\n".join(body) + "\n"


_ODD_BYTES = b"\x00\x07\t\n\r\x0c\x1b\"'\\#;()[]=*/%\x7f\x80\xc3\xa9\xe2\x80\xa8\xed\xa0\x80\xef\xbb\xbf\xff"


def bytes_changed(rng: random.Random, stock: _Stock) -> bytes:
    """The file of a right spec with bytes flipped, put in, cut out, copied, or cut off."""
    data = bytearray(stock.pick(rng).encode())
    for _ in range(min(rng.randint(1, 6), rng.randint(1, 12))):
        at = rng.randrange(len(data) + 1)
        way = rng.randrange(6)
        if way == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            data[at:at] = bytes([rng.choice(_ODD_BYTES)])
        elif way == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 4))
        elif way == 3:
            del data[at : at + rng.randint(1, 8)]
        elif way == 4:
            start = rng.randrange(len(data) + 1)
            data[at:at] = data[start : start + rng.randint(1, 40)]
        elif rng.random() < 0.2:
            del data[at:]
    return bytes(data)


def characters_changed(rng: random.Random, stock: _Stock) -> str:
    """As bytes_changed, but a str as a program may hand over: any code point, half a surrogate pair too."""
    text = list(stock.pick(rng))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        odd = rng.choice(
            [rng.randrange(0x110000), rng.randrange(0x100), rng.randrange(0xD800, 0xE000), 0x2028]
        )
        text[at : at + rng.randrange(2)] = chr(odd)
    return "".join(text)


def grown(rng: random.Random, stock: _Stock) -> str:
    """Text at the language's bounds: deep nests, long chains, names bound to one another many times over."""
    n = rng.choice([3, 30, 62, 63, 64, 65, 200, 2000])
    leaf = _joined(rng, derive(rng, "expr", 9)) if rng.random() < 0.3 else rng.choice(["score", "dist", "p"])
    op = rng.choice([" + ", " * ", " ** ", " and ", " < ", " // ", " - ", " if causal else ", ", "])
    shape = rng.randrange(6)
    if shape == 0:
        body = (
            "score = " + rng.choice(["(", "-", "abs(", "not ", "t[h, "]) * n + leaf + ")" * rng.choice([0, n])
        )
    elif shape == 1:
        body = "score = " + op.join([leaf] * n)
    elif shape == 2:
        body = f"score = max({', '.join([leaf] * n)})"
    elif shape == 3:
        step = rng.choice(["{0}{1}{0}", "sin({0}){1}cos({0})", "where(causal, {0}, {0}{1}1)"])
        lets = [f"let a{i} = " + step.format(f"a{i - 1}" if i else leaf, op) for i in range(n)]
        body = "\n".join([*lets, f"score = a{n - 1}"])
    elif shape == 4:
        defs = [f"def f{i}(x) = " + (f"f{i - 1}(x){op}f{i - 1}(x)" if i else "x + x") for i in range(n)]
        body = "\n".join([*defs, f"score = f{n - 1}(score)"])
    else:
        kind = rng.choice(
            [
                "param a{}: float = {}",
                "input a{}: float32[{} + 1]",
                "const a{}: int = {}",
                "score = score + {}",
            ]
        )
        body = "\n".join(kind.format(i, i) for i in range(n))
    return f"{spec_strategies.DECLARATIONS}{body}\n"


#: How often each kind is made, beside the drawn texts themselves.
_KINDS: dict[Callable[[random.Random, _Stock], str | bytes], float] = {
    derived: 8,
    derived_body: 22,
    tokens_changed: 30,
    lines_changed: 12,
    mixed: 12,
    bytes_changed: 12,
    characters_changed: 3,
    grown: 1,
}
