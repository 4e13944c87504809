"""What a spec probably does not mean: valid, but worth a warning.

    mask = 0 <= dist < 0                ->  empty-rows: no row sees any key
    mask = causal or dist < -8          ->  future-keys: keys after the query can be seen although ...
    input a: float32[kv_heads] ... a[h] ->  wrong-heads: ... kv_heads is indexed by h; h_kv runs over it

Each lint is a function in ``LINTS`` from the variant to its findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from attngen.analysis.block_range import Bound, key_ranges
from attngen.analysis.interval import certainly, interval_of
from attngen.analysis.linear import Sums
from attngen.analysis.simplify import simplify
from attngen.analysis.walk import fresh
from attngen.ir.nodes import AttentionIR, Expr, Op, make, postorder, substitute, word
from attngen.ir.types import Type
from attngen.source import Span

_EXP_OVERFLOWS = 88.72  # float32


@dataclass(frozen=True)
class Lint:
    """One warning. ``code`` names its kind for good; ``span`` is None where no line is to blame."""

    code: str
    message: str
    span: Span | None = None

    def __str__(self) -> str:
        place = f"{self.span.line}:{self.span.column}: " if self.span else ""
        return f"{place}warning: {self.message} [{self.code}]"


def lint(ir: AttentionIR) -> list[Lint]:
    """All warnings of a variant, in the order of the spec's lines."""
    found = [one for check in LINTS for one in check(ir)]
    return sorted(dict.fromkeys(found), key=lambda one: one.span.line if one.span else 0)


def empty_rows(ir: AttentionIR) -> Iterator[Lint]:
    """mask = 0 <= dist < 0: no row sees any key, whatever the call."""
    mask = simplify(ir.mask)
    seen = _rows(mask, ir)
    if certainly(interval_of(mask, ir=ir)[mask]) is False or all(_is_empty(bound, ir) for bound in seen):
        yield Lint("empty-rows", "no row sees any key: the mask is never true", ir.spans.get("mask"))


def _rows(mask: Expr, ir: AttentionIR) -> list[Bound]:
    """The keys that a single query may see."""
    corners = {word("q_first"): word("q"), word("q_last"): word("q")}
    bounds = [r.possible for r in key_ranges(mask, ir.inputs)]
    return [Bound(*(None if e is None else substitute(e, corners) for e in (b.lo, b.hi))) for b in bounds]


def _is_empty(bound: Bound, ir: AttentionIR) -> bool:
    lo, hi = bound.lo, bound.hi
    tests = [make(Op.LE, hi, lo)] if lo is not None and hi is not None else []
    tests += [make(Op.LE, word("k_len"), lo)] if lo is not None else []
    return any(certainly(interval_of(test, ir=ir)[test]) is True for test in tests)


def future_keys(ir: AttentionIR) -> Iterator[Lint]:
    """mask = causal or dist < -8: the word causal stands there, and later keys are seen all the same."""
    mask = simplify(ir.mask)
    sums = Sums()
    if not any(_is_causal(atom, sums) for atom in _kept_by(mask)):
        return
    if any(_reaches_beyond(bound.hi, ir) for bound in _rows(mask, ir)):
        yield Lint(
            "future-keys",
            "keys after the query's own may be seen, although a part of the mask is causal",
            ir.spans.get("mask"),
        )


def _reaches_beyond(hi: Expr | None, ir: AttentionIR) -> bool:
    """Whether keys before ``hi`` may lie behind the query's own."""
    if hi is None:
        return True
    if hi.op is Op.MIN:
        return all(_reaches_beyond(end, ir) for end in hi.args)
    excess = make(Op.SUB, hi, word("pos"))
    return interval_of(excess, ir=ir)[excess].hi > 1


def _kept_by(mask: Expr) -> Iterator[Expr]:
    """The comparisons that stand in the mask unnegated."""
    stack, seen = [mask], set()
    while stack:
        node = stack.pop()
        if node in seen or node.type is not Type.BOOL or node.op is Op.NOT:
            continue
        seen.add(node)
        if node.op in (Op.AND, Op.OR, Op.WHERE):
            stack.extend(node.args)
        else:
            yield node


def _is_causal(atom: Expr, sums: Sums) -> bool:
    """``k <= pos`` or ``k < pos``, in any spelling."""
    if atom.op not in (Op.LT, Op.LE) or atom.args[0].type is not Type.INT:
        return False
    gap = sums.of(atom.args[0]).plus(sums.of(atom.args[1]), -1)
    return gap.terms == sums.of(make(Op.SUB, word("k"), word("pos"))).terms and gap.constant in (0, 1)


def wrong_index(ir: AttentionIR) -> Iterator[Lint]:
    """table[h] where the dimension is kv_heads; row[q] where it is k_len; and their opposites."""
    words: dict[Expr, frozenset[str]] = {}  # that a node reads
    inputs = {one.name: one for one in ir.inputs}
    for clause, root in _clauses(ir):
        for node in fresh(root, words):
            own = {str(node.value)} if node.op is Op.WORD else ()
            words[node] = frozenset(own).union(*(words[a] for a in node.args))
            if node.op is not Op.LOAD:
                continue
            for index, dim in zip(node.args, inputs[str(node.value)].dims, strict=True):
                found = _mismatch(words[index], dim)
                if found:
                    read, better = found
                    code = "wrong-length" if str(dim).endswith("_len") else "wrong-heads"
                    message = (
                        f"dimension {dim} of input '{node.value}' is indexed by {read}; {better} runs over it"
                    )
                    yield Lint(code, message, ir.spans.get(clause))


def _mismatch(read: frozenset[str], dim: int | str) -> tuple[str, str] | None:
    """The word of an index that reads these words, and the one that fits the dimension."""
    if dim == "kv_heads" and "h" in read and "h_kv" not in read:
        return "h", "h_kv"
    if dim == "heads" and "h_kv" in read and "h" not in read:
        return "h_kv", "h"
    if dim == "k_len" and "q" in read and not read & {"k", "pos", "k_len", "q_len"}:
        return "q", "pos or k"
    if dim == "q_len" and read & {"k", "pos"} and not read & {"q", "k_len", "q_len"}:
        return "pos" if "pos" in read else "k", "q"
    return None


def _clauses(ir: AttentionIR) -> Iterator[tuple[str, Expr]]:
    """Every clause and its key in ``ir.spans``, the innermost first."""
    yield "scale", ir.scale
    for number, root in enumerate(ir.score):
        yield f"score[{number}]", root
    yield "mask", ir.mask
    if ir.sink is not None:
        yield "sink", ir.sink
    if ir.dropout is not None:
        yield "dropout", ir.dropout


def shadowed_names(ir: AttentionIR) -> Iterator[Lint]:
    """let causal = dist > 0: a standard word with a meaning of its own."""
    for key, span in ir.spans.items():
        if key.startswith("shadow "):
            name = key.removeprefix("shadow ")
            yield Lint("shadowed-name", f"'{name}' redefines the standard word of that name", span)


def unused_names(ir: AttentionIR) -> Iterator[Lint]:
    """param cap, and no clause reads it."""
    nodes = postorder(*ir.clauses)
    read = {(node.op, str(node.value)) for node in nodes if node.op in (Op.PARAM, Op.LOAD, Op.SIZE)}
    read |= {(Op.LOAD, str(node.value)) for node in nodes if node.op is Op.VECTOR}
    for param in ir.params:
        if (Op.PARAM, param.name) not in read:
            yield Lint(
                "unused-name", f"no clause reads param '{param.name}'", ir.spans.get(f"param {param.name}")
            )
    for one in ir.inputs:
        sizes = {(Op.SIZE, str(dim)) for dim in one.dims}  # it may be there for its size only
        if (Op.LOAD, one.name) not in read and not sizes & read:
            yield Lint(
                "unused-name", f"no clause reads input '{one.name}'", ir.spans.get(f"input {one.name}")
            )


def unbounded_exp(ir: AttentionIR) -> Iterator[Lint]:
    """score = exp(score): float32 overflows to inf from 89 on."""
    known = interval_of(*ir.score, ir=ir)
    reads_score: dict[Expr, bool] = {}
    for number, root in enumerate(ir.score):
        new = fresh(root, reads_score)  # each line answers for what it adds to the lines above
        for node in new:
            reads_score[node] = node.op is Op.SCORE or any(reads_score[a] for a in node.args)
        exps = (node for node in new if node.op is Op.EXP and reads_score[node])
        if any(known[node.args[0]].hi > _EXP_OVERFLOWS for node in exps):
            yield Lint(
                "unbounded-exp",
                "exp of an unbounded score overflows; bound it, as in exp(min(score, 80.0))",
                ir.spans.get(f"score[{number}]"),
            )


LINTS: tuple[Callable[[AttentionIR], Iterator[Lint]], ...] = (
    empty_rows,
    future_keys,
    wrong_index,
    shadowed_names,
    unused_names,
    unbounded_exp,
)
