"""The table of contents at the head of an emitted file."""

from __future__ import annotations

import ast
import re

import pytest

from attngen.pipeline import compile_spec
from attngen.source import Source
from attngen.spec_file import find_spec


def sections_of(text: str) -> list[str]:
    """The sections that the docstring names, each found at the line it gives."""
    lines, names = text.split("\n"), []
    docstring = ast.get_docstring(ast.parse(text)) or ""
    for number, name in re.findall(
        r"^ +(\d+)  (.+)$", docstring.partition("Sections and their lines:")[2], re.M
    ):
        assert re.fullmatch(rf"# ---- {re.escape(name)} -+", lines[int(number) - 1])
        names.append(name)
    return names


@pytest.mark.parametrize(
    ("name", "backend"), [("causal", "auto"), ("causal", "triton"), ("relu_attention", "auto")]
)
def test_the_header_names_each_section_and_its_line(name: str, backend: str) -> None:
    text = compile_spec(find_spec(name), backend=backend).text
    assert sections_of(text) == re.findall(r"^# ---- (.+?) -+$", text, re.M)
    assert {"The variant", "Forward", "Backward", "Launch"} <= set(sections_of(text))


def test_what_looks_like_a_section_in_a_specs_own_words_is_none() -> None:
    text = compile_spec(Source('"""\n# ---- Not a section ------\n"""\nvariant x\n')).text
    assert "Not a section" in text and "Not a section" not in sections_of(text)
