"""Random well-typed specs, as text: what the compiler must turn into a kernel that matches its reference.

Values stay tame on purpose (bounded terms, small slopes): a spec that overflows float16 in exact arithmetic
says nothing about a kernel. ``floor``, ``int`` and comparisons are never given the score, whose last bits
differ between any two correct implementations.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

#: The declarations that a drawn term may call for, by the name it uses.
_DECLARATIONS = {
    "slopes": "input slopes: float32[heads]",
    "table": "input table: float32[heads, 8] grad",
    "bias": "input bias: float32[batch, heads, q_len, k_len] grad",
    "doc": "input doc: int32[batch, k_len] sorted",
    "tag": "input tag: int64[n]",
    "prefix": "input prefix: int32[batch]",
    "open_head": "input open_head: bool[heads]",
    "turned": "input turned: float16[batch, heads, q_len, rank] grad",
    "shared": "input shared: bfloat16[batch, k_len, rank] grad",
    "place": "input place: float32[heads, q_len, 6]",
    "anchor": "input anchor: float16[k_len, kv_heads, 6]",
    "mixer": "input mixer: float16[kv_heads, 4]",
    "gate": "input gate: float32[batch, heads, q_len] grad",
    "offset": "input offset: float32[heads] grad",
    "sinks": "input sinks: float32[heads] grad",
    "cap": "param cap: float = 5.0",
    "slope": "param slope: float = 0.05",
    "reach": "param reach: int = 9",
    "flipped": "param flipped: bool = False",
    "p": "param p: float = 0.2",
    "stride": "const stride: int = 4",
    "width": "const width: int = 12",
}


class _Writer:
    """Draws terms and remembers what they need declared."""

    def __init__(self, draw: st.DrawFn, learned: bool) -> None:
        self._draw = draw
        self._learned = learned
        self.used: dict[str, None] = {}
        self.bound: list[str] = []

    def pick(self, options: Sequence[str]) -> str:
        return self._draw(st.sampled_from(list(options)))

    def chance(self, one_in: int) -> bool:
        return self._draw(st.integers(1, one_in)) == one_in

    def need(self, name: str) -> str:
        self.used[name] = None
        return name

    def int_term(self, depth: int) -> str:
        leaf = self.pick(["dist", "q", "k", "pos", "h", "b", "h_kv", "k_len", "7", "stride", "doc", "tag"])
        if leaf in ("doc", "tag", "stride"):
            self.need(leaf)
        leaf = {"doc": f"doc[b, {self.pick(['k', 'pos'])}]", "tag": "tag[k]"}.get(leaf, leaf)
        if depth == 0 or self.chance(2):
            return leaf
        x, y = self.int_term(depth - 1), self.int_term(depth - 1)
        kind = self.pick(["+", "-", "%", "//", "abs", "min", "clamp", "where", "product", "zero"])
        if kind in "+-":
            return f"({x} {kind} {y})"
        if kind in ("%", "//"):
            return f"({x} {kind} {self.pick(['3', self.need('stride'), '16'])})"
        return {
            "abs": f"abs({x})",
            "min": f"{self.pick(['min', 'max'])}({x}, {y})",
            "clamp": f"clamp({x}, -3, 20)",
            "product": f"{x} * 3",
            "zero": f"({x} // ({y} % 3))",  # by zero now and then: gives 0
            "where": f"where({x} < {y}, {x}, {y})",
        }[kind]

    def float_term(self, depth: int) -> str:
        """A term without the score, a few units large at most."""
        kind = self.pick(
            ["sin", "slope", "ratio", "table", "bias", "mixer", "decay", "choice", "sum", "floor", "root"]
        )
        x = self.int_term(depth)
        if kind in ("table", "bias") and not self._learned:
            kind = "mixer"
        if kind == "sin":
            return f"{self.pick(['sin', 'cos'])}(0.1 * float({x}))"
        if kind == "slope":
            return f"{self.need('slope')} * {self.pick(['dist', 'k', 'abs(dist)'])}"
        if kind == "ratio":
            return f"1 / (1 + abs({x}))"
        if kind == "table":
            return f"{self.need('table')}[h, {x}]"
        if kind == "bias":
            return f"{self.need('bias')}[b, h, q, k]"
        if kind == "mixer":
            return f"{self.need('mixer')}[h_kv, {x}]"
        if kind == "decay":
            return f"exp(-0.1 * abs({x}))"
        if kind == "floor":
            return f"floor(0.13 * clamp({x}, -20, 20))"
        if kind == "root":
            return f"sqrt(0.5 + clamp({x}, 0, 20))"
        if depth == 0:
            return "0.25"
        if kind == "choice":
            return f"({self.float_term(depth - 1)} if {self.bool_term(0)} else {self.float_term(depth - 1)})"
        return f"({self.float_term(depth - 1)} {self.pick('+-*')} tanh({self.float_term(depth - 1)}))"

    def bool_term(self, depth: int) -> str:
        if depth == 0 or self.chance(3):
            leaf = self.pick(
                ["causal", "window", "prefix", "same", "compare", "open_head", "flipped", "float"]
            )
            if leaf in ("prefix", "open_head", "flipped"):
                self.need(leaf)
            if leaf == "same":
                self.need("doc")
            if leaf == "compare":
                return (
                    f"{self.int_term(1)} {self.pick(['<', '<=', '==', '!=', '>', '>='])} {self.int_term(1)}"
                )
            if leaf == "window":
                return f"0 <= dist < {self.need(self.pick(['width', 'reach']))}"
            if leaf == "float":
                return f"{self.float_term(0)} < 0.4"
            return {
                "prefix": "k < prefix[b]",
                "same": "doc[b, pos] == doc[b, k]",
                "open_head": "open_head[h]",
            }.get(leaf, leaf)
        x, y = self.bool_term(depth - 1), self.bool_term(depth - 1)
        return {"and": f"({x} and {y})", "or": f"({x} or {y})", "not": f"not ({x})"}[
            self.pick(["and", "and", "or", "not"])
        ]

    def product(self) -> str:
        """A product of two inputs' rows, a few units large at most."""
        if self._learned and self.chance(2):
            return f"dot({self.need('turned')}[b, h, q], {self.need('shared')}[b, k])"
        return f"dot({self.need('anchor')}[k, h_kv], {self.need('place')}[h, q])"

    def score_term(self) -> str:
        """A new score from the running one."""
        kind = self.pick(
            [
                "add",
                "slopes",
                "cap",
                "scale",
                "choice",
                "clamp",
                "over",
                "square",
                "gate",
                "least",
                "negate",
                "product",
            ]
        )
        if kind == "product":
            return f"score {self.pick('+-')} {self.pick(['0.3', self.need('slope')])} * {self.product()}"
        if kind == "slopes":
            return f"score - {self.need('slopes')}[h] * abs(dist)"
        if kind == "cap":
            return self.pick(["softcap(score, {0})", "{0} * tanh(score / {0})"]).format(self.need("cap"))
        x = self.float_term(1)
        return {
            "add": f"score {self.pick('+-')} {x}",
            "scale": f"score * {self.pick(['0.5', '1.5', '-1.0'])}",
            "choice": f"where({self.bool_term(1)}, score, 0.5 * score + {x})",
            "clamp": "clamp(score, -4.0, 4.0)",
            "over": f"score / (1.0 + abs({x}))",
            "square": "score + 0.02 * score ** 2",
            "gate": "score * sigmoid(score)",
            "least": f"{self.pick(['min', 'max'])}(score, {x})",
            "negate": "-score",
        }[kind]

    def normalization(self) -> str:
        """What stands for the softmax."""
        biases = ["-log(k_len)", "-2.0", "0.5", "slope"]
        biases += ["offset[h]"] if self._learned else []
        bias = self.pick(biases)
        if bias in ("slope", "offset[h]"):
            self.need(bias.partition("[")[0])
        return self.pick([f"sigmoid({bias})", "relu"])

    def weight_term(self) -> str:
        """A new weight from the normalised one: with one pass over the keys or with two."""
        kind = self.pick(["factor", "factor", "gate", "square", "shift", "clip", "mix", "root"])
        if kind == "gate" and not self._learned:
            kind = "factor"
        x = self.float_term(1)
        return {
            "factor": f"weight * {x}",
            "gate": "weight * sigmoid(gate[b, h, q])",
            "square": f"weight ** {self.pick('23')} * {self.pick(['4.0', f'({x})'])}",
            "shift": f"weight + 0.1 * {x}",
            "clip": "clamp(1.1 * weight - 0.02, 0.0, 1.0)",
            "mix": "0.7 * weight + 0.3 * tanh(4.0 * weight)",
            "root": "sqrt(weight + 0.05) - 0.1",
        }[self.need(kind) if kind == "gate" else kind]


def specs(
    *, sinks: bool = True, dropout: bool = True, learned: bool = True, weights: bool = True
) -> st.SearchStrategy[str]:
    """The text of a random variant named ``drawn``: scores, a mask, lets, params, consts and inputs.

    ``sinks``, ``dropout``, ``learned`` (``grad`` inputs) and ``weights`` (the clauses ``normalize`` and
    ``weight``) False leave those features out.
    """

    @st.composite
    def draw_spec(draw: st.DrawFn) -> str:
        write = _Writer(draw, learned)
        body = []
        for number in range(draw(st.integers(0, 2))):
            if write.chance(3):
                body.append(f"let near{number} = {write.float_term(1)}")
                body.append(f"score = score + near{number} * near{number}")
            if write.chance(4):
                body.append(f"def bend{number}(x, y) = x + 0.1 * tanh(x - y)")
                body.append(f"score = bend{number}(score, {write.float_term(0)})")
            body.append(f"score = {write.score_term()}")
        if write.chance(2):
            body.append(f"mask = {write.bool_term(2)}")
        if write.chance(4):
            body.append(f"scale = {write.pick(['0.3', '2.0 / head_dim', '0.1 + 0.01 * heads'])}")
        has_softmax = True
        if weights and write.chance(4):
            has_softmax = False
            body.append(f"normalize = {write.normalization()}")
        if weights and write.chance(4):
            body.append(f"weight = {write.weight_term()}")
        if sinks and has_softmax and write.chance(4):
            body.append(f"sink = {write.need('sinks')}[h]")
        if dropout and write.chance(4):
            body.append(f"dropout = {write.need('p')}")
        declared = [_DECLARATIONS[name] for name in _DECLARATIONS if name in write.used]
        return "\n".join(["variant drawn", *declared, *body]) + "\n"

    return draw_spec()
