"""What is a path and what a zoo name, and what happens to files that are no specs."""

from __future__ import annotations

from pathlib import Path

import pytest

from attngen.errors import AttnGenError, BuildError, SpecLimitError, SpecSyntaxError
from attngen.spec_file import find_spec, is_path
from attngen.syntax.parse import MAX_BYTES


@pytest.mark.parametrize("name", ["a.attn", "./a", "a/b", "../alibi", "/a"])
def test_a_path_has_a_separator_or_the_ending(name: str) -> None:
    assert is_path(name)


def test_any_other_word_is_a_zoo_name() -> None:
    assert not is_path("alibi")
    assert find_spec("alibi").name == "alibi.attn"


def test_an_unknown_zoo_name_suggests_the_nearest() -> None:
    with pytest.raises(BuildError, match="did you mean 'alibi'"):
        find_spec("allibi")


def test_a_file_without_the_ending_is_hinted_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").write_text("variant mine\n")
    Path("other.attn").write_text("variant other\n")
    with pytest.raises(BuildError, match=r"write '\./mine'"):
        find_spec("mine")
    with pytest.raises(BuildError, match=r"did you mean 'other\.attn'"):
        find_spec("other")


@pytest.mark.parametrize("name", ["no/such.attn", "/", "a\0b.attn", "a\0b"])
def test_what_is_no_file_is_a_build_error(name: str) -> None:
    with pytest.raises(BuildError):
        find_spec(name)


def test_bytes_that_are_not_text_have_a_place(tmp_path: Path) -> None:
    path = tmp_path / "binary.attn"
    path.write_bytes("variant x\n# é ".encode() + b"\xff\n")
    with pytest.raises(SpecSyntaxError) as caught:
        find_spec(path)
    assert str(caught.value).startswith(f"{path}:2:5: error: ")


def test_an_endless_file_is_refused_without_reading_it_all() -> None:
    with pytest.raises(AttnGenError):
        find_spec("/dev/zero")


def test_the_size_limit_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "long.attn"
    path.write_text("variant x\n".ljust(MAX_BYTES, "#"))
    assert len(find_spec(path).text) == MAX_BYTES
    path.write_text("variant x\n".ljust(MAX_BYTES + 1, "#"))
    with pytest.raises(SpecLimitError):
        find_spec(path)


def test_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "windows.attn"
    path.write_bytes(b"\xef\xbb\xbfvariant x\r\nmask = causal\r")
    assert find_spec(path).text == "variant x\nmask = causal\n"
