"""A launch's kernel on its way to machine code for sm_90, with no GPU and no assembler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend

from attngen.compile_check.binary import source_of
from attngen.compile_check.launches import Launch
from attngen.plan.tiles import TARGETS

Stage = Callable[[Any, dict[str, Any]], Any]


@contextmanager
def in_triton(launch: Launch) -> Iterator[tuple[Any, dict[str, Stage], dict[str, Any]]]:
    """The kernel in Triton's own IR, the stages that lower it further, and what they are told."""
    source, options = source_of(launch, TARGETS["sm_90"])
    target = GPUTarget("cuda", 90, 32)
    backend = make_backend(target)
    parsed = backend.parse_options(dict(options))
    context = ir.context()  # what is made in it goes with it
    ir.load_dialects(context)
    backend.load_dialects(context)
    functions = backend.get_codegen_implementation(parsed)
    made = source.make_ir(target, parsed, functions, backend.get_module_map(), context)
    stages: dict[str, Stage] = {}
    backend.add_stages(stages, parsed, source.language)
    yield made, stages, {"target": target, **vars(parsed)}


def ptx_of(launch: Launch) -> str:
    """The kernel as PTX. The assembler, which takes longest, is left out."""
    with in_triton(launch) as (made, stages, metadata):
        for name in takewhile(lambda name: name != "cubin", stages):
            made = stages[name](made, metadata)
        return str(made)
