"""The test kit: hypothesis strategies for specs, shapes and tensors, and the judgement of a variant.

Needs the ``test`` extra (hypothesis). ``specs()`` draws spec texts, ``shapes()`` the sizes of a call,
``tensors(shape)`` values and memory layouts; ``assert_matches_reference(variant, q, k, v, ...)`` judges.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attngen.testing.compare import assert_matches_reference
    from attngen.testing.shape import Shape, shapes
    from attngen.testing.spec import specs
    from attngen.testing.tensor import tensors

__all__ = ["Shape", "assert_matches_reference", "shapes", "specs", "tensors"]

# Loaded on first use: pytest imports this package for its plugin at every start, and torch takes seconds.
_HOMES = {
    "Shape": "shape",
    "assert_matches_reference": "compare",
    "shapes": "shape",
    "specs": "spec",
    "tensors": "tensor",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
