"""AST → IR: names and types.

    const n: int = 8
    let near = dist < 2 * n          →   mask: (and (<= 0 (- pos k)) (< (- pos k) 16))
    mask = causal and near

Consts become their values, lets and defs what they stand for. Every mistake of the file is collected, each
with the place of the smallest expression that is wrong, and raised together; a passed bound stops at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cache

from attngen import resources
from attngen.errors import (
    AttnGenError,
    SpecErrors,
    SpecLimitError,
    SpecNameError,
    SpecTypeError,
    SpecValueError,
)
from attngen.ir import operators as ops
from attngen.ir.fold import INT32, FoldError, check, folded
from attngen.ir.nodes import (
    POSITIONS,
    SCORE,
    SIZES,
    TRUE,
    AttentionIR,
    Expr,
    Input,
    Normalize,
    Op,
    Param,
    const,
    load,
    param,
    postorder,
    size,
    vector,
    word,
)
from attngen.ir.operators import BUILTINS, Mistake
from attngen.ir.scope import (
    CALL_NAMES,
    DIST,
    LOAD_NAMES,
    WORDS,
    Entity,
    Frame,
    Function,
    Tensor,
    Value,
    kind_of,
    reserved,
    unusable,
)
from attngen.ir.types import DTYPES, SCALARS, Scalar, Type, type_of
from attngen.ir.vectors import Misfit, pair_misfit, vector_misfit
from attngen.ir.verify import MAX_NODES, verify
from attngen.source import Source, Span
from attngen.syntax import ast
from attngen.syntax.habits import flex_hint
from attngen.syntax.parse import CLAUSES, parse_statements

MAX_STEPS = 50_000
MAX_DIM = 2**30

DEFAULT_SCALE = folded(Op.DIV, const(1.0), folded(Op.SQRT, folded(Op.TO_FLOAT, word("head_dim"))))

# What other languages of attention call a word.
_QUERY, _KEY = "a query's index is q, and its place among the keys pos", "a key's index is k"
_OTHER_NAMES = {
    "q_idx": _QUERY,
    "kv_idx": _KEY,
    "k_idx": _KEY,
    "b_idx": "an index of the batch is b",
    "batch_idx": "an index of the batch is b",
    "h_idx": "a head's index is h",
    "head_idx": "a head's index is h",
    "None": "there is no None: leave the line out",
    "true": "write True",
    "false": "write False",
}

# How a name of each role comes to be known.
_DECLARED = {
    "value": "declare a number as 'param {0}: float', a line of maths as 'let {0} = ...'",
    "input": "declare a tensor as 'input {0}: float32[...]'",
    "function": "",
}

_HEAD_WORDS = ("b", "h", "h_kv")
_COMBINE = {
    "scale": "multiply them: scale = a * b",
    "mask": "combine them with 'and': mask = a and b",
    "normalize": "scores become weights in one way",
    "weight": "combine them: weight = weight * a * b",
    "sink": "combine them: sink = log(exp(a) + exp(b))",
    "dropout": "combine them: dropout = 1 - (1 - a) * (1 - b)",
}


def build(spec: ast.Spec, source: Source, overrides: Mapping[str, Scalar] | None = None) -> AttentionIR:
    """The typed IR of ``spec``; ``overrides`` replace the values of its consts.

    Raises one of SpecNameError, SpecTypeError, SpecValueError and SpecLimitError, or SpecErrors with all of
    them, each located in ``source``.
    """
    builder = _Builder(source, overrides or {})
    builder.run(spec)
    builder.raise_errors()
    ir = builder.result(spec)
    verify(ir)
    return ir


@cache
def prelude() -> Mapping[str, Entity]:
    """The standard words. Built once."""
    source = Source(resources.prelude_text(), "prelude.attn")
    builder = _Builder(source, {}, names={})
    for statement in parse_statements(source):
        assert isinstance(statement, ast.Let | ast.Def), "the prelude holds lets and defs only"
        builder.statement(statement)
    builder.raise_errors()
    return {
        name: Function(e.definition, e.scope, prelude=True) if isinstance(e, Function) else e
        for name, e in builder.names.items()
    }


class _Builder:
    """The state of one build: what names mean so far, the clauses so far, the mistakes so far."""

    def __init__(
        self, source: Source, overrides: Mapping[str, Scalar], names: Mapping[str, Entity] | None = None
    ) -> None:
        self.source = source
        self.overrides = overrides
        self.standard = prelude() if names is None else names
        # A let of the prelude is a word that every def sees; one of a spec is not.
        self.let_kind = "let" if names is None else "word"
        self.names: dict[str, Entity] = {}
        self.later: dict[str, Span] = {}
        self.errors: dict[tuple[Span, str], AttnGenError] = {}
        self.spans: dict[str, Span] = {}
        self.reads: dict[Expr, tuple[Span, ...]] = {}
        self.let_names: dict[Expr, str] = {}
        self.consts: dict[str, Scalar] = {}
        self.params: list[Param] = []
        self.inputs: list[Input] = []
        self.clauses: dict[str, Expr] = {}
        self.normalize = Normalize.SOFTMAX
        self.weightless: set[Expr] = set()  # parts of scores that are known not to hold the weight
        self.scores: list[Expr] = []
        self.score: Expr = SCORE
        self.steps = 0
        self.depth = 0
        self.calls: dict[tuple[object, ...], Expr | None] = {}
        # What each part of the current statement became, innermost first, and whether it is in an index.
        self.built: list[tuple[Span, Expr, bool]] = []
        self.in_index = 0

    # --- mistakes --------------------------------------------------------------------------------------

    def error(
        self,
        kind: type[AttnGenError],
        message: str,
        span: Span,
        hint: str | None = None,
        frame: Frame | None = None,
    ) -> None:
        """Note a mistake. In a def's body, say where the call stands."""
        if frame and frame.function and frame.call:
            if frame.function.prelude:
                message, span = f"in {frame.function.signature}: {message}", frame.call
            elif frame.call.line != span.line:
                message += f" (in the call at line {frame.call.line})"
        self.errors.setdefault((span, message), kind(message, source=self.source, span=span, hint=hint))

    def raise_errors(self) -> None:
        found = sorted(self.errors.values(), key=lambda e: (e.line or 0, e.column or 0))
        if len(found) == 1:
            raise found[0]
        if found:
            raise SpecErrors(found)

    def limit(self, message: str, span: Span, hint: str | None = None) -> SpecLimitError:
        return SpecLimitError(message, source=self.source, span=span, hint=hint)

    # --- statements ------------------------------------------------------------------------------------

    def run(self, spec: ast.Spec) -> None:
        self.spans["variant"] = spec.name.span
        why = unusable(spec.name.text)
        if why:
            self.error(SpecNameError, f"{why}, so no variant has that name", spec.name.span)
        for statement in spec.statements:
            if not isinstance(statement, ast.Clause):
                self.later.setdefault(statement.name.text, statement.name.span)
        for statement in spec.statements:
            self.statement(statement)
        self._check_denominator()
        known = [s.name.text for s in spec.statements if isinstance(s, ast.Const)]
        for name in self.overrides:
            if name not in known:
                self._no_such_const(str(name), known, spec)
        self._count_nodes(spec)

    def _no_such_const(self, name: str, known: list[str], spec: ast.Spec) -> None:
        """A setting that fits no const; of a param or an input, it says where that is given instead."""
        for given in spec.statements:
            if isinstance(given, ast.Param | ast.Input) and given.name.text == name:
                what = "a param" if isinstance(given, ast.Param) else "an input"
                problem = f"{name!a} is {what}, which a call is given: only a const can be set beforehand"
                hint = f"call {spec.name.text}(q, k, v, {name}=...), or declare a const"
                self.error(SpecNameError, problem, given.name.span, hint)
                return
        problem = f"there is no const {name!a} to set"
        self.error(SpecNameError, problem, spec.name.span, _nearest(name, known))

    def statement(self, statement: ast.Statement) -> None:
        self.built.clear()
        match statement:
            case ast.Const():
                self._const(statement)
            case ast.Param():
                self._param(statement)
            case ast.Input():
                self._input(statement)
            case ast.Let():
                self._let(statement)
            case ast.Def():
                self._def(statement)
            case ast.Clause():
                self._clause(statement)

    def _declare(self, name: ast.Ident, what: str, entity: Entity) -> None:
        text, problem, hint = name.text, reserved(name.text), None
        if text in self.names:
            problem = f"'{text}' is already defined at line {self.names[text].span.line}"
            hint = "every name is defined once"
        elif what in ("input", "param") and text in CALL_NAMES:
            problem = f"'{text}' is an argument of every variant's call"
        elif what == "const" and text in LOAD_NAMES:
            problem = f"'{text}' is an argument of attngen.load"
        if problem:
            self.error(SpecNameError, problem, name.span, hint or "choose another name")
        if text in self.names:
            return
        self.names[text] = entity
        if text in self.standard:
            self.spans[f"shadow {text}"] = name.span

    def _const(self, statement: ast.Const) -> None:
        name, kind = statement.name.text, self._type(statement.type)
        value: Scalar | None = self._constant(statement.value, f"the value of const '{name}'")
        span = statement.value.span
        if name in self.overrides:
            value, span = _plain(self.overrides[name]), statement.name.span
            if value is None:
                given = type(self.overrides[name]).__name__
                self.error(SpecTypeError, f"const '{name}' cannot be set to a {given}", span)
        if value is not None and kind is not None:
            value = self._converted(value, kind, f"const '{name}'", span)
        expr = const(value) if value is not None and kind is not None else None
        self._declare(statement.name, "const", Value("const", expr, statement.name.span))
        self.spans[f"const {name}"] = statement.span
        if value is not None and kind is not None:
            self.consts.setdefault(name, value)

    def _param(self, statement: ast.Param) -> None:
        name, kind, default = statement.name.text, self._type(statement.type), None
        if statement.default is not None:
            default = self._constant(statement.default, f"the default of param '{name}'")
            if default is not None and kind is not None:
                default = self._converted(default, kind, f"param '{name}'", statement.default.span)
            if type(default) is int and not INT32[0] <= default <= INT32[1]:
                self.error(
                    SpecValueError,
                    f"param '{name}' is an int32; {default} does not fit",
                    statement.default.span,
                )
        self._declare(
            statement.name, "param", Value("param", param(name, kind) if kind else None, statement.name.span)
        )
        self.spans[f"param {name}"] = statement.span
        if kind is not None:
            self.params.append(Param(name, kind, default))

    def _type(self, name: ast.Ident) -> Type | None:
        kinds = {t.value: t for t in SCALARS}
        if name.text not in kinds:
            hint = _nearest(name.text, kinds) or "a type is int, float or bool"
            self.error(SpecTypeError, f"unknown type '{name.text}'", name.span, hint)
        return kinds.get(name.text)

    def _converted(self, value: Scalar, kind: Type, what: str, span: Span) -> Scalar | None:
        """``value`` as ``kind``: an int becomes a float, and nothing else changes."""
        if type_of(value) is Type.INT and kind is Type.FLOAT:
            try:
                value = float(value)
            except OverflowError:
                value = float("nan")
        if type_of(value) is not kind:
            self.error(SpecTypeError, f"{what} is declared {kind.value}, but its value is {value!r}", span)
            return None
        try:
            return check(value)
        except FoldError as error:
            self.error(SpecValueError, f"{what}: {error}", span)
            return None

    def _input(self, statement: ast.Input) -> None:
        name, dtype = statement.name.text, statement.dtype.text
        kind = DTYPES.get(dtype)
        if kind is None:
            hint = _nearest(dtype, DTYPES) or "a dtype is " + ", ".join(DTYPES)
            self.error(SpecTypeError, f"unknown dtype '{dtype}'", statement.dtype.span, hint)
        dims = [self._dim(d) for d in statement.dims]
        flags: dict[str, Span] = {}
        for flag in statement.flags:
            if flag.text not in ("grad", "sorted"):
                hint = _nearest(flag.text, ("grad", "sorted")) or "after the dims stand 'grad' or 'sorted'"
                self.error(SpecNameError, f"unknown property '{flag.text}'", flag.span, hint)
            elif flag.text in flags:
                self.error(SpecNameError, f"'{flag.text}' stands twice", flag.span)
            flags.setdefault(flag.text, flag.span)
        if "grad" in flags and kind not in (None, Type.FLOAT):
            self.error(
                SpecTypeError, f"only a float input has a gradient; '{name}' is {dtype}", flags["grad"]
            )
        if "sorted" in flags and kind not in (None, Type.INT):
            self.error(SpecTypeError, f"only an int input is sorted; '{name}' is {dtype}", flags["sorted"])
        if "sorted" in flags and not dims:
            self.error(SpecTypeError, "a scalar has no order", flags["sorted"])
        sound = [d for d in dims if d is not None]
        tensor = None
        if kind is not None and len(sound) == len(dims):
            tensor = Input(name, dtype, tuple(sound), "grad" in flags, "sorted" in flags)
            self.inputs.append(tensor)
        self._declare(statement.name, "input", Tensor(tensor, statement.name.span))
        self.spans[f"input {name}"] = statement.span

    def _dim(self, node: ast.Expr) -> int | str | None:
        if isinstance(node, ast.Name):
            entity = self.names.get(node.name)
            if node.name in SIZES or (isinstance(entity, Value) and entity.kind == "size"):
                return node.name
            if entity is None and node.name not in WORDS and node.name not in self.later:
                self._declare(
                    ast.Ident(node.name, node.span), "size", Value("size", size(node.name), node.span)
                )
                return node.name
        value = self._constant(node, "a dim")
        if value is None:
            return None
        if type_of(value) is not Type.INT:
            self.error(SpecTypeError, f"a dim is an int, not {value!r}", node.span)
        elif not 1 <= value <= MAX_DIM:
            self.error(SpecValueError, f"a dim is between 1 and 2**30, not {value}", node.span)
        else:
            return int(value)
        return None

    def _let(self, statement: ast.Let) -> None:
        name, value = statement.name.text, self._expr(statement.value)
        self._declare(statement.name, "let", Value(self.let_kind, value, statement.name.span))
        self.spans.setdefault(f"let {name}", statement.span)
        # A bare constant or word keeps its own name in the output.
        if value is not None and value is not DIST and (value.args or value.op is Op.LOAD):
            self.let_names.setdefault(value, name)

    def _def(self, statement: ast.Def) -> None:
        seen: set[str] = set()
        hint = flex_hint(statement.name.text, [argument.text for argument in statement.params])
        words = [argument for argument in statement.params if hint and argument.text in WORDS]
        if words:
            names = _listed(list(dict.fromkeys(word.text for word in words)))
            message = f"{names} {'are words' if ' ' in names else 'is a word'} of the language"
            self.error(SpecNameError, message, words[0].span, hint)
        for argument in statement.params:
            why = None if argument in words else reserved(argument.text)
            if argument.text in seen:
                why = f"the argument '{argument.text}' stands twice"
            if why:
                self.error(SpecNameError, why, argument.span, "choose another name")
            seen.add(argument.text)
        before = len(self.errors)
        scope: dict[str, Entity] = {}
        self._resolve(statement, statement.body, seen, scope)
        sound = len(self.errors) == before
        self._declare(statement.name, "def", Function(statement, scope if sound else None))

    def _resolve(self, definition: ast.Def, node: ast.Expr, args: set[str], scope: dict[str, Entity]) -> None:
        """Bind the free names of a def's body to what they mean at its line."""
        uses: list[tuple[str, Span, str]] = []
        match node:
            case ast.Name():
                uses.append((node.name, node.span, "value"))
            case ast.Call():
                uses.append((node.function.text, node.function.span, "function"))
            case ast.Index():
                uses.append((node.base.text, node.base.span, "input"))
        for name, span, role in uses:
            if role == "value" and name in args:
                continue
            if name == definition.name.text and name not in args:
                self.error(SpecNameError, f"'{name}' calls itself", span, "a def cannot recurse")
                continue
            entity = self._lookup(name, span, role, Frame(self.names, dict.fromkeys(args, SCORE)))
            if isinstance(entity, Value) and entity.kind == "let":
                hint = "give it as an argument"
                self.error(SpecNameError, f"'{name}' is a let, which no def sees", span, hint)
            elif isinstance(entity, Value | Tensor | Function):
                scope[name] = entity
                if isinstance(entity, Function) and isinstance(node, ast.Call):
                    self._check_arity(entity, node)
            elif isinstance(node, ast.Call) and name in BUILTINS:
                self._check_builtin_arity(node)
        for child in _children(node):
            self._resolve(definition, child, args, scope)

    # --- clauses ---------------------------------------------------------------------------------------

    def _clause(self, statement: ast.Clause) -> None:
        name = statement.name.text
        if name in self.clauses:
            first = self.spans[name].line
            self.error(
                SpecNameError, f"'{name}' already stands at line {first}", statement.name.span, _COMBINE[name]
            )
        if name == "normalize":
            value = self._normalize(statement.value)
        else:
            value = self._expr(statement.value)
        is_expression = name != "normalize" or self.normalize is Normalize.SIGMOID
        if value is not None and is_expression:
            value = self._typed_clause(name, value, statement.value.span)
        if name == "score":
            if value is not None:
                self._check_words(name, value)
            self.spans[f"score[{len(self.scores)}]"] = statement.span
            if value is not None:
                self.score = value
            self.scores.append(self.score)
            return
        self.spans.setdefault(name, statement.span)
        if value is not None:
            self._check_words(_USER.get(name, name), value)
        self.clauses.setdefault(name, value if value is not None else TRUE)

    def _normalize(self, node: ast.Expr) -> Expr | None:
        """The sigmoid's bias, or TRUE where the normalisation is another: what names it is no expression."""
        match node:
            case ast.Name("softmax" | "relu" as name):
                self.normalize = Normalize(name)
                return TRUE
            case ast.Call(ast.Ident("sigmoid"), (bias,)):
                self.normalize = Normalize.SIGMOID
                return self._expr(bias)
            case ast.Name(name, span) | ast.Call(ast.Ident(name, span)):
                hint = {
                    "sigmoid": "write sigmoid(bias), as in sigmoid(-log(k_len)); sigmoid(0.0) adds nothing",
                    "softmax": "write softmax alone; its argument is the score",
                    "relu": "write relu alone; its argument is the score",
                }.get(name, _nearest(name, [n.value for n in Normalize]))
            case _:
                span, hint = node.span, None
        self.error(SpecNameError, "the scores are normalised by softmax, sigmoid(bias) or relu", span, hint)
        return None

    def _check_denominator(self) -> None:
        """That a sink has a denominator to join."""
        if "sink" in self.clauses and self.normalize is not Normalize.SOFTMAX:
            message = f"a sink joins the softmax's denominator, and {self.normalize.value} has none"
            self.error(SpecNameError, message, self.spans["sink"], "leave out the sink or 'normalize'")

    def _typed_clause(self, name: str, value: Expr, span: Span) -> Expr | None:
        if name == "mask":
            if value.type is not Type.BOOL:
                self.error(
                    SpecTypeError,
                    f"the mask is a bool, not {_a(value.type)}",
                    span,
                    "compare it, as in 'x > 0'",
                )
                return None
            return value
        if value.type is Type.BOOL:
            hint = "where(x, a, b) chooses by a bool" if name == "score" else None
            name = _USER.get(name, name)
            self.error(SpecTypeError, f"the {name} is a number, not a bool", span, hint)
            return None
        value = ops.as_float(value)
        if name == "dropout" and value.op is Op.CONST and not 0 <= float(str(value.value)) <= 1:
            self.error(SpecValueError, f"dropout is a probability, between 0 and 1, not {value.value}", span)
        return value

    def _check_words(self, name: str, value: Expr) -> None:
        """That the clause uses only what it may; the first part that does not is shown."""
        may = _MAY_USE[name]
        # What earlier parts have shown to hold nothing forbidden; of scores, every line's.
        sound: set[Expr] = self.weightless if name == "score" else set()
        outside: set[Expr] = set()  # the same, of what stands outside indices
        for span, part, in_index in self.built:
            if in_index and name == "dropout":
                continue  # the input itself is what dropout cannot use
            for leaf in reversed(_unseen(part, sound)):
                wrong = _forbidden(name, leaf)
                if wrong:
                    self.error(SpecNameError, f"the {name} cannot use {wrong}", span, may)
                    return
            if name in _BY_HEAD and not in_index:
                words = _outside_indices(part, outside)
                exposed = next((w for w in words if w.value in _HEAD_WORDS), None)
                if exposed is not None:
                    message = f"the {name} uses '{exposed.value}' only as the index of an input"
                    self.error(SpecNameError, message, span, may)
                    return

    def _count_nodes(self, spec: ast.Spec) -> None:
        scores = iter(self.scores)
        clauses = [s for s in spec.statements if isinstance(s, ast.Clause)]
        roots = [next(scores) if c.name.text == "score" else self.clauses[c.name.text] for c in clauses]
        given = [] if "scale" in self.clauses else [DEFAULT_SCALE]
        number = {node: i for i, node in enumerate(postorder(*given, *roots), 1)}  # one walk, line by line
        for clause, root in zip(clauses, roots, strict=True):
            if number[root] > MAX_NODES:
                message = f"a spec is at most {MAX_NODES:,} nodes once defs are inlined"
                raise self.limit(message, clause.name.span)

    def result(self, spec: ast.Spec) -> AttentionIR:
        return AttentionIR(
            name=spec.name.text,
            scale=self.clauses.get("scale", DEFAULT_SCALE),
            score=tuple(self.scores),
            mask=self.clauses.get("mask", TRUE),
            normalize=self.normalize,
            bias=self.clauses.get("normalize") if self.normalize is Normalize.SIGMOID else None,
            weight=self.clauses.get("weight"),
            sink=self.clauses.get("sink"),
            dropout=self.clauses.get("dropout"),
            params=tuple(self.params),
            inputs=tuple(self.inputs),
            consts=tuple(self.consts.items()),
            doc=spec.doc,
            names=self.let_names,
            spans=self.spans,
            reads=self.reads,
        )

    # --- expressions -----------------------------------------------------------------------------------

    def _constant(self, node: ast.Expr, what: str) -> Scalar | None:
        self.built.clear()
        value = self._expr(node)
        if value is None:
            return None
        if value.op is Op.CONST:
            assert not isinstance(value.value, str | None)
            return value.value
        span = next(span for span, part, _ in self.built if part.op is not Op.CONST)
        self.error(SpecTypeError, f"{what} is not constant", span, "it may use consts and literals")
        return None

    def _expr(self, node: ast.Expr, frame: Frame | None = None) -> Expr | None:
        """What ``node`` means, or None where a mistake in it has been noted."""
        frame = frame or Frame(self.names)
        self.steps += 1
        self.depth += 1
        place = frame.call or node.span
        if self.steps > MAX_STEPS:
            raise self.limit(f"the defs expand to more than {MAX_STEPS:,} steps", place)
        if self.depth > ast.MAX_DEPTH:
            message = f"the expression, with its defs inlined, is nested deeper than {ast.MAX_DEPTH} levels"
            raise self.limit(message, place, "name a part of it with 'let'")
        try:
            value = self._node(node, frame)
        finally:
            self.depth -= 1
        if frame.call is None and value is not None:
            self.built.append((node.span, value, self.in_index > 0))
        return value

    def _node(self, node: ast.Expr, frame: Frame) -> Expr | None:
        match node:
            case ast.Literal():
                return self._make(lambda: const(check(node.value)), node.span, frame)
            case ast.Name():
                return self._name(node, frame)
            case ast.Call():
                return self._call(node, frame)
            case ast.Index():
                return self._index(node, frame)
            case ast.Unary():
                x = self._expr(node.operand, frame)
                blame = node.operand.span
                return (
                    None if x is None else self._make(lambda: ops.unary(node.op, x), node.span, frame, blame)
                )
            case ast.Power():
                base, exponent = self._expr(node.base, frame), self._expr(node.exponent, frame)
                if base is None or exponent is None:
                    return None
                blame = node.base.span if base.type is Type.BOOL else node.exponent.span
                return self._make(lambda: ops.power(base, exponent), node.span, frame, blame)
            case ast.Arithmetic():
                return self._from_left(node, frame)
            case ast.Compare():
                return self._compare(node, frame)
            case ast.Logic():
                return self._logic(node, frame)
            case ast.Conditional():
                parts = (node.condition, node.chosen, node.other)
                return self._choose([self._expr(p, frame) for p in parts], parts, node.span, "'if'", frame)

    def _make(
        self, action: Callable[[], Expr], span: Span, frame: Frame, blame: Span | None = None
    ) -> Expr | None:
        """``action()``; a mistake is noted at ``blame`` (types) or ``span`` (values)."""
        try:
            return action()
        except Mistake as mistake:
            self.error(SpecTypeError, mistake.message, blame or span, mistake.hint, frame)
        except FoldError as error:
            self.error(SpecValueError, str(error), span, None, frame)
        return None

    def _from_left(self, node: ast.Arithmetic, frame: Frame) -> Expr | None:
        values = [self._expr(o, frame) for o in node.operands]
        if None in values:
            self._refuse_bools(node, values, frame)
            return None
        result = values[0]
        for i, (op, y) in enumerate(zip(node.ops, values[1:], strict=True), 1):
            if result is None or y is None:
                return None
            x, first, second = result, node.operands[0].span, node.operands[i].span
            blame = first if x.type is Type.BOOL else second
            whole = Span(first.line, first.column, second.end_line, second.end_column)
            result = self._make(lambda o=op, x=x, y=y: ops.arithmetic(o, x, y), whole, frame, blame)  # type: ignore[misc]
        return result

    def _refuse_bools(self, node: ast.Arithmetic, values: list[Expr | None], frame: Frame) -> None:
        """Note each operand that no neighbour could make right, where one of them is a mistake already."""
        for op, value, part in zip((node.ops[0], *node.ops), values, node.operands, strict=True):
            if value is not None and value.type is Type.BOOL:
                self._make(lambda o=op, x=value: ops.arithmetic(o, x, x), part.span, frame)  # type: ignore[misc]

    def _compare(self, node: ast.Compare, frame: Frame) -> Expr | None:
        values = [self._expr(o, frame) for o in node.operands]
        result: Expr | None = None
        for i, op in enumerate(node.ops):
            x, y = values[i], values[i + 1]
            if x is None or y is None:
                return None
            bad = node.operands[i if x.type is Type.BOOL else i + 1].span
            pair = self._make(lambda o=op, x=x, y=y: ops.compare(o, x, y), node.span, frame, bad)  # type: ignore[misc]
            if pair is None:
                return None
            result = pair if result is None else ops.logic("and", result, pair)
        return result

    def _logic(self, node: ast.Logic, frame: Frame) -> Expr | None:
        values = [self._expr(o, frame) for o in node.operands]
        for operand, value in zip(node.operands, values, strict=True):
            if value is not None and value.type is not Type.BOOL:
                message = f"'{node.op}' takes bools, not {_a(value.type)}"
                self.error(SpecTypeError, message, operand.span, "compare it, as in 'x != 0'", frame)
        sound = [v for v in values if v is not None and v.type is Type.BOOL]
        if len(sound) < len(values):
            return None
        result = sound[0]
        for value in sound[1:]:
            result = ops.logic(node.op, result, value)
        return result

    def _choose(
        self, values: list[Expr | None], parts: tuple[ast.Expr, ...], span: Span, what: str, frame: Frame
    ) -> Expr | None:
        condition, chosen, other = values
        if condition is None or chosen is None or other is None:
            if condition is not None and condition.type is not Type.BOOL:
                self._make(lambda: ops.choose(condition, TRUE, TRUE, what), span, frame, parts[0].span)
            return None
        bad = (
            parts[0]
            if condition.type is not Type.BOOL
            else parts[1]
            if chosen.type is Type.BOOL
            else parts[2]
        )
        return self._make(lambda: ops.choose(condition, chosen, other, what), span, frame, bad.span)

    # --- names -----------------------------------------------------------------------------------------

    def _lookup(self, name: str, span: Span, role: str, frame: Frame) -> Entity | Expr | str | None:
        """What ``name`` means, if it means something of that role ("value", "function" or "input")."""
        found: Entity | Expr | str | None = frame.args.get(name)
        if found is None or role == "function":
            found = frame.names.get(name) or found
        if found is None:
            found = WORDS.get(name) or (name if name in BUILTINS else None) or self.standard.get(name)
        if found is None:
            self._unknown(name, span, role, frame)
            return None
        problem = _misuse(name, found, role)
        if problem:
            self.error(SpecTypeError, *problem[:1], span, problem[1], frame)
            return None
        return found

    def _unknown(self, name: str, span: Span, role: str, frame: Frame) -> None:
        if name in self.later:
            message = f"'{name}' is used before its definition at line {self.later[name].line}"
            self.error(SpecNameError, message, span, "move the definition up", frame)
            return
        if name in CLAUSES:
            self.error(SpecNameError, f"'{name}' is a clause, which no expression reads", span, None, frame)
            return
        pool: dict[str, Entity | Expr | str] = {n: n for n in BUILTINS}
        pool.update(self.standard)
        pool.update(WORDS)
        pool.update(frame.names)
        pool.update(frame.args)
        fitting = [n for n, e in pool.items() if _misuse(n, e, role) is None] + list(self.later)
        hint = _OTHER_NAMES.get(name) or _nearest(name, fitting) or _DECLARED[role].format(name) or None
        self.error(SpecNameError, f"unknown name '{name}'", span, hint, frame)

    def _name(self, node: ast.Name, frame: Frame) -> Expr | None:
        found = self._lookup(node.name, node.span, "value", frame)
        if isinstance(found, Tensor):
            tensor = found.input
            if tensor is None:
                return None
            return load(tensor.name, DTYPES[tensor.dtype], ())
        if isinstance(found, Value):
            return found.expr
        if isinstance(found, Expr):
            return self.score if node.name == "score" and node.name not in frame.args else found
        return None

    def _index(self, node: ast.Index, frame: Frame) -> Expr | None:
        self.in_index += 1
        try:
            indices = [self._expr(i, frame) for i in node.indices]
        finally:
            self.in_index -= 1
        sound: list[Expr] = []
        for part, index in zip(node.indices, indices, strict=True):
            if index is not None and index.type is not Type.INT:
                message = f"an index is an int, not {_a(index.type)}"
                self.error(SpecTypeError, message, part.span, "int(x) rounds toward zero", frame)
            elif index is not None:
                sound.append(index)
        found = self._lookup(node.base.text, node.base.span, "input", frame)
        if not isinstance(found, Tensor) or found.input is None:
            return None
        tensor = found.input
        if len(indices) != len(tensor.dims):
            expected = _count(len(tensor.dims), "index", "indices")
            shape = ", ".join(map(str, tensor.dims))
            message = f"'{tensor.name}' has the dims [{shape}] and takes {expected}, not {len(indices)}"
            self.error(SpecTypeError, message, node.span, None, frame)
            return None
        if len(sound) < len(indices):
            return None
        element = load(tensor.name, DTYPES[tensor.dtype], tuple(sound))
        self.reads.setdefault(element, tuple(part.span for part in node.indices))
        return element

    def _dot(self, node: ast.Call, frame: Frame) -> Expr | None:
        """``dot(x[...], y[...])``: the one place where an input is read without its last index."""
        pairs = [self._vector(part, frame) for part in node.args]
        vectors = [v for v, _ in filter(None, pairs)]
        tensors = [t for _, t in filter(None, pairs)]
        if not self._check_builtin_arity(node, frame) or len(vectors) < len(pairs):
            return None
        misfit = pair_misfit(tensors[0], tensors[1], (vectors[0], vectors[1]))
        if misfit:
            self.error(SpecTypeError, misfit.message, node.span, misfit.hint, frame)
            return None
        return BUILTINS["dot"][2](*vectors)

    def _vector(self, node: ast.Expr, frame: Frame) -> tuple[Expr, Input] | None:
        if not isinstance(node, ast.Index):
            hint = "as in dot(a[b, h, q], c[b, h_kv, k]), which sums over the last dimension of both"
            self.error(SpecTypeError, "'dot' takes rows of inputs", node.span, hint, frame)
            return None
        self.in_index += 1
        try:
            found_indices = [self._expr(i, frame) for i in node.indices]
        finally:
            self.in_index -= 1
        found = self._lookup(node.base.text, node.base.span, "input", frame)
        indices = [i for i in found_indices if i is not None]
        if not isinstance(found, Tensor) or found.input is None or len(indices) < len(found_indices):
            return None
        misfit: Misfit | None = vector_misfit(found.input, indices)
        if misfit:
            span = node.span if misfit.place is None else node.indices[misfit.place].span
            self.error(SpecTypeError, misfit.message, span, misfit.hint, frame)
            return None
        return vector(found.input.name, tuple(indices)), found.input

    def _call(self, node: ast.Call, frame: Frame) -> Expr | None:
        if node.function.text == "dot" and "dot" not in frame.names:
            return self._dot(node, frame)
        values = [self._expr(a, frame) for a in node.args]
        name = node.function.text
        found = self._lookup(name, node.function.span, "function", frame)
        if isinstance(found, Function):
            if not self._check_arity(found, node, frame) or found.scope is None:
                return None
            sound = [v for v in values if v is not None]
            return self._inline(found, sound, node.span, frame) if len(sound) == len(values) else None
        if not isinstance(found, str) or not self._check_builtin_arity(node, frame):
            return None
        sound = [v for v in values if v is not None]
        if len(sound) < len(values):
            return None
        if name == "where":
            return self._choose(values, node.args, node.span, "'where'", frame)
        bad = next((a.span for a, v in zip(node.args, sound, strict=True) if v.type is Type.BOOL), node.span)
        return self._make(lambda: BUILTINS[name][2](*sound), node.span, frame, bad)

    def _inline(self, function: Function, values: list[Expr], span: Span, frame: Frame) -> Expr | None:
        # One result for each (def, arguments, running score): text that doubles at each level stays cheap.
        key = (function.definition, *values, self.score)
        if key not in self.calls:
            args = {p.text: v for p, v in zip(function.definition.params, values, strict=True)}
            blamed = frame.function if frame.function and frame.function.prelude else function
            inner = Frame(function.scope or {}, args, frame.call or span, blamed)
            self.calls[key] = self._expr(function.definition.body, inner)
        return self.calls[key]

    def _check_arity(self, function: Function, node: ast.Call, frame: Frame | None = None) -> bool:
        want, got = len(function.definition.params), len(node.args)
        if want != got:
            message = f"{function.signature} takes {_count(want, 'argument', 'arguments')}, not {got}"
            self.error(SpecTypeError, message, node.span, None, frame)
        return want == got

    def _check_builtin_arity(self, node: ast.Call, frame: Frame | None = None) -> bool:
        name, got = node.function.text, len(node.args)
        fewest, most, _ = BUILTINS[name]
        if got < fewest or (most is not None and got > most):
            wanted = _count(fewest, "argument", "arguments") if most else f"{fewest} or more arguments"
            self.error(SpecTypeError, f"'{name}' takes {wanted}, not {got}", node.span, None, frame)
            return False
        return True


#: What the value of a clause is called, where that is not the clause's own word.
_USER = {"normalize": "bias of the sigmoid"}

#: What is one number a head.
_BY_HEAD = ("scale", "sink", "bias of the sigmoid")

_MAY_USE = {
    "score": "it may use everything else; 'weight = ...' changes what the normalisation made of the scores",
    "weight": "it may use every other word, and inputs",
    "bias of the sigmoid": "it may use consts, params, sizes, and inputs indexed by b, h and h_kv",
    "mask": "it may use every other word, and inputs",
    "scale": "it may use consts, params, sizes, and inputs indexed by b, h and h_kv",
    "sink": "it may use consts, params, sizes, and inputs indexed by b, h and h_kv",
    "dropout": "it may use consts, params and sizes",
}


_EVERYWHERE = ("mask", "weight")  # clauses with a value for every score


def _forbidden(clause: str, leaf: Expr) -> str | None:
    """What ``leaf`` is, if ``clause`` can never use it."""
    if leaf.op is Op.WEIGHT and clause != "weight":
        return "the weight"
    if clause == "score":
        return None
    if leaf.op is Op.SCORE:
        return "the score"
    if leaf.op is Op.DOT:
        return "a product of rows, dot(...)"
    if clause not in _EVERYWHERE and leaf is DIST:
        return "'dist'"
    if clause == "dropout" and leaf.op is Op.LOAD:
        return f"the input '{leaf.value}'"
    if clause in _EVERYWHERE or leaf.op is not Op.WORD or leaf.value not in POSITIONS:
        return None
    if leaf.value in _HEAD_WORDS and clause != "dropout":
        return None
    return f"'{leaf.value}'"


def _unseen(root: Expr, seen: set[Expr]) -> list[Expr]:
    """The nodes under ``root`` that are not in ``seen``, operands before users; ``seen`` then has them."""
    order: list[Expr] = []
    stack = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((arg, False) for arg in reversed(node.args))
    return order


def _outside_indices(root: Expr, seen: set[Expr]) -> Iterable[Expr]:
    """The words of ``root`` that do not stand inside an index, but for those below nodes in ``seen``."""
    stack = [root]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op is Op.WORD:
            yield node
        elif node.op is not Op.LOAD:
            stack.extend(node.args)


def _misuse(name: str, found: Entity | Expr | str, role: str) -> tuple[str, str | None] | None:
    """Why ``name`` cannot be used in that role, and what to write instead; None where it can."""
    match found:
        case Function():
            what, use = "a function", found.signature
            right = role == "function"
        case str():
            what, use, right = "a function", f"{name}(...)", role == "function"
        case Tensor():
            dims = found.input.dims if found.input else ()
            what, use = "an input", f"{name}[{', '.join(map(str, dims))}]" if dims else name
            right = found.input is None or (role == "input" if dims else role == "value")
        case Value():
            what, use, right = kind_of(found), name, role == "value"
        case _:
            what, use, right = "a value", name, role == "value"
    if right:
        return None
    message = {"function": "is not a function", "input": "has no indices", "value": "is not a value"}[role]
    if isinstance(found, Tensor) and role == "value":
        dims = found.input.dims if found.input else ()
        return (
            f"the input '{name}' needs {_count(len(dims), 'index', 'indices')}",
            f"its dims are {use.removeprefix(name)}",
        )
    return (
        f"'{name}' is {what} and {message}"
        if what != "a function" or role != "value"
        else f"'{name}' is a function",
        f"write {use}",
    )


def _children(node: ast.Expr) -> tuple[ast.Expr, ...]:
    match node:
        case ast.Call():
            return node.args
        case ast.Index():
            return node.indices
        case ast.Unary():
            return (node.operand,)
        case ast.Power():
            return (node.base, node.exponent)
        case ast.Arithmetic() | ast.Compare() | ast.Logic():
            return node.operands
        case ast.Conditional():
            return (node.chosen, node.condition, node.other)
        case _:
            return ()


def _plain(given: object) -> Scalar | None:
    """A caller's value as Python's own bool, int or float (its subclasses print otherwise), or None."""
    for kind in (bool, int, float):
        if isinstance(given, kind):
            return kind(given)
    return None


def _nearest(name: str, known: Iterable[str]) -> str | None:
    close = get_close_matches(name, list(known), 1)
    return f"did you mean '{close[0]}'?" if close else None


def _listed(names: list[str]) -> str:
    """'a', 'b' and 'c'."""
    quoted = [f"'{name}'" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _a(kind: Type) -> str:
    return "an int" if kind is Type.INT else f"a {kind.value}"


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"
