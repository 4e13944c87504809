"""Masks that let too little or too much through, and clauses of a mask that change nothing.

mask = 0 <= dist < 0              ->  empty-rows: no row sees any key
mask = dist > 0                   ->  blind-rows: query q = 0 sees no key (q_len = 1, k_len = 1)
mask = causal or dist < -8        ->  future-keys: query q = 0 sees the key k = 9 after it (...)
mask = causal and dist > -5       ->  redundant-mask: 'dist > -5' holds wherever the rest beside it does
mask = causal or dist < 0 < dist  ->  dead-clause: 'dist < 0 and 0 < dist' never holds
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import reduce
from itertools import islice

from attngen.analysis.block_range import Bound, key_ranges
from attngen.analysis.interval import certainly, interval_of
from attngen.analysis.linear import Sums
from attngen.analysis.lints.example import Partial, Place, places, rows, with_params
from attngen.analysis.lints.finding import Lint, quoted
from attngen.analysis.simplify import simplify
from attngen.ir.nodes import AttentionIR, Expr, Op, make, postorder, substitute, word
from attngen.ir.types import Type

# One query, as something that does not vary over its tile.
_OFFSET = make(Op.SUB, word("k_len"), word("q_len"))
_ALONE = {word("q"): word("q_first"), word("pos"): make(Op.ADD, word("q_first"), _OFFSET)}

_MOST_NODES = 200  # of a mask that is computed place by place
_MOST_NODES_WEIGHED = 60  # of one whose clauses are weighed against each other
_MOST_PARTS = 8  # of a chain of clauses that are
_MOST_WEIGHED = 12  # clauses of one mask, of all its chains
_MOST_PLACES = 300  # looked at before a proof is tried


def empty_rows(ir: AttentionIR) -> Iterator[Lint]:
    """mask = 0 <= dist < 0: no row sees any key, whatever the call."""
    if never_holds(ir.mask, ir):
        yield Lint("empty-rows", "no row sees any key: the mask is never true", ir.spans.get("mask"))


def blind_rows(ir: AttentionIR) -> Iterator[Lint]:
    """mask = dist > 0: the first query sees nothing, whatever the inputs hold.

    A docstring that says that some see nothing means it.
    """
    if _BLIND.search(ir.doc) or _is_long(ir.mask) or never_holds(ir.mask, ir):
        return
    mask = Partial(simplify(ir.mask), ir)
    for row in rows(ir.mask):
        if all(mask.at(place) is False for place in row):
            first = row[0]
            sizes = first.sizes + with_params(ir.mask, ir)
            message = f"query q = {first.q}{_of_head(first)} sees no key ({sizes}): its output is 0"
            yield Lint("blind-rows", message, ir.spans.get("mask"))
            return


def future_keys(ir: AttentionIR) -> Iterator[Lint]:
    """mask = causal or dist < -8: causal by name, docstring or in part, and later keys are seen all the same.

    A docstring that speaks of what lies beyond causality (a prefix, global tokens, both directions) means it.
    """
    mask = simplify(ir.mask)
    claim, is_partly = (None, False) if _is_long(mask) else _claim(ir, mask)
    if claim is None or not any(_reaches_beyond(bound.hi, ir) for bound in _rows(mask, ir)):
        return
    partial, after = Partial(mask, ir), word("pos")
    maybe: Place | None = None
    for place in places(mask):
        if place.k <= place.words[str(after.value)]:
            continue
        seen = partial.at(place)
        if seen is True:
            yield _leak(place, "sees", claim, ir)
            return
        if seen is None and maybe is None and is_partly:
            maybe = place
    if maybe is not None:
        yield _leak(maybe, "may see", claim, ir)


def _leak(place: Place, sees: str, claim: str, ir: AttentionIR) -> Lint:
    message = (
        f"query q = {place.q}{_of_head(place)} {sees} the key k = {place.k} after it "
        f"({place.sizes}{with_params(ir.mask, ir)}), although {claim}; "
        "if that is meant, let the docstring say what is seen besides"
    )
    return Lint("future-keys", message, ir.spans.get("mask"))


def _is_long(mask: Expr) -> bool:
    return len(postorder(mask)) > _MOST_NODES


def _of_head(place: Place) -> str:
    return f" of head h = {place.h}" if place.h else ""


_BLIND = re.compile(r"\b(sees?|seen|attends?|keeps?|kept|has|have) (to )?(nothing|none|no)\b", re.IGNORECASE)
_CAUSAL = re.compile(r"causal|autoregressive|decoder[- ]only", re.IGNORECASE)
_NOT_CAUSAL = re.compile(r"\b(non|not|no|bi|un)[- _]?(causal|autoregressive)", re.IGNORECASE)
_BESIDES = re.compile(
    r"prefix|global|bidirection|both (directions|sides)|either side|future|ahead|whole|encoder|full(y)?\b"
    r"|every (query|other|token|key)|all (queries|keys|tokens|see)|look-?ahead|sink|register|memory",
    re.IGNORECASE,
)


def _claim(ir: AttentionIR, mask: Expr) -> tuple[str | None, bool]:
    """What says that the variant is causal, or None; and whether a part of the mask itself does.

    Under words alone an input may decide what is later: a mask by true places is causal too.
    """
    name, doc = ir.name.replace("_", " "), ir.doc
    if any(pattern.search(f"{name} {doc}") for pattern in (_BESIDES, _NOT_CAUSAL)):
        return None, False
    sums = Sums()
    if any(_is_causal(atom, sums) for atom in _kept_by(mask)):
        return "a part of the mask is causal", True
    if _CAUSAL.search(name):
        return f"the variant is called {ir.name}", False
    found = _CAUSAL.search(doc.split("\n\n")[0])  # what follows the first paragraph may be a paper's title
    return f"the docstring says '{found.group()}'" if found else None, False


def redundant_clauses(ir: AttentionIR) -> Iterator[Lint]:
    """mask = causal and dist > -5: a clause that the rest implies, or that never holds."""
    if ir.mask.op is Op.CONST or len(postorder(ir.mask)) > _MOST_NODES_WEIGHED or never_holds(ir.mask, ir):
        return
    span = ir.spans.get("mask")
    if never_holds(make(Op.NOT, ir.mask), ir):
        yield Lint("redundant-mask", "the mask keeps every key of every query: it can go", span)
        return
    stack = [ir.mask]
    seen: set[Expr] = set()
    weighed = 0
    while stack and weighed < _MOST_WEIGHED:
        whole = stack.pop(0)  # the outermost first
        parts = _parts(whole) if whole not in seen else []
        seen.add(whole)
        weighed += len(parts)
        stack += parts
        for part in parts:
            rest = reduce(lambda a, b: make(whole.op, a, b), [p for p in parts if p is not part])
            text = quoted(part, ir, "a part of it")
            if whole.op is Op.OR and never_holds(part, ir):
                yield Lint("dead-clause", f"{text} never holds: this alternative keeps no key", span)
            elif whole.op is Op.AND and never_holds(make(Op.NOT, part), ir):
                yield Lint("redundant-mask", f"{text} always holds: the mask needs no such clause", span)
            elif _implies(rest, part, ir) if whole.op is Op.AND else _implies(part, rest, ir):
                what = "holds wherever" if whole.op is Op.AND else "holds only where"
                yield Lint(
                    "redundant-mask", f"{text} {what} the rest beside it does: it changes nothing", span
                )
                break  # of two that say the same, one is enough


def _parts(whole: Expr) -> list[Expr]:
    """The operands of a short chain of ``and`` or of ``or``, each once; none of another expression."""
    if whole.op not in (Op.AND, Op.OR):
        return []
    found: dict[Expr, None] = {}
    seen: set[Expr] = set()
    stack = [whole]
    while stack:
        node = stack.pop()
        if node.op is not whole.op:
            found.setdefault(node)
        elif node not in seen:
            seen.add(node)
            stack += reversed(node.args)
    return list(found) if 1 < len(found) <= _MOST_PARTS else []


def _implies(first: Expr, second: Expr, ir: AttentionIR) -> bool:
    against = make(Op.AND, first, make(Op.NOT, second))
    return not _holds_somewhere(against, ir) and never_holds(against, ir)


def _holds_somewhere(condition: Expr, ir: AttentionIR) -> bool:
    """Whether one of a few places fulfils a condition: sooner found than a proof fails."""
    partial = Partial(condition, ir)
    return any(partial.at(place) is True for place in islice(places(condition), _MOST_PLACES))


def never_holds(condition: Expr, ir: AttentionIR) -> bool:
    """Whether a condition is proven to be false for every query, key and call."""
    known = simplify(condition)
    if certainly(interval_of(known, ir=ir)[known]) is False:
        return True
    alone = simplify(substitute(known, _ALONE))  # exact, where conditions on q itself are not looked into
    return any(all(_is_empty(bound, ir) for bound in _rows(one, ir)) for one in (alone, known))


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
