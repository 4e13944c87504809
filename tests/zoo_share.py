"""The part of the zoo that every run of a test takes; the rest is for the slow tests."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import pytest


def share(names: Sequence[str], each: int, *, always: Container[str] = ()) -> list[Any]:
    """For ``parametrize``: every ``each``-th name and those of ``always`` as they are, the others slow."""
    return [
        name if at % each == 0 or name in always else pytest.param(name, marks=pytest.mark.slow)
        for at, name in enumerate(names)
    ]
