"""What every part of the emitter shares: the plan, the names given so far, the writers of lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attngen.analysis.block_range import Range
from attngen.emit.host_expr import HostExpr
from attngen.emit.names import Names
from attngen.emit.statements import Block, Writer
from attngen.emit.triton_expr import TritonExpr
from attngen.ir.nodes import CORNERS, SIZES, AttentionIR, Expr, Op, leaves, mentions, postorder
from attngen.ir.types import Type
from attngen.plan.arithmetic import arithmetic
from attngen.plan.base2 import SCALE
from attngen.plan.far import Far
from attngen.plan.plan import Plan

_FIRST = ("dot", "weights", "q", "pos", "k", "b", "h", "h_kv", *CORNERS, "q_len", "k_len", *SIZES)
_LAST = "FAST_TANH"


@dataclass(frozen=True)
class Scope:
    """One variant on its way to text.

    ``kernel`` writes lines of a kernel (its expressions are ``triton``'s), ``host`` lines of the launcher.
    ``program_values`` are all values computed once a program, operands before users.
    """

    plan: Plan
    names: Names
    triton: TritonExpr
    kernel: Writer
    host: Writer
    program_values: tuple[Expr, ...]

    @property
    def ir(self) -> AttentionIR:
        return self.plan.ir

    @property
    def scale_by_head(self) -> bool:
        """Whether the kernels compute the scale themselves, since it may differ between heads."""
        return not self.plan.scale_on_host and not self.plan.scale_is_const

    def uniform(self, node: Expr) -> str:
        """The text of a value that is the same for a whole program: its name, or a constant."""
        return self.kernel.results([node], self.program_values).results[0]

    def uniform_names(self, node: Expr) -> tuple[str, ...]:
        """The names that ``uniform(node)`` reads."""
        return self.kernel.results([node], self.program_values).uses

    def parameters(self, names: Iterable[str]) -> tuple[str, ...]:
        """Names in the order of parameters: the score, places, corners, sizes, computed values, params."""
        params = {self.names.own(p.name): number for number, p in enumerate(self.ir.params)}

        def rank(name: str) -> tuple[int, int]:
            if name in _FIRST:
                return 0, _FIRST.index(name)
            if name in params:
                return 2, params[name]
            return (3 if name == _LAST else 1), 0

        return tuple(sorted(dict.fromkeys(names), key=rank))

    def program_block(self, *, with_far: bool = True) -> Block:
        """The lines of ``program_values``, after the scale where the kernels compute it.

        Without ``with_far``, none of what far tiles alone read.
        """
        far = () if with_far else far_values(self.plan.far)
        block = self.kernel.assignments([value for value in self.program_values if value not in far])
        if not self.scale_by_head:
            return block
        scale = self.kernel.results([self.ir.scale])
        lines = (*scale.lines, f"{SCALE.value} = {scale.results[0]}", *block.lines)
        uses = tuple(u for u in (*scale.uses, *block.uses) if u != SCALE.value)
        return Block(lines, (), uses, (*scale.defines, str(SCALE.value), *block.defines))


def make_scope(plan: Plan, template_texts: Iterable[str]) -> Scope:
    """Name the spec's inputs, params and sizes, and find what is computed once a program."""
    bounds = [e for loops in (plan.key_loops, plan.query_loops) for r in loops.ranges for e in ends(r)]
    if plan.key_loops.picks is not None and plan.key_loops.picks.may_keep is not None:
        bounds.append(plan.key_loops.picks.may_keep)
    logits = plan.logits
    roots = (*plan.ir.clauses, logits.tile, logits.factor, logits.derivative, *plan.weights.roots, *bounds)
    reads = [r for x in plan.learned for r in x.reads]
    roots += tuple(e for r in reads for e in (r.load, r.by_score, r.by_weight, r.by_sink) if e)
    roots += tuple(e for p in plan.products for e in (p.number, p.derivative))
    roots += (plan.keep,) if plan.is_masked else ()
    roots += () if plan.sink_log2 is None else (plan.sink_log2,)
    roots += () if plan.far is None else far_roots(plan)
    numbers = arithmetic(*roots, ir=plan.ir)
    names = Names(plan.ir, template_texts)
    for read in plan.far.reads if plan.far is not None else ():
        name = names.own(str(read.load.value))
        names.adopt(str(read.stand_in.value), f"{name}_far")
        for side, value in (("behind", read.behind), ("ahead", read.ahead)):
            if value is not None:
                names.wish(value, f"{name}_{side}")
    triton = TritonExpr(plan.ir, numbers, names, plan.joined.sum)
    kernel, host = Writer(triton, names), Writer(HostExpr(numbers.intervals, names), names)
    return Scope(plan, names, triton, kernel, host, _program_values(plan, bounds))


def _program_values(plan: Plan, bounds: Iterable[Expr]) -> tuple[Expr, ...]:
    logits = plan.logits
    uniform = [logits.factor, *([logits.derivative] if plan.derivative_is_uniform else [])]
    uniform += [p.number for p in plan.products]
    wanted = dict.fromkeys(u for u in uniform if u.args)
    wanted.update(dict.fromkeys((*plan.score_parts.program, *plan.mask_parts.program)))
    wanted.update(dict.fromkeys(far_values(plan.far)))
    # Loads leave the range functions, but for those that only they make.
    loads = (n for n in leaves(*bounds, op=Op.LOAD) if not mentions(n, *CORNERS))
    wanted.update(dict.fromkeys(loads))
    return tuple(node for node in postorder(*wanted) if node in wanted)


def far_roots(plan: Plan) -> tuple[Expr, ...]:
    """Every expression that stands in far tiles alone."""
    far = plan.far
    if far is None:
        return ()
    derivatives = (read.by_score for x in plan.learned for read in x.reads if read.by_score is not None)
    moved = (far.of(e) for e in (plan.logits.tile, plan.logits.derivative, *derivatives))
    return *moved, *far_values(far)


def far_values(far: Far | None) -> tuple[Expr, ...]:
    """What is loaded once a program for all far tiles on one side."""
    reads = far.reads if far is not None and far.is_split else ()
    return tuple(value for read in reads for value in (read.behind, read.ahead) if value is not None)


def ends(loop_range: Range) -> tuple[Expr, ...]:
    """The expressions of a loop's bounds."""
    bounds = [loop_range.possible, *([loop_range.certain] if loop_range.certain else [])]
    return tuple(e for b in bounds for e in (b.lo, b.hi) if e is not None)


def float_arguments(scope: Scope) -> tuple[str, ...]:
    """The float params, and the scale where the launcher computes it."""
    params = [scope.names.own(p.name) for p in scope.ir.params if p.type is Type.FLOAT]
    on_host = scope.plan.scale_on_host and not scope.plan.scale_is_const
    return (*params, *([str(SCALE.value)] if on_host else []))
