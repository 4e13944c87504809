"""``attngen new NAME``: a commented starter spec."""

from __future__ import annotations

import os
import re
from pathlib import Path

from attngen.errors import BuildError

STARTER = '''\
"""One line that says what {name} does.

Authors, year, "Title of the paper", arXiv:0000.00000
"""
variant {name}

# Fixed when the kernel is built; `--set window=256` overrides it.
const window: int = 1024

# A scalar given at each call. A new value never recompiles. Without a default the caller must give it.
param cap: float = 30.0

# A tensor that the score or the mask reads. Its dimensions are numbers, sizes (batch, heads, kv_heads, q_len,
# k_len, ...), or names of your own; one of size 1 broadcasts. After them `grad` asks for the tensor's own
# gradient, and `sorted` promises ints that never decrease along the last dimension, so that tiles of a mask
# that compares them can be left out.
#   input slopes: float32[heads]
#   input bias: float32[heads, q_len, k_len] grad
#   input doc: int32[batch, k_len] sorted

# The score of query q and key k, at first scale * dot(Q[b, h, q], K[b, h_kv, k]). Lines like this change it.
# Words: q, k, b, h, h_kv; pos (the query's place among the keys); dist = pos - k (negative is the future).
score = softcap(score, cap)

# True keeps a key. Ready-made: causal, sliding_window(n). Or a comparison: 0 <= dist < window.
mask = sliding_window(window)

# Also: scale = ..., normalize = sigmoid(bias), weight = ..., sink = ..., dropout = p, let NAME = ...,
# def f(x) = ...
'''


def create(name: str) -> Path:
    """Write ``NAME.attn`` and return its path. An existing file is left alone and is an error."""
    path = Path(name if name.endswith(".attn") else f"{name}.attn")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", path.stem, re.ASCII):
        raise BuildError(f"{path.stem!r} is not a variant's name: letters, digits and _, no digit first")
    text = STARTER.format(name=path.stem)
    _check(text, path)
    try:
        # O_EXCL: looking first and writing later could overwrite a file made in between.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        raise BuildError(f"{path} exists already; it is left as it is") from None
    except OSError as error:
        raise BuildError(f"cannot write {path}: {error.strerror or error}") from None
    with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    return path


def _check(text: str, path: Path) -> None:
    """A name that the language refuses (a keyword, say) is refused here, before there is a file."""
    from attngen.pipeline import check_spec
    from attngen.source import Source

    check_spec(Source(text, str(path)))
