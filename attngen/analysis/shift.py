"""Terms of the score that are the same for all keys of a row: the softmax does not feel them.

    score = score + bias[h, q] - 2.0 * b    ->  bias[h, q], 2.0 * b
    score = softcap(score + bias[h, q], c)  ->  none: the tanh stands between it and the softmax

They move the log-sum-exp, and so weigh against a sink; and one of -inf still masks its whole row.
"""

from __future__ import annotations

from attngen.analysis.rates import Rate, extend
from attngen.ir.nodes import AttentionIR, Expr, Op


def shifts(ir: AttentionIR) -> tuple[Expr, ...]:
    """The terms of the final score that do not depend on the key, whatever their signs."""
    rates: dict[Expr, Rate] = {}
    extend(rates, ir.final_score)
    found: dict[Expr, None] = {}
    stack = [ir.final_score]
    seen: set[Expr] = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if rates[node] <= Rate.ROW:
            found.setdefault(node)
        elif node.op in (Op.ADD, Op.SUB):
            stack.extend(reversed(node.args))
        elif node.op is Op.NEG:
            stack.append(node.args[0])
    return tuple(found)
