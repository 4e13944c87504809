"""Python and FlexAttention written by habit, and what a spec says instead: the hints of syntax errors.

torch.tanh(score)         ->   write tanh(...)
torch.tril(score)         ->   write a mask line, as in mask = causal
t[h][0]                   ->   write t[h, 0]
score += 3.0              ->   write score = score + 3.0
float("-inf")             ->   write -inf
def score_mod(score, b):  ->   write lines such as score = ...
"""

from __future__ import annotations

import re
from collections.abc import Collection

_WIDEST = 40  # columns of a spec that a hint repeats

_ATTRIBUTE = re.compile(r"((?:\.[A-Za-z_]\w*)+)[ \t]*(\([ \t]*\)|\()?", re.ASCII)
_OWNER = re.compile(r"(?<![\w.)\]])[A-Za-z_]\w*\Z", re.ASCII)
_MODULES = frozenset({"F", "jax", "jnp", "libdevice", "math", "np", "numpy", "tl", "torch"})
_OTHER_NAMES = {"maximum": "max", "minimum": "min"}  # of functions that a spec knows as Python does

# What may follow a dot by habit and is a function here: the built-in ones and the prelude's of numbers.
FUNCTIONS = frozenset(
    {"abs", "clamp", "cos", "dot", "exp", "float", "floor", "int", "log", "max", "min", "relu", "rsqrt"}
    | {"sigmoid", "sign", "silu", "sin", "softplus", "sqrt", "square", "tanh", "where"}
)
_MASKS = re.compile(r"masked_fill_?|masked_scatter_?|masked_select|tril_?|triu_?", re.ASCII)
_INSTEAD = {
    "softmax": "the scores' softmax is taken after the last score line: leave it out",
    "log_softmax": "the scores' softmax is taken after the last score line: leave it out",
    "pow": "a power is '**'",
}

_INFINITY = re.compile(
    r"""float[ \t]*\([ \t]*(["'])[ \t]*([-+]?)[ \t]*inf(inity)?[ \t]*\1""", re.ASCII | re.IGNORECASE
)
_MOD = re.compile(r"(score|mask)_?mod", re.ASCII)

_CHAIN = re.compile(r"[A-Za-z_]\w*(?:[ \t]*\[[^\[\]\n#]+\]){2,}", re.ASCII)
_BETWEEN = re.compile(r"[ \t]*\][ \t]*\[[ \t]*")

_AUGMENTED = re.compile(r"(\*\*|//|[-+*/%])=[ \t]*([^\n;#]*)")
_ATOM = re.compile(r"[\w.]+(?:\[[^\[\]]*\]|\([^()]*\))?", re.ASCII)


def attribute_hint(text: str, dot: int) -> str | None:
    """``torch.tanh(x)``, ``x.tanh()``, ``math.inf``: the language's own, for the dot at ``text[dot]``."""
    found = _ATTRIBUTE.match(text, dot)
    if not found:
        return None
    name = found.group(1).rpartition(".")[2]
    name = _OTHER_NAMES.get(name, name)
    bracket = found.group(2)
    if bracket is None:
        return "write inf" if name == "inf" else None
    if _MASKS.fullmatch(name):
        return "write a mask line, as in mask = causal"
    if name not in FUNCTIONS:
        return _INSTEAD.get(name, "the functions are " + ", ".join(sorted(FUNCTIONS)))
    owner = _OWNER.search(text, max(0, dot - _WIDEST), dot)
    if owner is None or owner.group() in _MODULES:
        return f"write {name}(...)"
    return f"write {name}({owner.group()}{', ...' if bracket == '(' else ''})"


def chained_index_hint(text: str, bracket: int) -> str:
    """``t[h][0]``: all indices in one pair of brackets, for the second pair's at ``text[bracket]``."""
    start = max(text.rfind("\n", 0, bracket) + 1, bracket - 2 * _WIDEST)
    for chain in _CHAIN.finditer(text, start, bracket + 2 * _WIDEST):  # a bound on what a hostile text costs
        if chain.start() < bracket < chain.end() and len(chain.group()) <= _WIDEST:
            return "write " + _BETWEEN.sub(", ", chain.group())
        if chain.start() > bracket:
            break
    return "all indices stand in one pair of brackets, as in t[h, 0]"


def augmented_hint(text: str, operator: int, name: str) -> str | None:
    """``score += 3.0``: the assignment in full, for the operator at ``text[operator]``."""
    found = _AUGMENTED.match(text, operator)
    if not found:
        return None
    symbol, value = found.group(1), found.group(2).strip()
    opened, closed = (len(re.findall(brackets, value)) for brackets in (r"[(\[]", r"[)\]]"))
    if not value or len(value) > _WIDEST or opened != closed:
        value = "..."
    elif not _ATOM.fullmatch(value):
        value = f"({value})"
    return f"write {name} = {name} {symbol} {value}"


def infinity_hint(text: str, quote: int) -> str | None:
    """``float("-inf")``: the word, for the quotation mark at ``text[quote]``."""
    for found in _INFINITY.finditer(text, max(0, quote - _WIDEST), quote + _WIDEST):
        if found.start(1) == quote:
            return f"write {found.group(2).strip('+')}inf"
    return None


def def_hint(name: str, args: Collection[str]) -> str:
    """``def double(x): return 2 * x``: what a def is in a spec."""
    return flex_hint(name, args) or "a function is one line, as in def double(x) = 2 * x"


def flex_hint(name: str, args: Collection[str]) -> str | None:
    """``def score_mod(score, b, h, q_idx, kv_idx)``: FlexAttention's functions are lines; None for others."""
    found = _MOD.search(name)
    if not found and "q_idx" not in args:
        return None
    kind = "score" if (found.group(1) == "score" if found else "score" in args) else "mask"
    return f"there is no {kind}_mod: write lines such as {kind} = ..."
