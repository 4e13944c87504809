"""One launch through Triton's compiler, and what its assembler says of the result."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.experimental.gluon._runtime import GluonASTSource
from triton.runtime.jit import create_function_from_signature

from attngen.compile_check.launches import Launch
from attngen.compile_check.usage import from_amdgcn, from_ptxas
from attngen.plan.tiles import Target


class Failed(Exception):
    """Triton or its assembler did not get through. The message is its own, in one line."""


@dataclass(frozen=True)
class Binary:
    """A compiled kernel: registers a thread, spills (bytes; on AMD registers), shared memory a program in
    bytes, tensor memory a program in columns, and the assembler's warnings."""

    registers: int
    spills: int
    shared: int
    tensor_memory: int
    warnings: tuple[str, ...]


def compile_launch(launch: Launch, target: Target) -> Binary:
    """Compile a launch's kernel exactly as the launch would have it. Raises Failed."""
    with _log() as log:
        try:
            source, options = source_of(launch, target)
            compiled = triton.compile(source, target=_gpu(target), options=options)
        except Exception as error:  # Triton has no common class for its errors
            raise Failed(_reason(error)) from error
    if target.capability:
        usage = from_ptxas(log.getvalue())
    else:
        usage = from_amdgcn(compiled.asm["amdgcn"])
    tensor_memory = getattr(compiled.metadata, "tmem_size", 0)
    return Binary(usage.registers, usage.spills, compiled.metadata.shared, tensor_memory, usage.warnings)


def source_of(launch: Launch, target: Target) -> tuple[ASTSource, dict[str, Any]]:
    """(source, options) of a kernel: what ``JITFunction.run`` gives Triton's compiler at a first launch."""
    kernel, options = launch.kernel, launch.options
    backend = make_backend(_gpu(target))
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, _ = bind(*launch.arguments, **options)
    packed = kernel._pack_args(backend, options, bound, specialization, options)
    backend_options, signature, constants, attributes = packed
    kind = GluonASTSource if kernel.is_gluon() else ASTSource
    return kind(kernel, signature, constants, attributes), vars(backend_options)


def _gpu(target: Target) -> GPUTarget:
    if target.capability:
        major, minor = target.capability
        return GPUTarget("cuda", 10 * major + minor, 32)
    return GPUTarget("hip", target.name, 64)


@contextlib.contextmanager
def _log() -> Iterator[io.StringIO]:
    """Catches what ptxas says. The compiler runs it with -v, and prints its words only for a fresh kernel."""
    log = io.StringIO()
    knobs = triton.knobs
    with (
        tempfile.TemporaryDirectory(prefix="attngen-") as folder,
        knobs.cache.scope(),
        knobs.nvidia.scope(),
        contextlib.redirect_stdout(log),
    ):
        knobs.cache.dir = folder
        knobs.nvidia.dump_ptxas_log = True
        yield log


def _reason(error: BaseException) -> str:
    """The first line of the error that began it all: the outer ones quote pages of source."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(getattr(error, "error_message", None) or error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
