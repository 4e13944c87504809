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
from attngen.plan.arithmetic import arithmetic
from attngen.plan.base2 import SCALE
from attngen.plan.plan import Plan

_FIRST = ("dot", "q", "pos", "k", "b", "h", "h_kv", *CORNERS, "q_len", "k_len", *SIZES)
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

    def program_block(self) -> Block:
        """The lines of ``program_values``, after the scale where the kernels compute it."""
        block = self.kernel.assignments(self.program_values)
        if not self.scale_by_head:
            return block
        scale = self.kernel.results([self.ir.scale])
        lines = (*scale.lines, f"{SCALE.value} = {scale.results[0]}", *block.lines)
        uses = tuple(u for u in (*scale.uses, *block.uses) if u != SCALE.value)
        return Block(lines, (), uses, (*scale.defines, str(SCALE.value), *block.defines))


def make_scope(plan: Plan, template_texts: Iterable[str]) -> Scope:
    """Name the spec's inputs, params and sizes, and find what is computed once a program."""
    bounds = [e for loops in (plan.key_loops, plan.query_loops) for r in loops.ranges for e in ends(r)]
    logits = plan.logits
    roots = (*plan.ir.clauses, logits.tile, logits.factor, logits.derivative, *bounds)
    roots += tuple(e for x in plan.learned for r in x.reads for e in (r.load, r.by_score, r.by_sink) if e)
    roots += tuple(e for p in plan.products for e in (p.number, p.derivative))
    roots += () if plan.sink_log2 is None else (plan.sink_log2,)
    numbers = arithmetic(*roots, ir=plan.ir)
    names = Names(plan.ir, template_texts)
    triton = TritonExpr(plan.ir, numbers, names, plan.joined.sum)
    kernel, host = Writer(triton, names), Writer(HostExpr(numbers.intervals, names), names)
    return Scope(plan, names, triton, kernel, host, _program_values(plan, bounds))


def _program_values(plan: Plan, bounds: Iterable[Expr]) -> tuple[Expr, ...]:
    logits = plan.logits
    uniform = [logits.factor, *([logits.derivative] if plan.derivative_is_uniform else [])]
    uniform += [p.number for p in plan.products]
    wanted = dict.fromkeys(u for u in uniform if u.args)
    wanted.update(dict.fromkeys((*plan.score_parts.program, *plan.mask_parts.program)))
    # Loads leave the range functions, but for those that only they make.
    loads = (n for n in leaves(*bounds, op=Op.LOAD) if not mentions(n, *CORNERS))
    wanted.update(dict.fromkeys(loads))
    return tuple(node for node in postorder(*wanted) if node in wanted)


def ends(loop_range: Range) -> tuple[Expr, ...]:
    """The expressions of a loop's bounds."""
    bounds = [loop_range.possible, *([loop_range.certain] if loop_range.certain else [])]
    return tuple(e for b in bounds for e in (b.lo, b.hi) if e is not None)
