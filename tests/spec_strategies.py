"""Random well-typed spec text for the tests of the front end: every operator, with lets, defs and inputs."""

from __future__ import annotations

from functools import cache

from hypothesis import strategies as st

DECLARATIONS = """variant random
const n: int = 3
const c: float = 0.5
param p: float = -1e-30
param m: int
input t: float32[heads, extra] grad
input doc: int32[batch, k_len] sorted
input flag: bool[]
input u: float16[batch, heads, q_len, rank] grad
input w: bfloat16[kv_heads, k_len, rank]
def twice(x) = x + x
def mix(x, y) = x * y - twice(y)
"""

_INT_LEAVES = ["q", "k", "pos", "dist", "h", "b", "n", "m", "extra", "q_len", "0", "7", "-3", "doc[b, k]"]
_FLOAT_LEAVES = ["p", "c", "t[h, k]", "1e-30", "-0.0", "2.5", "-inf", "1.0e38", ".5", "t[h, doc[b, k]]"]
_PRODUCT = "dot(u[b, h, q], w[h_kv, k])"  # where the score may stand, and nowhere else
_BOOL_LEAVES = ["True", "False", "flag", "causal", "sliding_window(n)", "q < k"]


def _calls(names: str, *operands: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    parts = st.tuples(*operands).map(", ".join)
    return st.builds("{}({})".format, st.sampled_from(names.split()), parts)


def _binary(ops: str, x: st.SearchStrategy[str], y: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds("({}) {} ({})".format, x, st.sampled_from(ops.split()), y)


@cache
def expressions(kind: str, extra: tuple[str, ...] = (), depth: int = 3) -> st.SearchStrategy[str]:
    """An expression of ``kind`` ("int", "float" or "bool"); ``extra`` are more float leaves, as score."""
    leaves = {
        "int": _INT_LEAVES,
        "float": [*_FLOAT_LEAVES, *extra, *[_PRODUCT] * bool(extra)],
        "bool": _BOOL_LEAVES,
    }[kind]
    if depth == 0:
        return st.sampled_from(leaves)
    ints, floats, bools = (expressions(k, extra, depth - 1) for k in ("int", "float", "bool"))
    numbers = st.one_of(ints, floats)
    if kind == "int":
        choices = [
            _binary("+ - * // %", ints, st.sampled_from(["q", "k", "4", "dist", "m"])),
            _calls("abs floor twice -", ints),
            _calls("min max mix", ints, ints),
            _calls("clamp", ints, ints, ints),
            _calls("where", bools, ints, ints),
            _calls("int", floats),
            _calls("int", bools),
            st.builds("({}) ** 3".format, ints),
        ]
    elif kind == "float":
        choices = [
            _binary("+ - *", floats, numbers),
            _binary("+ - *", numbers, floats),
            _binary("/", numbers, st.sampled_from(["p", "2.0", "m", "t[h, 1]"])),
            _binary("// %", floats, st.sampled_from(["p", "2.0", "m"])),
            _calls("tanh sigmoid", numbers),
            _calls("abs floor twice -", floats),
            _calls("min max mix", floats, numbers),
            _calls("where", bools, floats, numbers),
            _calls("clamp", numbers, floats, numbers),
            _calls("float", ints),
            st.builds(
                "({}) ** {}".format,
                st.sampled_from(["p", "score", "q"]),
                st.sampled_from(["2.0", "-2.0", "0.5"]),
            ),
        ]
        if not extra:
            choices[-1] = st.builds("p ** {}".format, st.sampled_from(["2", "-3", "-0.5", "0"]))
    else:
        choices = [
            _binary("< <= > >= == !=", numbers, numbers),
            _binary("== != and or", bools, bools),
            _calls("not", bools),
            st.builds("({}) <= ({}) < ({})".format, ints, ints, numbers),
            st.builds("({}) if ({}) else ({})".format, bools, bools, bools),
        ]
    return st.one_of(st.sampled_from(leaves), *choices)


@st.composite
def specs(draw: st.DrawFn) -> str:
    """A spec whose only possible mistakes are constants without a value (as ``1e38 * 1e38``)."""
    lines = [DECLARATIONS.rstrip()]
    lets: tuple[str, ...] = ()
    for i in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            name = draw(st.sampled_from(["raw", "near", "total"])) + str(i)
            lines.append(f"let {name} = {draw(expressions('float', ('score', *lets)))}")
            lets += (name,)
        lines.append(f"score = {draw(expressions('float', ('score', *lets)))}")
    if draw(st.booleans()):
        lines.append(f"mask = {draw(expressions('bool'))}")
    if draw(st.booleans()):
        lines.append("scale = p / sqrt(head_dim) + n; dropout = p * c")
        ways = [
            "sink = t[h, b]",
            "normalize = sigmoid(t[h, b] - log(m))",
            "normalize = relu",
            "normalize = softmax",
        ]
        lines.append(draw(st.sampled_from(ways)))
    if draw(st.booleans()):
        lines.append(
            f"weight = {draw(expressions('float', ('weight', *(['weight'] * 3))))}".replace("score", "weight")
        )
    return "\n".join(lines) + "\n"
