"""The builds of a spec that property tests run: one whose windows short calls meet, then the spec as it is.

A window of 4096 keys masks nothing of 70, so most of a run's examples go to the small build, if there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from attngen.errors import AttnGenError
from attngen.ir.types import Scalar
from attngen.pipeline import check_spec
from attngen.source import Source
from attngen.testing.reach import small_consts
from attngen.variant import Variant, build_variant

_AS_IT_IS = 4  # one example in so many is of the spec's own consts


def small_build(
    source: Source, *, overrides: Mapping[str, Scalar], backend: str = "auto"
) -> tuple[Variant, Mapping[str, Scalar]] | None:
    """The spec with small consts, and those; None where it has no long ones, or they make no spec.

    ``overrides`` are what the caller has set, which stays.
    """
    small = small_consts(check_spec(source, overrides=overrides).ir, except_for=overrides)
    with suppress(AttnGenError):
        if small:
            return build_variant(source, overrides={**overrides, **small}, backend=backend), small
    return None


def builds_of(
    source: Source, examples: int, *, overrides: Mapping[str, Scalar] | None = None, backend: str = "auto"
) -> list[tuple[Variant, Mapping[str, Scalar], int]]:
    """What to test of a spec: the build, the consts made small for it, how many examples, 1 at least."""
    overrides = overrides or {}
    found = small_build(source, overrides=overrides, backend=backend)
    own = examples // _AS_IT_IS if found else examples
    builds = [(*found, examples - own)] if found else []
    if own:
        builds.append((build_variant(source, overrides=overrides, backend=backend), {}, own))
    return builds
