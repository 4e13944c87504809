"""The command line: what each command prints, its exit status, and where its errors say they are."""

from __future__ import annotations

import ast
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console
from zoo_share import share

from attngen import cli
from attngen.cli import main
from attngen.spec_file import zoo_names
from attngen.syntax.parse import CLAUSES, STATEMENTS

ROOT = Path(__file__).parents[1]


class Result(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs ``attngen ARGS`` in this process, in an empty folder. Only SystemExit may come out of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")

    def run_(*args: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["attngen", *args])
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return Result(status, *capfd.readouterr())

    return run_


# Each is wrong in one way; the place is where a reader would look.
WRONG: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"1:1"),
    "no_variant": (b"mask = causal\n", r"1:1"),
    "operator_missing": (b"variant x\nscore = score 2\n", r"2:15"),
    "bracket_open": (b"variant x\nscore = (score + 1\n", r"\d+:\d+"),
    "bracket_wrong": (b"variant x\nscore = (score + 1]\n", r"2:19"),
    "strange_character": (b"variant x\nscore = score $ 2\n", r"2:15"),
    "loop": (b"variant x\nfor i in range(3)\n", r"2:5"),
    "unknown_name": (b"variant x\nscore = sofcap(score, 5.0)\n", r"2:9"),
    "unknown_word": (b"variant x\nmask = dsit < 4\n", r"2:8"),
    "bool_as_number": (b"variant x\nscore = score + causal\n", r"2:\d+"),
    "number_as_mask": (b"variant x\nmask = dist\n", r"2:8"),
    "score_in_mask": (b"variant x\nmask = score > 0\n", r"2:8"),
    "rank": (b"variant x\ninput t: float32[heads]\nscore = score + t[h, q]\n", r"3:\d+"),
    "float_index": (b"variant x\ninput t: float32[heads]\nscore = score + t[score]\n", r"3:\d+"),
    "mask_twice": (b"variant x\nmask = causal\nmask = k < 4\n", r"3:1"),
    "const_twice": (b"variant x\nconst n: int = 1\nconst n: int = 2\n", r"3:\d+"),
    "word_redefined": (b"variant x\nlet q = 3\n", r"2:5"),
    "recursion": (b"variant x\ndef f(a) = f(a - 1)\nscore = f(score)\n", r"2:12"),
    "bad_dtype": (b"variant x\ninput t: float8[heads]\n", r"2:10"),
    "bad_dimension": (b"variant x\ninput t: float32[-4]\nscore = score + t[h]\n", r"2:\d+"),
    "const_type": (b"variant x\nconst n: int = 1.5\n", r"2:\d+"),
    "keyword_param": (b"variant x\nparam lambda: float = 1.0\n", r"2:7"),
    "reserved_param": (b"variant x\nparam seed: int = 1\n", r"2:7"),
    "injected_name": (b"variant x;import os\n", r"1:\d+"),
    "injected_call": (b"variant x\nscore = __import__('os').system('true')\n", r"2:\d+"),
    "wrong_arguments": (b"variant x\nscore = softcap(score)\n", r"2:9"),
    "division_by_zero": (b"variant x\nmask = q // 0 == k\n", r"2:\d+"),
    "deep": (b"variant x\nscore = " + b"(" * 5000 + b"score" + b")" * 5000 + b"\n", r"2:\d+"),
    "long": (b"variant x\nscore = score" + b" + 1.0" * 20000 + b"\n", r"\d+:\d+"),
    "binary": (bytes(range(256)), r"\d+:\d+"),
    "not_utf8": (b"variant x\n# \xff\n", r"2:3"),
    "nul": (b"variant x\n\0\n", r"2:1"),
    "explosion": (
        b"variant x\nlet a0 = sin(score)\n"
        + b"".join(b"let a%d = sin(a%d) * cos(a%d)\n" % (i, i - 1, i - 1) for i in range(1, 2000))
        + b"score = a1999\n",
        r"\d+:\d+",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_spec_is_a_located_error_and_status_1(name: str, run: Run) -> None:
    text, place = WRONG[name]
    Path(f"{name}.attn").write_bytes(text)
    result = run("check", f"{name}.attn")
    assert (result.status, result.out) == (1, "")
    assert re.match(rf"{name}\.attn:{place}: error: \S", result.err), result.err[:300]
    assert "Traceback" not in result.err


def test_an_error_shows_the_line_a_caret_and_a_suggestion(run: Run) -> None:
    Path("gemma2.attn").write_text("variant gemma2\nparam cap: float = 50.0\nscore = sofcap(score, cap)\n")
    assert run("check", "gemma2.attn").err == (
        "gemma2.attn:3:9: error: unknown name 'sofcap'; did you mean 'softcap'?\n"
        "    score = sofcap(score, cap)\n"
        "            ^^^^^^\n"
    )


def test_all_files_are_checked_whatever_the_first_one_is(run: Run) -> None:
    Path("bad.attn").write_text("variant bad\nmask = 3\n")
    Path("worse.attn").write_text("variant worse\nscore = )\n")
    result = run("check", "bad.attn", "alibi", "no.attn", "worse.attn")
    assert result.status == 1
    assert result.out == "alibi.attn: ok: alibi(q, k, v, *, slopes)\n"
    for expected in ("bad.attn:2:8: error: ", "no.attn", "worse.attn:2:9: error: "):
        assert expected in result.err


def test_a_lint_is_a_warning_and_status_0(run: Run) -> None:
    Path("odd.attn").write_text("variant odd\nconst n: int = 3\nlet causal = k <= pos\nmask = causal\n")
    result = run("check", "odd.attn")
    assert result.status == 0
    assert re.search(r"^odd\.attn:3:\d+: warning: ", result.err, re.MULTILINE)
    assert "odd.attn: ok" in result.out


def test_a_warning_shows_its_line_with_a_caret(run: Run) -> None:
    Path("odd.attn").write_text("variant odd\nmask = dist > 0\n")
    assert run("check", "odd.attn").err.splitlines() == [
        "odd.attn:2:1: warning: query q = 0 sees no key (q_len = 1, k_len = 1): its output is 0 [blind-rows]",
        "    mask = dist > 0",
        "    ^^^^^^^^^^^^^^^",
    ]


def test_a_strict_check_fails_on_a_warning_alone(run: Run) -> None:
    Path("odd.attn").write_text("variant odd\nmask = dist > 0\n")
    assert run("check", "--strict", "odd.attn").status == 1
    assert run("check", "--strict", "alibi").status == 0


def test_all_errors_of_types_are_shown_at_once(run: Run) -> None:
    Path("many.attn").write_text("variant many\nscore = score + causal\nmask = dist\n")
    assert re.findall(r"many\.attn:(\d)", run("check", "many.attn").err) == ["2", "3"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["frobnicate"],
        ["show", "alibi", "--stage", "soup"],
        ["build", "alibi"],
        ["build", "alibi", "-o", "x", "--set", "window"],
        ["build", "alibi", "-o", "x", "--set", "window=wide"],
        ["build", "alibi", "-o", "x", "--backend", "abacus"],
        ["mask", "alibi", "--q", "-3"],
        ["test", "alibi", "--examples", "0"],
        ["compile-check", "alibi", "--head-dim", "big"],
    ],
)
def test_a_wrong_call_is_status_2(arguments: list[str], run: Run) -> None:
    assert run(*arguments).status == 2


def test_the_version_and_the_help_are_status_0(run: Run) -> None:
    assert run("--version").out.startswith("attngen")
    assert "compile-check" in run("--help").out


def test_new_writes_a_spec_that_passes_check(run: Run) -> None:
    assert run("new", "local_softcap").status == 0
    result = run("check", "local_softcap.attn")
    assert (result.status, result.err) == (0, "")


def test_new_names_every_clause_and_what_may_follow_an_input(run: Run) -> None:
    assert run("new", "mine").status == 0
    words = set(re.findall(r"[a-z]+", Path("mine.attn").read_text()))
    assert words >= {*CLAUSES, *STATEMENTS, "grad", "sorted"}


def test_new_says_when_the_zoo_has_a_spec_of_that_name(run: Run) -> None:
    assert run("new", "causal").out.endswith("('causal' alone names the zoo's spec, not this file)\n")
    assert "zoo" not in run("new", "mine").out


def test_new_does_not_overwrite(run: Run) -> None:
    Path("mine.attn").write_text("precious")
    result = run("new", "mine")
    assert (result.status, Path("mine.attn").read_text()) == (1, "precious")
    assert "exists already" in result.err


@pytest.mark.parametrize("name", ["4th", "a-b", "é", "", "no/such/folder/x", "a\nb"])
def test_new_refuses_names_that_no_variant_can_have(name: str, run: Run) -> None:
    result = run("new", name)
    assert result.status == 1
    assert result.err.startswith("error: ")
    assert list(Path().rglob("*")) == []


def test_zoo_lists_one_spec_a_line_and_prints_one(run: Run) -> None:
    lines = run("zoo").out.splitlines()
    assert [line.split()[0] for line in lines] == zoo_names()
    assert all(len(line.split()) > 3 for line in lines)
    assert run("zoo", "alibi").out == (ROOT / "attngen/zoo/alibi.attn").read_text()
    assert run("zoo", "allibi").status == 1


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("ast", ["Clause", "name: Ident slopes", "function: Ident abs"]),
        ("ir", ["score = score - slopes[h] * abs(", "mask = "]),
        ("ranges", ["q_first", "k_len", "all keep ["]),
        ("plan", ["alibi"]),
        ("triton", ["@triton.jit", "def alibi("]),
    ],
)
def test_show_prints_each_stage(stage: str, expected: list[str], run: Run) -> None:
    result = run("show", "alibi", "--stage", stage)
    assert (result.status, result.err) == (0, "")
    assert [text for text in expected if text not in result.out] == []


def test_show_of_the_printed_ir_is_itself(run: Run) -> None:
    text = run("show", "prefix_lm", "--stage", "ir").out
    Path("again.attn").write_text(text)
    assert run("show", "again.attn", "--stage", "ir").out == text


def test_show_takes_consts(run: Run) -> None:
    assert "77" in run("show", "sliding_window", "--stage", "ir", "--set", "window=77").out


@pytest.mark.parametrize("setting", ["windw=3", "window=1.5", "window=True"])
def test_a_setting_that_the_spec_does_not_take_is_an_error(setting: str, run: Run) -> None:
    result = run("build", "sliding_window", "-o", "out", "--set", setting)
    assert result.status == 1
    assert re.match(r"(sliding_window\.attn(:\d+:\d+)?: )?error: .*window", result.err)
    assert not Path("out").exists()


def test_build_writes_modules_of_their_own(run: Run) -> None:
    result = run("build", "alibi", "causal", "-o", "out/kernels")
    assert (result.status, result.err) == (0, "")
    assert result.out == "wrote out/kernels/alibi.py\nwrote out/kernels/causal.py\n"
    assert sorted(p.name for p in Path("out/kernels").iterdir()) == ["alibi.py", "causal.py"]
    for path in Path("out/kernels").iterdir():
        ast.parse(path.read_text())
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_build_writes_nothing_where_one_spec_is_wrong(run: Run) -> None:
    Path("bad.attn").write_text("variant bad\nmask = 3\n")
    result = run("build", "alibi", "bad.attn", "-o", "out")
    assert result.status == 1
    assert result.err.startswith("bad.attn:2:8: error: ")
    assert not Path("out").exists()


def test_build_refuses_two_specs_of_one_name(run: Run) -> None:
    Path("alibi.attn").write_text("variant alibi\n")
    result = run("build", "alibi", "alibi.attn", "-o", "out")
    assert result.status == 1
    assert "'alibi'" in result.err
    assert not Path("out").exists()


def test_build_check_fails_only_where_a_file_would_change(run: Run) -> None:
    result = run("build", "causal", "-o", "out", "--check")
    assert (result.status, result.err) == (1, "out/causal.py: would be written\n")
    assert not Path("out").exists()
    run("build", "causal", "-o", "out")
    assert run("build", "causal", "-o", "out", "--check").status == 0
    path = Path("out/causal.py")
    path.write_text(path.read_text() + "# edited\n")
    result = run("build", "causal", "-o", "out", "--check")
    assert (result.status, result.err) == (1, "out/causal.py: would change\n")
    assert path.read_text().endswith("# edited\n")


def test_build_into_what_is_no_folder_is_a_clear_error(run: Run) -> None:
    Path("out").write_text("a file")
    result = run("build", "causal", "-o", "out")
    assert result.status == 1
    assert result.err.startswith("error: cannot write out")


def test_build_leaves_the_old_file_where_writing_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("build", "causal", "-o", "out")
    before = Path("out/causal.py").read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert (
        run("build", "causal", "-o", "out").err
        == "error: cannot write out/causal.py: No space left on device\n"
    )
    assert [p.read_text() for p in Path("out").iterdir()] == [before]


def test_learned_inputs_build(run: Run) -> None:
    Path("learned.attn").write_text("variant learned\ninput t: float32[heads] grad\nscore = score + t[h]\n")
    assert run("check", "learned.attn").status == 0
    result = run("build", "learned.attn", "-o", "out")
    assert (result.status, result.err) == (0, "")
    text = Path("out/learned.py").read_text()
    assert "def learned(" in text
    compile(text, "learned.py", "exec")


def test_check_takes_consts_and_judges_them(run: Run) -> None:
    spec = "variant sized\nconst n: int = 4\ninput t: float32[n]\nscore = score + t[q % n]\n"
    Path("sized.attn").write_text(spec)
    assert run("check", "sized.attn", "--set", "n=9").status == 0
    result = run("check", "sized.attn", "--set", "n=0")
    assert result.status == 1
    assert "a dim is between 1 and 2**30, not 0" in result.err
    assert "the constant divisor is zero" in result.err
    result = run("check", "sized.attn", "--set", "n=3", "--set", "n=4")
    assert result.status == 2
    assert "'n' is set twice" in result.err


@pytest.mark.parametrize(
    ("name", "line"), [("cap", "2:7: error: 'cap' is a param"), ("t", "3:7: error: 't' is an input")]
)
def test_setting_what_a_call_is_given_says_so_and_where_to_give_it(name: str, line: str, run: Run) -> None:
    text = (
        "variant held\nparam cap: float = 5.0\ninput t: float32[heads]\nscore = softcap(score, cap) + t[h]\n"
    )
    Path("held.attn").write_text(text)
    result = run("check", "held.attn", "--set", f"{name}=3.0")
    assert result.status == 1
    assert result.err.startswith(
        f"held.attn:{line}, which a call is given: only a const can be set beforehand"
    )
    assert f"call held(q, k, v, {name}=...), or declare a const" in result.err


def test_a_setting_that_overflows_is_refused_and_the_word_inf_is_not(run: Run) -> None:
    Path("capped.attn").write_text("variant capped\nconst most: float = 9.0\nscore = min(score, most)\n")
    result = run("check", "capped.attn", "--set", "most=1e400")
    assert result.status == 2 and "the value is too large for float32" in result.err
    assert run("check", "capped.attn", "--set", "most=inf").status == 0


def test_every_setting_that_is_none_is_told_at_once(run: Run) -> None:
    result = run("check", "alibi", "--set", "a=x", "--set", "b", "--set", "c=1", "--set", "c=2")
    assert result.status == 2
    said = " ".join(result.err.replace("│", " ").split())
    assert [text for text in ("'a=x' is not", "'b' is not", "'c' is set twice") if text not in said] == []


def test_mask_draws_the_triangle(run: Run) -> None:
    picture = run("mask", "causal", "--q", "16", "--k", "16").out.splitlines()[-8:]
    assert picture == ["█▒" + "·" * 14, "███▒" + "·" * 12] + [
        "█" * (2 * i + 1) + "▒" + "·" * (14 - 2 * i) for i in range(2, 8)
    ]


def test_mask_says_what_it_made_up(run: Run) -> None:
    assert "made up: prefix = 21" in run("mask", "prefix_lm", "--q", "64", "--k", "64").out
    assert "made up" not in run("mask", "prefix_lm", "--q", "64", "--k", "64", "--set", "prefix=9").out


def rows(result: Result) -> list[str]:
    """The picture alone."""
    return [line for line in result.out.splitlines() if line and set(line) <= set("·░▒▓█")]


@pytest.mark.parametrize("name", share(zoo_names(), 6))
def test_mask_draws_every_zoo_spec(name: str, run: Run) -> None:
    result = run("mask", name, "--q", "3", "--k", "5", "--set", "heads=4", "--set", "kv_heads=2")
    assert (result.status, result.err) == (0, "")
    assert [len(line) for line in rows(result)] == [5, 5]


@pytest.mark.parametrize("value", ["1e300", "-1e300", "nan", "inf", "7", str(2**100)])
def test_a_float_input_takes_any_number(value: str, run: Run) -> None:
    Path("gate.attn").write_text(
        "variant gate\ninput t: float16[heads]\nmask = t[h] == t[h] and t[h] > 0.0\n"
    )
    drawn = rows(run("mask", "gate.attn", "--q", "2", "--k", "2", "--set", f"t={value}"))
    assert drawn == ["··" if value in ("-1e300", "nan") else "██"]


def test_mask_takes_consts(run: Run) -> None:
    assert rows(run("mask", "sliding_window", "--q", "4", "--k", "4", "--set", "window=1")) == [
        "▒▒··",
        "··▒▒",
    ]
    assert rows(run("mask", "sliding_window", "--q", "4", "--k", "4", "--set", "window=4")) == [
        "▓▒··",  # no tile holds this few keys whole
        "▓▓▓▒",
    ]


def test_mask_takes_sizes_of_the_call_and_of_inputs(run: Run) -> None:
    Path("sized.attn").write_text(
        "variant sized\ninput t: int32[n]\nmask = k < heads + kv_heads + head_dim // 32 + n + t[0] - t[0]\n"
    )
    base = ["mask", "sized.attn", "--q", "1", "--k", "64", "--set", "t=0"]
    assert rows(run(*base)) == ["█" * 20 + "·" * 44]
    sizes = ["--set", "heads=8", "--set", "kv_heads=2", "--set", "head_dim=128", "--set", "n=10"]
    assert rows(run(*base, *sizes)) == ["█" * 24 + "·" * 40]


def test_every_misfit_of_a_masks_settings_is_told_at_once(run: Run) -> None:
    Path("many.attn").write_text(
        "variant many\nconst n: int = 3\nparam r: int\nparam f: bool = True\ninput t: int32[heads]\n"
        "mask = dist < n + r + t[h] or f\n"
    )
    pairs = ["r=1.5", "f=2", "t=3000000000", "heads=0", "q_len=4", "wide=1", "nn=3"]
    result = run("mask", "many.attn", *(part for pair in pairs for part in ("--set", pair)))
    assert result.status == 2
    said = " ".join(result.err.replace("│", " ").split())
    wanted = [
        "r is an int32, not 1.5",
        "f is a bool, not 2",
        "t is an int32, not 3000000000",
        "the size heads is an int from 1 to 16384, not 0",
        "q_len is set by --q",
        "there is no 'wide' to set",
        "did you mean 'n'?",
    ]
    assert [text for text in wanted if text not in said] == []


def test_a_mask_names_every_param_that_it_lacks(run: Run) -> None:
    Path("lacks.attn").write_text("variant lacks\nparam r: int\nparam s: int\nmask = r <= dist < s\n")
    result = run("mask", "lacks.attn")
    assert result.status == 1
    assert "--set r=VALUE --set s=VALUE" in result.err
    assert run("mask", "lacks.attn", "--set", "r=0", "--set", "s=4").status == 0


def test_mask_of_heads_that_do_not_divide_is_a_usage_error(run: Run) -> None:
    result = run("mask", "causal", "--set", "heads=3", "--set", "kv_heads=2")
    assert result.status == 2
    assert "no multiple" in result.err


def test_mask_writes_a_png(run: Run) -> None:
    pytest.importorskip("matplotlib")
    assert run("mask", "causal", "--q", "32", "--k", "32", "-o", "pictures/mask.png").status == 0
    assert Path("pictures/mask.png").read_bytes().startswith(b"\x89PNG")


def test_mask_without_matplotlib_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("matplotlib", "matplotlib.colors", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    result = run("mask", "causal", "-o", "mask.png")
    assert result.status == 1
    assert "attngen[plot]" in result.err


def attngen(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """``python -m attngen ARGS`` in a process of its own."""
    return python("-m", "attngen", *args, **env)


def python(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """``python ARGS`` in a process of its own."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **env},
        timeout=300,
        check=False,
    )


WIDE = ("neighbourhood_2d", "hopper_backward", "sm_90", "ok; 64 bytes spilled; " + "a long tale " * 20)


def print_wide() -> None:
    table = cli._table("variant", "kernel", "target", "")
    table.add_row(*WIDE)
    cli._print_table(table)


def test_a_table_in_a_pipe_has_a_line_for_each_row_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    print_wide()
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["variant", "kernel", "target"]
    assert re.split(r" {2,}", line.strip()) == [cell.strip() for cell in WIDE]


@pytest.mark.parametrize("width", [40, 80])
def test_a_table_on_a_narrow_terminal_loses_no_letter(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "Console", lambda: Console(force_terminal=True, width=width, color_system=None))
    print_wide()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    text = "".join("".join(lines).split())
    assert "…" not in text
    assert sorted(text) == sorted("".join(("variant", "kernel", "target", *WIDE)).replace(" ", ""))


def test_the_module_runs_as_a_program() -> None:
    result = attngen("check", "alibi")
    assert (result.returncode, result.stdout, result.stderr) == (
        0,
        "alibi.attn: ok: alibi(q, k, v, *, slopes)\n",
        "",
    )


def test_test_passes_for_a_right_kernel() -> None:
    # Without TRITON_INTERPRET in the environment: the command sets it itself, in time.
    result = attngen("test", "causal", "--examples", "3", TRITON_INTERPRET="")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "causal" in result.stdout


def plan_of(lines: str, run: Run) -> str:
    Path("one.attn").write_text(f"variant one\n{lines}\n")
    return run("show", "one.attn", "--stage", "plan").out


def test_a_plan_begins_with_what_was_decided_and_keeps_every_line_under_its_heading(run: Run) -> None:
    # A derivative that shares terms is printed as lets and an expression.
    long = "score = score + " + " * ".join(f"tanh(score * {n}.0 + sin(float(q)))" for n in range(2, 9))
    text = plan_of(long, run)
    summary, tree = text.split("\n\n")
    assert [line.split(":")[0] for line in summary.split("\n")] == [
        "back end",
        "forward",
        "backward",
        "loops",
    ]
    head, *rest = tree.rstrip("\n").split("\n")
    assert head == "Plan" and all(line.startswith("  ") for line in rest)
    assert any(line.startswith("      let ") for line in rest)
    headings = [line.strip().split(":")[0] for line in rest if re.match(r"  \w", line)]
    assert headings[-2:] == ["tiles", "backend"] and "key_loops" in headings


@pytest.mark.parametrize(
    ("lines", "backward", "gradients"),
    [
        ("score = score + a[h]", "on sm_90, for heads of 33 to 128, one for all in Gluon; else", "a by sums"),
        (
            "score = score + a[h] ** 2 * tanh(score)",
            "one for all in Gluon, but for learned inputs; else",
            "a by sums",
        ),
        ("weight = weight * a[h]", "a kernel for dK and dV, another for dQ", "a by sums"),
        ("score = score + a[min(abs(dist), heads - 1)]", "a kernel for dK and dV", "a by bands"),
    ],
)
def test_a_plan_says_what_gives_which_gradients(lines: str, backward: str, gradients: str, run: Run) -> None:
    text = plan_of(f"input a: float32[heads] grad\n{lines}", run)
    assert re.search(f"^backward: .*{backward}", text, re.MULTILINE)
    assert f"\ngradients: {gradients}\n" in text


@pytest.mark.parametrize(
    ("line", "forward", "loops"),
    [
        ("mask = True", "online: in one pass; the weights of a row", "1 range, all of it without a mask,"),
        (
            "mask = causal",
            "online: in one pass; the weights of a row",
            "1 range, part of it without the mask,",
        ),
        ("mask = k % 3 == 0", "online: in one pass; the weights of a row", "1 range, queries"),
        ("normalize = relu", "at once: in one pass; a weight is final", "1 range, all of it without a mask,"),
        ("weight = max(weight - 0.1, 0.0)", "two passes: a first pass finds", "1 range, all of it"),
    ],
)
def test_a_plan_says_how_and_what_is_masked(line: str, forward: str, loops: str, run: Run) -> None:
    text = plan_of(line, run)
    assert f"\nforward: {forward}" in text and f"\nloops: keys in {loops}" in text


def test_a_plan_says_that_what_comes_in_tiles_gains_beside_wide_heads_alone(run: Run) -> None:
    text = plan_of("input a: float16[heads, q_len, k_len]\nscore = score + a[h, q, k]", run)
    assert "\nbackward: on sm_90, for heads of 65 to 128, one for all in Gluon; else" in text


def test_a_bench_on_a_cpu_runs_the_kernels_in_the_interpreter() -> None:
    # Without TRITON_INTERPRET in the environment, as above; else PyTorch would be held against itself.
    script = (
        "from attngen.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    import triton; print('interpreted:', triton.knobs.runtime.interpret)\n"
    )
    arguments = ("bench", "causal", "--device", "cpu", "--shape", "B1,H1,S16,D16", "--peers", "standard")
    result = python("-c", script, *arguments, "--budget", "0", TRITON_INTERPRET="")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "interpreted: True" in result.stdout
    assert "; float16" in result.stdout
    assert re.search(r"\| causal  \| forward  \| +\d+\.\d+ ", result.stdout)


def test_a_bench_in_bfloat16_on_a_cpu_is_refused_with_what_works(run: Run) -> None:
    result = run("bench", "causal", "--device", "cpu", "--dtype", "bfloat16")
    assert result.status == 2
    assert "float16 (the default there) or float32" in " ".join(re.sub("[│╭╮╰╯─]", "", result.err).split())


@pytest.mark.compiled
def test_compile_check_prints_a_table() -> None:
    result = attngen("compile-check", "causal", "--target", "sm_90", "--head-dim", "64", TRITON_INTERPRET="")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "sm_90" in result.stdout


@pytest.mark.compiled
def test_compile_check_of_an_unknown_target_is_an_error() -> None:
    result = attngen("compile-check", "causal", "--target", "sm_3", TRITON_INTERPRET="")
    assert result.returncode in (1, 2)
    assert "sm_3" in result.stderr
    assert "Traceback" not in result.stderr
