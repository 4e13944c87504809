"""The sink's logit, as the forward starts with it and the backward weighs it.

sink = sinks[h]   ->   1.4426950408889634 * tl.load(sinks_ptr + h.to(tl.int64) * sinks_stride_0)
"""

from __future__ import annotations

from attngen.emit.scope import Scope
from attngen.emit.view import Sink


def make_sink(scope: Scope) -> tuple[Sink, frozenset[str]]:
    """The view, and the names that its lines read."""
    logit = scope.plan.sink_log2
    if logit is None:
        return Sink(False, (), ""), frozenset()
    block = scope.kernel.results([logit], scope.program_values)
    return Sink(True, block.lines, block.results[0]), frozenset(block.uses)
