"""What a spec probably does not mean: valid, but worth a warning.

    mask = 0 <= dist < 0                ->  empty-rows: no row sees any key
    mask = causal or dist < -8          ->  future-keys: query q = 0 sees the key k = 9 after it (...)
    input a: float32[kv_heads] ... a[h] ->  wrong-heads: ... kv_heads is indexed by h; h_kv runs over it

Each lint is a function in ``LINTS`` from the variant to its findings, which show the mistake with indices and
sizes where it has some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attngen.analysis.lints.finding import Lint
from attngen.analysis.lints.indices import wrong_index
from attngen.analysis.lints.masks import blind_rows, empty_rows, future_keys, redundant_clauses
from attngen.analysis.lints.names import dead_gradients, shadowed_names, unused_names
from attngen.analysis.lints.scores import (
    masking_scores,
    unbounded_exp,
    unbounded_product,
    zero_divisors,
    zero_scale,
)
from attngen.analysis.lints.sizes import free_sizes
from attngen.analysis.lints.tables import clamped_index
from attngen.ir.nodes import AttentionIR

__all__ = ["LINTS", "Lint", "lint"]


def lint(ir: AttentionIR) -> list[Lint]:
    """All warnings of a variant, in the order of the spec's lines."""
    found = [one for check in LINTS for one in check(ir)]
    return sorted(dict.fromkeys(found), key=lambda one: one.span.line if one.span else 0)


LINTS: tuple[Callable[[AttentionIR], Iterator[Lint]], ...] = (
    empty_rows,
    blind_rows,
    future_keys,
    redundant_clauses,
    wrong_index,
    free_sizes,
    clamped_index,
    shadowed_names,
    unused_names,
    dead_gradients,
    masking_scores,
    zero_scale,
    unbounded_exp,
    unbounded_product,
    zero_divisors,
)
