"""From a view to the module's text: the templates, and a last look at what came out."""

from __future__ import annotations

import ast
import builtins
import hashlib
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from attngen.emit.compiled_templates import TemplateCache
from attngen.emit.contents import with_contents
from attngen.emit.layout import fitted
from attngen.emit.packed import packed
from attngen.emit.tidy import tidied
from attngen.emit.view import HASH_PLACE, View
from attngen.resources import template_dir

_OPTIONS: dict[str, Any] = {
    "undefined": StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
    "autoescape": False,
}
_IMPORTS = {"copy", "functools", "math", "numbers"}
_IMPORTS |= {"torch", "triton", "triton.language", "triton.tools.tensor_descriptor"}
_GLUON = "triton.experimental.gluon"
_IMPORTS |= {"triton._C.libtriton", f"{_GLUON}.language._core"}
_IMPORTS |= {"triton.experimental", _GLUON, f"{_GLUON}.language.nvidia.hopper", f"{_GLUON}.nvidia.hopper"}
_FORBIDDEN = {"eval", "exec", "compile", "open", "input", "breakpoint", "exit", "quit", "help"}
_FORBIDDEN |= {"getattr", "setattr", "delattr", "globals", "locals", "vars"}


def render(view: View) -> str:
    """The module's text: deterministic, with its own content's hash in it.

    Raises AssertionError where the text is not the Python that the templates alone should give: a defect of
    the emitter, never of a spec.
    """
    text = _environment().get_template("module.py.jinja").render(v=view)
    text = with_contents(packed(fitted(tidied(text))))
    inspect(text)
    digest = hashlib.sha256(text.encode()).hexdigest()[: len(HASH_PLACE)]
    return text.replace(HASH_PLACE, digest)


def inspect(text: str) -> None:
    """Parse the text and check that it imports and calls nothing but what the templates do.

    Plain names may be called if the module defines or imports them, or if they are harmless built-ins; no
    attribute but ``__name__`` and ``__version__`` begins with two underscores.
    """
    nodes = list(ast.walk(ast.parse(text)))
    callable_names = {n for n in dir(builtins) if not n.startswith("_")} - _FORBIDDEN
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            callable_names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert set(modules) <= _IMPORTS, f"the emitted module imports {modules}"
            callable_names.update(a.asname or a.name for a in node.names)
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id in callable_names, f"the emitted module calls {node.func.id}"
        if isinstance(node, ast.Attribute) and node.attr not in ("__name__", "__version__"):
            assert not node.attr.startswith("__"), f"the emitted module reads {node.attr}"


@cache
def template_texts(backend: str = "triton") -> tuple[str, ...]:
    """The text of every template that a module of this back end is made of, in the order of their names."""
    folders = ("triton", "hopper") if backend == "hopper" else ("triton",)
    files = (p for folder in folders for p in sorted(template_dir().glob(f"{folder}/*.jinja")))
    return tuple(p.read_text(encoding="utf-8") for p in files)


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader([template_dir() / "triton", template_dir()]),
        bytecode_cache=TemplateCache(repr(_OPTIONS)),
        **_OPTIONS,
    )
