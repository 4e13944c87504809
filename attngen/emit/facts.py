"""The facts of a variant, as the emitted module's docstring tells them to whoever never saw the compiler."""

from __future__ import annotations

from collections.abc import Iterator

from attngen.analysis.facts import Facts, Inside
from attngen.analysis.nonempty import MaybeEmpty, Sizes
from attngen.ir.nodes import AttentionIR, Expr, Op, leaves, postorder
from attngen.ir.printer import print_expr
from attngen.plan.plan import Plan
from attngen.plan.weights import Forward

_NO_SUM = "No weight is divided by a sum: a row that keeps nothing gives out = 0 without a guard."
_WIDEST = 60  # columns of an expression that a sentence can hold


def facts_text(plan: Plan) -> list[str]:
    """One paragraph a fact: what holds, why, and what the kernels do for it."""
    facts, ir = plan.facts, plan.ir
    of_softmax = [*_rows(plan), *_shifts(facts, ir)] if plan.weights.is_softmax else [_NO_SUM]
    return [*of_softmax, *_bound(plan), *_indices(facts)]


def _rows(plan: Plan) -> Iterator[str]:
    ir, proof = plan.ir, plan.facts.nonempty
    if isinstance(proof, MaybeEmpty):
        lse = "lse = -inf" if ir.sink is None else "lse = the sink's logit"
        lacks = (
            f"{_readers(ir)} may bring -inf" if proof.by_score else "no one key passes the mask in every row"
        )
        yield f"A row may be empty, since {lacks}. It gives out = 0 and {lse}."
        return
    if proof.key is None:
        yield f"No row is empty: the sink's logit is finite. {_guards(plan, proof.sizes)}"
        return
    key = print_expr(proof.key)
    masked = "passes the mask in every row" if ir.mask.op is not Op.CONST else "is in every row"
    why = f"the key k = {key} {masked}, with a score that is not -inf where q and k are finite"
    if proof.sizes is Sizes.ANY:
        yield f"No row is empty: {why}. {_guards(plan, proof.sizes)}"
    else:
        yield f"If {proof.sizes.value}, no row is empty: {why}. {_guards(plan, proof.sizes)}"


def _guards(plan: Plan, sizes: Sizes) -> str:
    """Which forward looks for empty rows before it divides, though the calls of these sizes have none."""
    if plan.weights.forward is Forward.TWO_PASSES:
        return "The division by the row's sum is guarded all the same."
    if sizes is Sizes.ANY:
        return "Nothing guards the division by the row's sum."
    if plan.backend.hopper is None:
        return "Only otherwise is the division by the row's sum guarded."
    return "Triton's forward guards the division by the row's sum only otherwise, Gluon's always."


def _readers(ir: AttentionIR) -> str:
    """What the score reads that a call may fill with anything."""
    names = (
        str(node.value) for node in postorder(ir.scale, ir.final_score) if node.op in (Op.LOAD, Op.PARAM)
    )
    return " or ".join(dict.fromkeys(names)) or "the score"


def _bound(plan: Plan) -> Iterator[str]:
    bound = plan.facts.bound
    if bound is not None:
        most = (
            f"<= {print_expr(bound)}" if _is_short(bound) else f"is at most an expression of {_reads(bound)}"
        )
        text = f"Scores are bounded: abs(score) {most}."
        if plan.takes_no_max:
            text += " But for float16, the forward sums 2**logit itself, and takes no maximum (BOUNDED)."
        yield text


def _shifts(facts: Facts, ir: AttentionIR) -> Iterator[str]:
    short = [print_expr(term) for term in facts.shifts if _is_short(term)]
    long = [_reads(term) for term in facts.shifts if not _is_short(term)]
    if short or long:
        one = len(short) + len(long) == 1
        terms = [*short, *(f"{'a longer one' if short else 'a term'} of {names}" for names in long)]
        what = f"The term{'' if one else 's'} {' and '.join(terms)}" if short else " and ".join(terms)
        what = what[0].upper() + what[1:]
        sink = ", and so the weight of the sink" if ir.sink is not None else ""
        yield (
            f"{what} of the score {'is' if one else 'are'} one number for all keys of a row, which the "
            f"softmax does not feel: {'it moves' if one else 'they move'} only the log-sum-exp{sink}."
        )


def _indices(facts: Facts) -> Iterator[str]:
    """The indices that are more than a word, which is what one would clamp by habit."""
    told = set()
    for fact in facts.inside:
        key = (fact.load.value, fact.axis)
        if fact.index.op not in (Op.WORD, Op.CONST) and key not in told:
            told.add(key)
            yield _index(fact)


def _index(fact: Inside) -> str:
    where = f"Index {fact.axis} of {fact.load.value}"
    if isinstance(fact.dim, int):
        return f"{where} is {fact.values.lo} to {fact.values.hi}, inside its {fact.dim} elements: no clamp."
    return f"{where} is never negative and below {fact.dim}: no clamp."


def _is_short(expr: Expr) -> bool:
    text = print_expr(expr)
    return "\n" not in text and len(text) <= _WIDEST


def _reads(expr: Expr) -> str:
    """The inputs, params and indices that an expression reads, in words: what is told of a long one."""
    kinds = (Op.LOAD, Op.PARAM, Op.WORD)
    *most, last = dict.fromkeys(
        n for kind in kinds for n in sorted(str(x.value) for x in leaves(expr, op=kind))
    )
    return f"{', '.join(most)} and {last}" if most else last
