"""A built variant: its kernels to call, its reference to compare with, its text to read."""

from __future__ import annotations

import contextlib
import inspect
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Never

import torch
import triton
from torch import Tensor

from attngen import cpu_operators, debug, reference
from attngen.ir.nodes import AttentionIR
from attngen.ir.types import Scalar
from attngen.pipeline import Compilation, compile_spec
from attngen.runtime import cache, files
from attngen.runtime.loader import load_module
from attngen.source import Source

# As triton saw it when its kernels were defined; not to be read in a call, which torch.compile may trace.
_INTERPRETED: bool = triton.knobs.runtime.interpret


class Variant:
    """One attention variant, callable as ``variant(q, k, v, **inputs_and_params)``.

    q (B,H,Sq,D), k (B,Hkv,Sk,D), v (B,Hkv,Sk,Dv) in float16, bfloat16 or float32; the result is out
    (B,H,Sq,Dv), or ``(out, lse)`` with ``return_lse=True``: lse (B,H,Sq) is float32, the natural log-sum-exp.
    ``layout="bshd"`` swaps H and S of q, k, v and out. In memory out has the heads inside the rows where q
    has, so that heads split off as views are merged by a view, and outside them elsewhere. ``seed`` fixes the
    dropout mask. CUDA tensors run the emitted kernels; CPU tensors run them in Triton's interpreter where
    TRITON_INTERPRET=1 was set before Python started, and otherwise the same maths in PyTorch, in blocks of
    rows. Wrong arguments raise TypeError or ValueError and name what was expected. With ATTNGEN_DEBUG=1 in
    the environment when the variant is built, every call also looks whether inputs declared ``sorted`` are.

    Inside torch.autocast it does what torch's own attention does: q, k and v, of whatever of the three dtypes
    each is, are computed in autocast's dtype, and so is out; lse stays float32. Float inputs are taken in the
    dtype that the spec declares. Gradients have the dtypes of the tensors that were given.
    """

    def __init__(self, compilation: Compilation, options: Mapping[str, Any]) -> None:
        self._compilation = compilation
        self._options = dict(options)
        self.path: Path = cache.entry(compilation.ir.name, compilation.text)
        self._module = load_module(self.path, compilation.text)
        self._call = getattr(self._module, self.name)
        self._checks_inputs = debug.is_on()
        if not _INTERPRETED:
            cpu_operators.register(self._module, compilation.ir)
        self.__name__ = self.name
        self.__signature__ = inspect.signature(self._call)  # the inputs, params and options by name
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
        self, /, q: Tensor, k: Tensor, v: Tensor, *others: Never, **arguments: Any
    ) -> Tensor | tuple[Tensor, Tensor]:
        if others:
            raise TypeError(self._by_name(3 + len(others)))
        if self._checks_inputs and not torch.compiler.is_compiling():
            debug.check_inputs(self.ir, arguments)
        result: Tensor | tuple[Tensor, Tensor] = self._call(q, k, v, **arguments)
        return result

    def _by_name(self, given: int) -> str:
        """What to write where an input stands after v without its name, which Python's message leaves out."""
        own = [*(i.name for i in self.ir.inputs), *(p.name for p in self.ir.params)]
        what = "inputs and params" if own else "options"
        named = own or [n for n, p in self.__signature__.parameters.items() if p.kind is p.KEYWORD_ONLY]
        call = ", ".join(["q", "k", "v", *(f"{name}=..." for name in named)])
        return (
            f"{self.name}() takes 3 positional arguments but {given} were given: "
            f"{what} are given by name, as in {self.name}({call})"
        )

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
        """The oracle: eager, dense, in ``dtype`` whatever autocast says, differentiable by torch itself."""
        inputs, params = self._split(arguments)
        with torch.autocast(q.device.type, enabled=False):
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
    with _triton_getting_ready():
        compilation = compile_spec(source, overrides=overrides, backend=backend, math=math)
        return Variant(compilation, {"overrides": dict(overrides), "backend": backend, "math": math})


@contextlib.contextmanager
def _triton_getting_ready() -> Iterator[None]:
    """Let Triton build what it asks the GPU's driver with, where a kernel will ask for it at once.

    With an empty cache a C compiler takes 0.4 s for it, while nothing here needs the result.
    """
    if _INTERPRETED or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        yield
        return
    thread = threading.Thread(target=_make_driver, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()  # the first launch would begin to build it again


def _make_driver() -> None:
    with contextlib.suppress(Exception):  # which the first launch meets again, and tells
        _ = triton.runtime.driver.active.utils


def _build(text: str, name: str, options: Mapping[str, Any]) -> Variant:
    return build_variant(Source(text, name), **options)
