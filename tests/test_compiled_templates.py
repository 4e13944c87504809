"""Templates are compiled once for all processes, and never wrongly so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from jinja2 import DictLoader, Environment

from attngen.emit.compiled_templates import TemplateCache


@pytest.fixture(autouse=True)
def writing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


def rendered(folder: Path, text: str = "{{ x }} tiles", **options: bool) -> str:
    cache = TemplateCache(repr(options), folder)
    environment = Environment(loader=DictLoader({"t": text}), bytecode_cache=cache, **options)  # type: ignore[arg-type]
    return environment.get_template("t").render(x=3)


def no_compiler(*arguments: object, **options: object) -> None:
    raise AssertionError("compiled again")


def test_a_template_is_compiled_once_and_anew_where_its_text_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "made" / "when written to"
    assert rendered(folder) == "3 tiles"
    assert rendered(folder, "{{ x }} rows") == "3 rows"
    monkeypatch.setattr(Environment, "_generate", no_compiler)
    assert rendered(folder, "{{ x }} rows") == "3 rows"
    with pytest.raises(AssertionError, match="compiled again"):
        rendered(folder)


def test_templates_of_other_options_are_others(tmp_path: Path) -> None:
    text = "{% if x %}\n{{ x }} tiles{% endif %}"
    assert rendered(tmp_path, text) == "\n3 tiles"
    assert rendered(tmp_path, text, trim_blocks=True) == "3 tiles"


def test_a_spoilt_file_is_made_anew(tmp_path: Path) -> None:
    rendered(tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for spoilt in (*(whole[:length] for length in range(len(whole))), b"x" * 400):
        file.write_bytes(spoilt)
        assert rendered(tmp_path) == "3 tiles"


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert rendered(tmp_path / "file" / "folder") == "3 tiles"


def test_nothing_is_written_where_python_writes_no_bytecode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert rendered(tmp_path) == "3 tiles"
    assert not list(tmp_path.iterdir())
