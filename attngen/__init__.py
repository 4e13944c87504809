"""attngen: a few lines of maths in, one readable file of attention kernels out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from attngen.errors import AttnGenError
from attngen.finder import install

if TYPE_CHECKING:
    from attngen.ir.types import Scalar
    from attngen.variant import Variant

__version__ = "0.1.0"
__all__ = ["AttnGenError", "Variant", "__version__", "compile", "install", "load"]


def load(
    path_or_zoo_name: str | os.PathLike[str], *, backend: str = "auto", math: str = "approx", **consts: Scalar
) -> Variant:
    """Build the variant of a spec file or of the zoo, or take it from the cache.

    A name with a separator or ending in ``.attn`` is a path; anything else a zoo name. ``consts`` override
    the spec's. ``backend="hopper"`` adds warp-specialised kernels for sm_90, in Gluon, to Triton's, "triton"
    does not, and "auto" adds those that were measured to gain. ``math="exact"`` forgoes the approximate tanh
    of 16-bit tensors. What is built, and where, is logged by the logger "attngen". Raises AttnGenError.
    """
    _require(path_or_zoo_name, (str, os.PathLike), "path_or_zoo_name: expected a str or a path")
    from attngen.spec_file import find_spec
    from attngen.variant import build_variant

    return build_variant(find_spec(path_or_zoo_name), overrides=consts, backend=backend, math=math)


def compile(text: str, *, backend: str = "auto", math: str = "approx", **consts: Scalar) -> Variant:
    """Build the variant that a spec's text describes. The rest as for ``load``."""
    _require(text, str, "text: expected a spec as a str")
    from attngen.source import Source
    from attngen.variant import build_variant

    return build_variant(Source(text), overrides=consts, backend=backend, math=math)


def _require(value: object, kinds: type | tuple[type, ...], message: str) -> None:
    if not isinstance(value, kinds):
        raise TypeError(f"{message}, got {type(value).__name__}")


def __getattr__(name: str) -> Any:
    if name == "Variant":  # loads torch, so only on demand
        from attngen.variant import Variant

        return Variant
    raise AttributeError(f"module 'attngen' has no attribute {name!r}")
