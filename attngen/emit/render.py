"""From a view to the module's text: the templates, and a last look at what came out."""

from __future__ import annotations

import ast
import hashlib
from functools import cache

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from attngen.emit.view import HASH_PLACE, View
from attngen.resources import template_dir

_IMPORTS = {"math", "torch", "triton", "triton.language", "triton.tools.tensor_descriptor"}
_FORBIDDEN = {"eval", "exec", "compile", "open", "__import__", "getattr", "setattr", "globals", "vars"}


def render(view: View) -> str:
    """The module's text: deterministic, with its own content's hash in it.

    Raises AssertionError where the text is not the Python that the templates alone should give: a defect of
    the emitter, never of a spec.
    """
    text = _environment().get_template("module.py.jinja").render(v=view)
    text = _tidied(text)
    inspect(text)
    digest = hashlib.sha256(text.encode()).hexdigest()[: len(HASH_PLACE)]
    return text.replace(HASH_PLACE, digest)


def inspect(text: str) -> None:
    """Parse the text and check that it imports and calls nothing but what the templates do."""
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        assert all(name in _IMPORTS for name in names), f"the emitted module imports {names}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in _FORBIDDEN, f"the emitted module calls {node.func.id}"


def _tidied(text: str) -> str:
    """No trailing blanks, at most two empty lines in a row, none at the end."""
    lines: list[str] = []
    for line in text.split("\n"):
        if line.strip() or lines[-2:] != ["", ""]:
            lines.append(line.rstrip())
    return "\n".join(lines).rstrip("\n") + "\n"


@cache
def template_texts() -> tuple[str, ...]:
    """The text of every template, in the order of their names."""
    return tuple(p.read_text(encoding="utf-8") for p in sorted(template_dir().glob("triton/*.jinja")))


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(template_dir() / "triton"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
