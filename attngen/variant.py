"""A built variant: its kernels to call, its reference to compare with, its text to read."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton
from torch import Tensor

from attngen import blockwise, reference
from attngen.ir.nodes import AttentionIR
from attngen.ir.types import Scalar
from attngen.pipeline import Compilation, compile_spec
from attngen.runtime import cache, files
from attngen.runtime.loader import load_module
from attngen.source import Source

_log = logging.getLogger("attngen")
_said: set[str] = set()


class Variant:
    """One attention variant, callable as ``variant(q, k, v, **inputs_and_params)``.

    q (B,H,Sq,D), k (B,Hkv,Sk,D), v (B,Hkv,Sk,Dv) in float16, bfloat16 or float32; the result is out
    (B,H,Sq,Dv), or ``(out, lse)`` with ``return_lse=True``: lse (B,H,Sq) is float32, the natural log-sum-exp.
    ``layout="bshd"`` swaps H and S of q, k, v and out. ``seed`` fixes the dropout mask. CUDA tensors run the
    emitted kernels; CPU tensors run them in Triton's interpreter where TRITON_INTERPRET=1 was set before
    Python started, and otherwise the same maths in PyTorch, in blocks of rows. Wrong arguments raise
    TypeError or ValueError and name what was expected.
    """

    def __init__(self, compilation: Compilation, options: Mapping[str, Any]) -> None:
        self._compilation = compilation
        self._options = dict(options)
        self.path: Path = cache.entry(compilation.ir.name, compilation.text)
        self._module = load_module(self.path, compilation.text)
        self._call = getattr(self._module, self.name)
        self._signature = inspect.signature(self._call)
        self.__name__ = self.name
        self.__doc__ = self._call.__doc__

    @property
    def name(self) -> str:
        return self._compilation.ir.name

    @property
    def ir(self) -> AttentionIR:
        return self._compilation.ir

    @property
    def module(self) -> ModuleType:
        """The emitted module, imported."""
        return self._module

    @property
    def source(self) -> str:
        """The text of the emitted module."""
        return self._compilation.text

    @property
    def spec(self) -> str:
        """The text of the spec, as it was given."""
        return self._compilation.source.text

    def __call__(
        self, /, q: Tensor, k: Tensor, v: Tensor, **arguments: Any
    ) -> Tensor | tuple[Tensor, Tensor]:
        on_cpu = isinstance(q, Tensor) and q.device.type == "cpu"
        if on_cpu and not triton.knobs.runtime.interpret:
            return self._blockwise(q, k, v, arguments)
        result: Tensor | tuple[Tensor, Tensor] = self._call(q, k, v, **arguments)
        return result

    def reference(
        self,
        /,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        seed: int | Tensor | None = None,
        return_lse: bool = False,
        layout: str = "bhsd",
        deterministic: bool | None = None,
        dtype: torch.dtype = torch.float64,
        **arguments: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The oracle: eager, dense, in ``dtype``, differentiable by torch's own autograd."""
        inputs, params = self._split(arguments)
        return reference.attention(
            self.ir,
            q,
            k,
            v,
            inputs=inputs,
            params=params,
            seed=seed,
            return_lse=return_lse,
            layout=layout,
            dtype=dtype,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the emitted module elsewhere. It needs torch and triton, and nothing of attngen."""
        files.write(Path(path), self.source)

    def _split(self, arguments: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Scalar]]:
        declared = {i.name for i in self.ir.inputs}
        inputs = {n: x for n, x in arguments.items() if n in declared}
        return inputs, {n: x for n, x in arguments.items() if n not in declared}

    def _blockwise(
        self, q: Tensor, k: Tensor, v: Tensor, arguments: Mapping[str, Any]
    ) -> Tensor | tuple[Tensor, Tensor]:
        bound = self._signature.bind(q, k, v, **arguments)
        bound.apply_defaults()
        given = dict(bound.arguments)
        layout, seed = given.pop("layout"), given.pop("seed")
        return_lse = given.pop("return_lse")
        del given["deterministic"], given["q"], given["k"], given["v"]
        inputs, params = self._split(given)
        params = self._module.check_call(q, k, v, tuple(inputs.values()), tuple(params.values()), layout)
        if self.ir.dropout is not None:
            seed = self._module.seed_tensor(seed, q.device)
        if self.name not in _said:
            _said.add(self.name)
            _log.warning(
                "%s: CPU tensors and no TRITON_INTERPRET=1: running the same maths in PyTorch, in row blocks",
                self.name,
            )
        named = dict(zip((p.name for p in self.ir.params), params, strict=True))
        out, lse = blockwise.attention(
            self.ir, q, k, v, inputs=inputs, params=named, seed=seed, layout=layout
        )
        return (out, lse) if return_lse else out

    def __reduce__(self) -> tuple[Any, ...]:
        source = self._compilation.source
        return _build, (source.text, source.name, self._options)

    def __deepcopy__(self, memo: dict[int, Any]) -> Variant:
        return self

    def __repr__(self) -> str:
        return f"<attngen variant {self.name!r} at {self.path}>"


def build_variant(
    source: Source, *, overrides: Mapping[str, Scalar], backend: str = "auto", math: str = "approx"
) -> Variant:
    """Compile a spec and load its module, or take it from the cache. Raises AttnGenError."""
    compilation = compile_spec(source, overrides=overrides, backend=backend, math=math)
    return Variant(compilation, {"overrides": dict(overrides), "backend": backend, "math": math})


def _build(text: str, name: str, options: Mapping[str, Any]) -> Variant:
    return build_variant(Source(text, name), **options)
