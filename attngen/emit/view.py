"""All that a template may read of a plan: finished lines, names and flags.

A template never walks the IR. What varies with the spec is decided in the plan and written out here; what
varies with the launch (tile shapes, head dimensions) is a ``tl.constexpr`` of the template.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, field
from typing import Any

from attngen.analysis.interval import interval_of
from attngen.analysis.rates import Rate, rate_of
from attngen.emit.docstring import call_docstring, module_docstring
from attngen.emit.host_expr import host_text
from attngen.emit.names import Names
from attngen.emit.statements import Block, Writer
from attngen.emit.triton_expr import HELPERS, TritonExpr
from attngen.ir.nodes import AttentionIR, Expr, Op, leaves, postorder
from attngen.ir.printer import print_clauses, print_expr
from attngen.ir.types import Scalar, Type
from attngen.plan.base2 import ONE
from attngen.plan.hoist import Hoisted
from attngen.plan.loops import Loop
from attngen.plan.plan import Plan

#: Stands for the module's own hash until the text is complete.
HASH_PLACE = "0123456789ab"

_SIZE_TEXT = {
    "batch": "q.shape[0]",
    "heads": "q.shape[1]",
    "kv_heads": "k.shape[1]",
    "q_len": "q.shape[2]",
    "k_len": "k.shape[2]",
    "head_dim": "q.shape[3]",
    "v_dim": "v.shape[3]",
}
_ALWAYS = ("heads", "kv_heads", "q_len", "k_len")  # arguments that every kernel has


@dataclass(frozen=True)
class Function:
    """A jitted function of the variant's maths."""

    name: str
    doc: str
    lines: tuple[str, ...]
    result: str
    uses: tuple[str, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(f"{u}: tl.constexpr" if u == "FAST_TANH" else u for u in self.uses)

    @property
    def call(self) -> str:
        return f"{self.name}({', '.join(self.uses)})"


@dataclass(frozen=True)
class RangeFunction(Function):
    """A jitted function that gives a tile's loop bounds."""

    block: str
    loop: Loop

    @property
    def has_left_edge(self) -> bool:
        return self.loop.has_left_edge

    @property
    def has_interior(self) -> bool:
        return self.loop.has_interior

    @property
    def interior_lo(self) -> str:
        return "full_lo" if self.loop.has_left_edge else "lo"

    @property
    def call(self) -> str:
        return f"{self.name}({', '.join([*self.uses, self.block])})"


@dataclass(frozen=True)
class Context:
    """The values that a loop takes from its kernel beside its tiles."""

    context: tuple[str, ...]

    @property
    def packed(self) -> str:
        return ", ".join(self.context) + ("," if len(self.context) == 1 else "")

    @property
    def unpacked(self) -> str:
        return self.packed


@dataclass(frozen=True)
class Gradient:
    """How the backward kernels get the logit and, where it varies, the score's derivative."""

    target: str
    call: str


@dataclass(frozen=True)
class InputView:
    name: str
    dtype: str
    dims: str


@dataclass(frozen=True)
class View:
    """The templates' whole world. Field names are what the templates call them."""

    name: str
    attention: str
    docstring: str
    call_doc: str
    helpers: frozenset[str]
    functions: tuple[Function, ...]
    ranges: tuple[RangeFunction, ...]
    key_range: RangeFunction
    query_range: RangeFunction
    logits: Function
    gradient: Gradient
    gain: str
    keep_keys: str
    keep_pairs: str
    times_factor: str
    program: tuple[str, ...]
    row_score: tuple[str, ...]
    row_mask: tuple[str, ...]
    column_score: tuple[str, ...]
    column_mask: tuple[str, ...]
    forward: Context
    dkdv: Context
    dq: Context
    uses_q: bool
    uses_k: bool
    uses_pos: bool
    uses_tanh: bool
    fast_tanh: bool
    has_dropout: bool
    clips: bool
    scale_by_head: bool
    scale_after: str
    scale_after_dk: str
    kernel_arguments: tuple[str, ...]
    unspecialized: str
    unspecialized_backward: str
    tiles: tuple[tuple[str, tuple[tuple[int, str], ...]], ...]
    inputs: tuple[InputView, ...]
    operator_names: tuple[str, ...]
    operator_arguments: tuple[tuple[str, str], ...]
    launch_arguments: tuple[str, ...]
    launch_sizes: tuple[tuple[str, str], ...]
    dropout_text: str
    host_math: bool
    host_float32: bool
    param_kinds: tuple[str, ...]
    param_checks: tuple[str, ...]
    public_parameters: tuple[str, ...]
    packed_inputs: str
    packed_call_params: str
    packed_params: str
    unpack_params: str
    hash: str = field(default=HASH_PLACE)


def make_view(plan: Plan, template_texts: Iterable[str]) -> View:
    """Write out every line and name of a plan."""
    return _Builder(plan, template_texts).view()


class _Builder:
    def __init__(self, plan: Plan, template_texts: Iterable[str]) -> None:
        self.plan = plan
        self.ir = plan.ir
        self.loops = (plan.key_loops[0], plan.query_loops[0])
        bounds = [e for loop in self.loops for e in _ends(loop)]
        logits = plan.logits
        roots = (*self.ir.clauses, logits.tile, logits.factor, logits.derivative, *bounds)
        self.names = Names(map(_code_of, template_texts), dict(self.ir.names))
        self.exprs = TritonExpr(self.ir, interval_of(*roots, ir=self.ir), self.names.own)
        self.writer = Writer(self.exprs, self.names)
        for item in (*self.ir.inputs, *self.ir.params):
            self.names.own(item.name)
        self.range_parts = _load_parts(bounds)

    def view(self) -> View:
        plan, ir = self.plan, self.ir
        program = self.program_block()
        row_score, row_mask, column_score, column_mask = self.vector_blocks()
        logits, both, keeps = self.logits_function(), self.gradient_function(), self.keeps_function()
        key_range = self.range_function("key_range", "BLOCK_N", "k_len", self.loops[0])
        query_range = self.range_function("query_range", "BLOCK_M", "q_len", self.loops[1])
        functions = tuple(f for f in (logits, both, keeps) if f is not None)
        blocks = (program, row_score, row_mask, column_score, column_mask)
        every = (*functions, key_range, query_range)
        has_dropout = ir.dropout is not None
        by_head = not plan.scale_on_host and not plan.scale_is_const
        scale = () if plan.scale_is_const else ("scale",)

        rows, columns = (row_score, row_mask), (column_score, column_mask)
        dropout = ("q", "k", "head", "seed", "threshold") if has_dropout else ()
        mask = keeps.uses if keeps else ()
        factor = self.uniform_names(plan.logits.factor)
        derivative = self.uniform_names(plan.logits.derivative) if plan.derivative_is_uniform else ()
        backward = both or logits
        in_backward = (*backward.uses, *mask, *factor, *derivative, *dropout, *(["kept_scale"] if has_dropout else []))
        local = {"dot", "k", "column", "k_len", "FAST_TANH", *_defines(columns)}
        local_transposed = local | {"q", "pos", "q_len", *_defines(rows)}

        uses = {*_uses(blocks), *(u for f in every for u in f.uses), *factor, *derivative, *dropout}
        own = self.own_arguments((uses | set(scale)) - _defines(blocks), on_host=plan.scale_on_host)
        unspecialized = [a.name for a in own if not a.specialized]
        after = self.scale_text()
        kept = [keeps.call] if keeps else []
        return View(
            name=ir.name,
            attention=self.names.fresh("run_attention"),
            docstring=module_docstring(plan),
            call_doc=call_docstring(plan),
            helpers=_helpers((*_lines(blocks), *(line for f in every for line in (*f.lines, f.result)))),
            functions=functions,
            ranges=(key_range, query_range),
            key_range=key_range,
            query_range=query_range,
            logits=logits,
            gradient=Gradient("logit, derivative" if both else "logit", backward.call),
            gain=self.gain_text(),
            keep_keys=" & ".join(["(column < k_len)", *kept]),
            keep_pairs=" & ".join(["(row < q_len)", "(column < k_len)", *kept]),
            times_factor="" if plan.logits.factor is ONE else f" * {self.uniform_text(plan.logits.factor)}",
            program=(*(["seed = tl.load(Seed)"] if has_dropout else []), *program.lines),
            row_score=row_score.lines,
            row_mask=row_mask.lines,
            column_score=column_score.lines,
            column_mask=column_mask.lines,
            forward=_context((*_uses(columns), *logits.uses, *mask, *factor, *dropout), local),
            dkdv=_context(
                (*_uses((*columns, *rows)), *in_backward, *(["scale"] if by_head else [])), local_transposed
            ),
            dq=_context((*_uses(columns), *in_backward), local),
            uses_q="q" in uses or "pos" in uses,
            uses_k="k" in uses,
            uses_pos="pos" in uses,
            uses_tanh="FAST_TANH" in uses,
            fast_tanh=plan.options.math == "approx",
            has_dropout=has_dropout,
            clips=any("clip(" in line for r in (key_range, query_range) for line in r.lines),
            scale_by_head=by_head,
            scale_after=after,
            scale_after_dk="" if by_head else after,
            kernel_arguments=tuple(a.name for a in own),
            unspecialized=_quoted([*_ALWAYS, *unspecialized]),
            unspecialized_backward=_quoted([*_ALWAYS, "padded", *unspecialized]),
            tiles=_tiles(plan),
            launch_arguments=tuple(dict.fromkeys(a.launch for a in own if a.launch)),
            launch_sizes=self.launch_sizes(),
            dropout_text=self.host(ir.dropout) if ir.dropout is not None else "",
            **self.call_fields(any(a.name == "scale" for a in own)),
        )

    # -- the variant's maths ---------------------------------------------------------------------------------

    @property
    def program_parts(self) -> tuple[Expr, ...]:
        """Everything that is computed once a program, operands before users."""
        logits = self.plan.logits
        uniform = [logits.factor, *([logits.derivative] if self.plan.derivative_is_uniform else [])]
        parts = {
            *(u for u in uniform if u.args),
            *self.plan.score_parts.program,
            *self.plan.mask_parts.program,
            *self.range_parts,
        }
        return tuple(node for node in postorder(*sorted(parts, key=repr)) if node in parts)

    def program_block(self) -> Block:
        block = self.writer.block(self.program_parts, assign=True)
        if self.plan.scale_on_host or self.plan.scale_is_const:
            return block
        scale = self.writer.block([self.ir.scale])
        lines = (*scale.lines, f"scale = {scale.results[0]}", *block.lines)
        uses = tuple(u for u in (*scale.uses, *block.uses) if u != "scale")
        return Block(lines, (), tuple(dict.fromkeys(uses)), (*scale.defines, "scale", *block.defines))

    def vector_blocks(self) -> tuple[Block, Block, Block, Block]:
        """Lines once a row and once a column: what the score needs, and what the mask needs beyond it."""
        score, mask = self.plan.score_parts, self.plan.mask_parts
        given = self.program_parts
        return (
            self.writer.block(score.row, given, assign=True),
            self.writer.block([p for p in mask.row if p not in score.row], (*given, *score.row), assign=True),
            self.writer.block(score.column, given, assign=True),
            self.writer.block(
                [p for p in mask.column if p not in score.column], (*given, *score.column), assign=True
            ),
        )

    def function(self, name: str, doc: str, roots: tuple[Expr, ...], parts: Hoisted, clauses: Iterable[str]) -> Function:
        given = set((*self.program_parts, *parts.row, *parts.column)) - set(roots)
        block = self.writer.block(roots, given)
        comments = [f"# {line}" for clause in clauses for line in clause.splitlines()]
        return Function(name, doc, (*comments, *block.lines), ", ".join(block.results), block.uses)

    def logits_function(self) -> Function:
        return self.function(
            "logits",
            "Scores of a tile in base 2" + ("." if self.plan.logits.factor is ONE else ", but for the factor that is the same in a program."),
            (self.plan.logits.tile,),
            self.plan.score_parts,
            self.clauses("score"),
        )

    def gradient_function(self) -> Function | None:
        logits = self.plan.logits
        if self.plan.derivative_is_uniform:
            return None
        return self.function(
            "logits_and_derivative",
            "The same, and the derivative of the score by scale * q.k.",
            (logits.tile, logits.derivative),
            self.plan.score_parts,
            self.clauses("score"),
        )

    def keeps_function(self) -> Function | None:
        if not self.plan.is_masked:
            return None
        doc = "Which scores of a tile count."
        return self.function("keeps", doc, (self.ir.mask,), self.plan.mask_parts, self.clauses("mask"))

    def clauses(self, kind: str) -> list[str]:
        """The printer's text of the clauses of one kind."""
        return [text for key, text in print_clauses(self.ir).items() if key.split("[")[0] == kind]

    def range_function(self, name: str, block: str, length: str, loop: Loop) -> RangeFunction:
        """Loop bounds in whole tiles, from the ends that the mask implies."""
        ends = _ends(loop)
        written = self.writer.block(ends, self.range_parts)
        texts = dict(zip(ends, written.results, strict=True))
        possible, certain = loop.range.possible, loop.range.certain
        lines = list(written.lines)
        lines.append("lo = 0" if possible.lo is None else f"lo = {_clip(possible.lo, texts, length)} // BLOCK * BLOCK")
        lines.append(f"hi = {length if possible.hi is None else _clip(possible.hi, texts, length)}")
        result = ["lo", "hi"]
        if certain is not None:
            end = length if certain.hi is None else _clip(certain.hi, texts, length)
            lines.append(f"full_hi = {end} // BLOCK * BLOCK")
            result = ["lo", "full_hi", "hi"]
            if certain.lo is not None:
                start = _clip(certain.lo, texts, length)
                lines.append(f"full_lo = tl.cdiv({start}, BLOCK) * BLOCK")
                lines.append("inside = full_lo < full_hi")
                lines.append("full_lo, full_hi = tl.where(inside, full_lo, lo), tl.where(inside, full_hi, lo)")
                result = ["lo", "full_lo", "full_hi", "hi"]
            elif possible.lo is not None:
                lines.append("full_hi = tl.maximum(full_hi, lo)")
        streamed, tiled = ("Keys", "queries") if name == "key_range" else ("Queries", "keys")
        doc = f"{streamed} that a tile of {tiled} visits, in whole tiles: [lo, hi)"
        if certain is not None:
            doc += f"; no mask in [{'full_lo' if certain.lo is not None else 'lo'}, full_hi)"
        uses = tuple(dict.fromkeys((*written.uses, length)))
        return RangeFunction(name, doc + ".", tuple(lines), ", ".join(result), uses, block, loop)

    def uniform_text(self, node: Expr) -> str:
        """A value that is the same for a whole program, as the kernels name it."""
        return self.names.part(node) if node.args else self.exprs.text(node, []).text

    def uniform_names(self, node: Expr) -> tuple[str, ...]:
        return () if node.op is Op.CONST else (self.uniform_text(node),)

    def gain_text(self) -> str:
        """P times the score's derivative, or "" where that is 1. Where P is 0 the derivative may be infinite."""
        if self.plan.logits.is_linear:
            return ""
        if self.plan.derivative_is_uniform:
            return f"weights * {self.uniform_text(self.plan.logits.derivative)}"
        return "tl.where(weights > 0.0, weights * derivative, 0.0)"

    def scale_text(self) -> str:
        if not self.plan.scale_is_const:
            return "scale"
        return "" if self.ir.scale.value == 1.0 else repr(self.ir.scale.value)

    # -- the launch ------------------------------------------------------------------------------------------

    def own_arguments(self, uses: set[str], *, on_host: bool) -> list[Argument]:
        """The variant's arguments of every kernel, in order, each with what the launcher passes."""
        own: list[Argument] = []
        for item in self.ir.inputs:
            name = self.names.own(item.name)
            if f"{name}_ptr" not in uses:
                continue
            dims = ", ".join(str(d) if isinstance(d, int) else self.size_text(d) for d in item.dims)
            shape = f"({dims},)" if len(item.dims) == 1 else f"({dims})"
            own.append(Argument(f"{name}_ptr", name, True))
            last = len(item.dims) - 1
            strides = f"*input_strides({name}, {shape})"
            own += [Argument(f"{name}_stride_{i}", strides, i == last) for i in range(len(item.dims))]
        named = {self.names.own(s): s for s in (*_SIZE_TEXT, *self.run_time_sizes())}
        own += [Argument(n, self.size_text(s), False) for n, s in named.items() if n in uses and n not in _ALWAYS]
        own += [Argument(n, n, False) for n in map(self.names.own, self.param_names()) if n in uses]
        if self.ir.dropout is not None:
            own += [Argument("Seed", "seed", True)]
            own += [Argument(n, n, False) for n in ("threshold", "kept_scale")]
        if on_host and "scale" in uses:
            own.append(Argument("scale", self.host(self.ir.scale), False))
        return own

    def run_time_sizes(self) -> tuple[str, ...]:
        names = (d for i in self.ir.inputs for d in i.dims if isinstance(d, str) and d not in _SIZE_TEXT)
        return tuple(dict.fromkeys(names))

    def size_text(self, name: str) -> str:
        return _SIZE_TEXT.get(name) or self.names.own(name)

    def launch_sizes(self) -> tuple[tuple[str, str], ...]:
        """Run-time sizes as the launcher reads them: from every input that has them, since one may be 1."""
        sizes = []
        for size in self.run_time_sizes():
            places = [
                f"{self.names.own(i.name)}.shape[{axis}]"
                for i in self.ir.inputs
                for axis, dim in enumerate(i.dims)
                if dim == size
            ]
            sizes.append((self.names.own(size), places[0] if len(places) == 1 else f"max({', '.join(places)})"))
        return tuple(sizes)

    def param_names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.ir.params)

    def host(self, expr: Expr) -> str:
        return host_text(expr, self.size_text, self.names.own)

    def call_fields(self, scale_on_host: bool) -> dict[str, Any]:
        """Everything about the Python call: signatures, checks, the operator's schema."""
        ir, own = self.ir, self.names.own
        inputs = tuple(own(i.name) for i in ir.inputs)
        params = tuple(own(p.name) for p in ir.params)
        seed = ("seed",) if ir.dropout is not None else ()
        names = ("q", "k", "v", *inputs, *seed, *params)
        kinds = {own(p.name): p.type.value for p in ir.params}
        host = [e for e in (ir.dropout, ir.scale if scale_on_host else None) if e is not None]
        checks = [f'{n} = {kinds[n]}_param("{p.name}", {n})' for n, p in zip(params, ir.params, strict=True)]
        checks += [line for e in _divisors(ir.clauses) for line in self.divisor_check(e)]
        return {
            "inputs": tuple(InputView(i.name, i.dtype, repr(i.dims)) for i in ir.inputs),
            "operator_names": names,
            "operator_arguments": tuple((n, kinds.get(n, "torch.Tensor")) for n in names),
            "host_math": any(n.op in (Op.SQRT, Op.RSQRT, Op.FLOOR) for n in postorder(*host)),
            "host_float32": any(p.type is Type.FLOAT for p in leaves(*host, op=Op.PARAM)),
            "param_kinds": tuple(dict.fromkeys(kinds.values())),
            "param_checks": tuple(checks),
            "public_parameters": tuple(_public(ir)),
            "packed_inputs": _tuple(i.name for i in ir.inputs),
            "packed_call_params": _tuple(p.name for p in ir.params),
            "packed_params": _tuple(params),
            "unpack_params": f"{_tuple(params)[1:-1]} = params" if params else "",
        }

    def divisor_check(self, divisor: Expr) -> list[str]:
        text = self.host(divisor)
        spec = print_expr(divisor, self.ir)
        return [f"if {text} == 0:", f'    raise ValueError("{spec} is 0, and the spec divides by it")']


@dataclass(frozen=True)
class Argument:
    """One argument of the kernels, the launcher's text for it, and whether Triton may specialise on it.

    A text that begins with ``*`` gives several arguments at once and stands once.
    """

    name: str
    launch: str
    specialized: bool


def _ends(loop: Loop) -> tuple[Expr, ...]:
    """The expressions of a loop's bounds."""
    bounds = [loop.range.possible, *([loop.range.certain] if loop.range.certain else [])]
    return tuple(e for b in bounds for e in (b.lo, b.hi) if e is not None)


def _load_parts(bounds: Iterable[Expr]) -> tuple[Expr, ...]:
    """The loads of a program that its loop bounds read."""
    return tuple(dict.fromkeys(leaves(*bounds, op=Op.LOAD)))


def _clip(end: Expr, texts: dict[Expr, str], length: str) -> str:
    if end.op is Op.CONST and end.value == 0:
        return "0"
    return f"clip({texts[end]}, {length})"


def _context(names: Iterable[str], local: set[str]) -> Context:
    return Context(tuple(n for n in dict.fromkeys(names) if n not in local))


def _uses(blocks: Iterable[Block]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(u for b in blocks for u in b.uses))


def _defines(blocks: Iterable[Block]) -> set[str]:
    return {d for b in blocks for d in b.defines}


def _lines(blocks: Iterable[Block]) -> tuple[str, ...]:
    return tuple(line for b in blocks for line in b.lines)


def _helpers(lines: Iterable[str]) -> frozenset[str]:
    called = {name for line in lines for name in re.findall(r"(?<![.\w])(\w+)\(", line)}
    return frozenset(called & set(HELPERS))


def _quoted(names: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{n}"' for n in names) + "]"


def _tuple(names: Iterable[str]) -> str:
    names = tuple(names)
    return f"({', '.join(names)}{',' if len(names) == 1 else ''})"


def _public(ir: AttentionIR) -> Iterator[str]:
    yield from (i.name for i in ir.inputs)
    for p in ir.params:
        yield p.name if p.default is None else f"{p.name}={_number(p.default)}"


def _number(value: Scalar) -> str:
    return repr(value) if math.isfinite(value) else f'float("{value}")'


def _divisors(clauses: Iterable[Expr]) -> tuple[Expr, ...]:
    """Integer divisors that only params and sizes decide: the call can refuse a zero."""
    found = (n.args[1] for n in postorder(*clauses) if n.op in (Op.FLOORDIV, Op.MOD))
    return tuple(dict.fromkeys(d for d in found if rate_of(d) is Rate.LAUNCH and any(leaves(d, op=Op.PARAM))))


def _tiles(plan: Plan) -> tuple[tuple[str, tuple[tuple[int, str], ...]], ...]:
    return tuple(
        (target, tuple((width, repr(tuple(astuple(t) for t in tiles))) for width, tiles in rows.items()))
        for target, rows in plan.tiles.items()
    )


def _code_of(template: str) -> str:
    """A template without its comments and docstrings, whose words take no names."""
    return re.sub(r'\{#.*?#\}|""".*?"""|#[^\n]*', "", template, flags=re.DOTALL)
