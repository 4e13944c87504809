"""The emitted file as a whole: clean, deterministic, quickly made, refused only with a located error."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from spec_strategies import specs as odd_specs
from zoo_share import share

from attngen.emit.compose import make_view
from attngen.emit.prose import escaped, folded, paragraph
from attngen.emit.render import inspect, render, template_texts
from attngen.errors import AttnGenError
from attngen.pipeline import check_spec, compile_spec
from attngen.resources import zoo_dir
from attngen.source import Source
from attngen.testing import specs

ROOT = Path(__file__).parents[1]
ZOO = sorted(path.stem for path in zoo_dir().glob("*.attn"))
EACH = 3  # emitting a module takes some 0.3 s: the others are slow tests


def text_of(spec: str) -> str:
    return compile_spec(Source(spec, "x.attn")).text


@cache
def zoo_text(name: str) -> str:
    return text_of((zoo_dir() / f"{name}.attn").read_text())


@pytest.mark.parametrize(
    "names", [ZOO[::EACH], pytest.param(ZOO, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_the_zoos_modules_are_clean_as_rendered(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / f"{name}.py").write_text(zoo_text(name))
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", "--output-format", "concise"]
    run = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *config, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("name", share(ZOO, EACH))
def test_a_module_holds_its_spec_and_its_reason(name: str) -> None:
    spec = (zoo_dir() / f"{name}.attn").read_text()
    ir = check_spec(Source(spec, name)).ir
    doc = ast.get_docstring(ast.parse(zoo_text(name)), clean=False)
    assert doc is not None
    kernels = "Triton and Gluon kernels" if "import gluon" in zoo_text(name) else "Triton kernels"
    assert doc.startswith(f"Attention variant {name}: {kernels}, forward and backward.")
    assert " ".join(ir.doc.split()) in " ".join(doc.split())
    assert f"\n    variant {name}\n" in doc
    assert "\\" not in doc and '"""' not in doc
    assert ("q_first..q_last" in doc) == ("\n    mask = " in doc)


def test_clauses_stand_above_their_code() -> None:
    text = text_of(
        "variant x\nparam cap: float\nlet near = abs(dist)\nscore = score - cap * near\nmask = near < 9"
    )
    (logits,) = (n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == "logits")
    assert [a.arg for a in logits.args.args[:3]] == ["dot", "pos", "k"]
    body = ast.get_source_segment(text, logits)
    assert body is not None
    assert (
        body.index("# let near = abs(dist)")
        < body.index("# score = score - cap * near")
        < body.index("return")
    )


@pytest.mark.parametrize(
    "spec",
    [
        "mask = causal\nscore = score - slope[h] * dist\ninput slope: float32[heads]",
        "input t: int32[n]\nmask = t[k] == t[q] and t[q] < 3 or causal",
    ],
)
def test_what_a_spec_does_not_use_leaves_no_trace(spec: str) -> None:
    lines = sorted(spec.splitlines(), key=lambda line: not line.startswith("input"))
    text = text_of("\n".join(["variant x", *lines]))
    for absent in (
        "FAST_TANH",
        "Seed",
        "threshold",
        "float_param",
        "truncate",
        "kept_scale",
        "import attngen",
    ):
        assert absent not in text


@pytest.mark.parametrize("name", share(ZOO, EACH))
def test_a_module_speaks_of_learned_inputs_where_it_has_some(name: str) -> None:
    ir = check_spec(Source((zoo_dir() / f"{name}.attn").read_text(), name)).ir
    words = " ".join(zoo_text(name).split())
    assert bool(re.search(r"\blearned inputs?\b", words)) is any(i.grad for i in ir.inputs)


def test_the_header_names_the_versions_that_the_package_asks_for() -> None:
    asked = re.findall(r'"((?:torch|triton)>=[\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert len(asked) == 2
    assert f"Written for {asked[0]} and {asked[1]}" in zoo_text("causal").split('"""')[1]


@pytest.mark.parametrize("name", share(ZOO, EACH))
def test_a_module_defines_no_function_that_nothing_reads(name: str) -> None:
    nodes = list(ast.walk(ast.parse(zoo_text(name))))
    defined = {n.name for n in nodes if isinstance(n, ast.FunctionDef)}
    read = {n.id for n in nodes if isinstance(n, ast.Name)}
    read |= {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    called_by_others = {name, "_"}  # the public function, and what is registered with torch
    assert {n for n in defined - read - called_by_others if not n.startswith("__")} == set()


def test_text_is_the_same_in_every_process() -> None:
    """Sets hash by address and by PYTHONHASHSEED: neither may reach the text."""
    spec = "\n".join(
        ["variant x"]
        + [f"input t{i}: float32[heads, n{i % 3}]" for i in range(6)]
        + [f"param p{i}: float" for i in range(6)]
        + [f"score = score * p{i} + t{i}[h, k % 7] * t{i}[h, q % 5] + tanh(score)" for i in range(6)]
        + ["mask = (dist % 3 == q // 4) or (k // 5 == q // 5 and dist * dist < 90)"]
    )
    code = "import sys; from attngen.pipeline import compile_spec; from attngen.source import Source\n"
    code += "junk = [object() for _ in range(int(sys.argv[1]))]\n"
    code += "sys.stdout.write(compile_spec(Source(sys.stdin.read(), 'x')).text)"

    def emitted(seed: int) -> str:
        run = subprocess.run(
            [sys.executable, "-c", code, str(seed * 1001)],
            input=spec,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        )
        return run.stdout

    assert emitted(1) == emitted(2) == text_of(spec)


# -- prose ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ['a """ b', "back\\slash \\n", 'ends in "', "caf\u00e9 \u2192 \U0001f600", "\\", '""""']
)
def test_escaped_text_is_read_back(text: str) -> None:
    safe = escaped(text)
    assert safe.isascii()
    assert ast.literal_eval(f'"""{safe}\n"""') == text + "\n"


def test_a_docstring_of_any_text_gives_a_module() -> None:
    spec = '"""It\\\'s \\"quoted\\", \\u202e turned, {{ v.name }} {% if %} # and \\\\ more."""\nvariant x\n'
    text = text_of(spec)
    assert text.isascii()
    doc = ast.get_docstring(ast.parse(text), clean=False)
    assert doc is not None and "{{ v.name }} {% if %}" in doc and "\u202e" in doc


def test_folded_lines_keep_their_indentation() -> None:
    parts = folded("    mask = " + " or ".join(["k == 3"] * 30), 60)
    assert all(len(p) <= 60 for p in parts)
    assert all(p.startswith("        ") for p in parts[1:])
    assert folded("") == [""]
    assert paragraph("a" * 50 + " " + "b" * 80).split("\n") == ["a" * 50, "b" * 80]


# -- bounds --------------------------------------------------------------------------------------------------

LETS = "\n".join(f"let x{i} = x{i - 1} * x{i - 1} + p" for i in range(1, 300))
LARGE = {
    "inputs": "\n".join(f"input t{i}: float32[heads, n{i}]" for i in range(200))
    + "\nscore = score + " + " + ".join(f"t{i}[h, k]" for i in range(200)),
    "params": "\n".join(f"param t{i}: float" for i in range(200))
    + "\nscore = score + " + " + ".join(f"t{i} * k" for i in range(200)),
    "squares": f"param p: float\nlet x0 = score * p\n{LETS}\nscore = x299",
    "scale": f"param p: float\nlet x0 = p\n{LETS}\nscale = x299; dropout = x298",
    "by_head": "input p: float32[heads]\nlet x0 = p[h]\n"
    f"{LETS.replace('+ p', '+ 0.5')}\nscore = score * x299",
    "divisor": "param p: int\nlet x0 = p\n"
    f"{LETS.replace('+ p', '% 1009 + p')}\nmask = dist % x299 == 0",
    "sum": "score = score + " + " + ".join(f"q * {i} % 7" for i in range(700)),
    "mask": "mask = " + " or ".join(f"dist % {i + 3} == {i}" for i in range(300)),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_a_large_spec_is_written_quickly_in_short_lines(name: str) -> None:
    plan = compile_spec(Source(f"variant x\n{LARGE[name]}\n", "x")).plan
    start = time.process_time()
    text = render(make_view(plan, template_texts()))
    assert time.process_time() - start < 6
    compile(text, "x", "exec")  # Python's parser has bounds of its own
    computed = [
        n.lineno for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Assign) and is_maths(n.value)
    ]
    lines = text.splitlines()
    assert max(len(lines[n - 1]) for n in computed) <= 140


def is_maths(value: ast.expr) -> bool:
    return isinstance(value, ast.BinOp | ast.Compare)


# -- fuzz ----------------------------------------------------------------------------------------------------


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(spec=specs())
def test_a_tame_spec_gives_a_module_or_a_located_error(spec: str) -> None:
    try:
        text = text_of(spec)
    except AttnGenError as error:
        assert error.line is not None
        return
    compile(text, "x", "exec")


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(spec=odd_specs())
def test_an_odd_spec_gives_a_module_or_a_located_error(spec: str) -> None:
    spec = spec.replace(" grad", "").replace("sink = t[h, b]\n", "")
    try:
        text = text_of(spec)
    except AttnGenError as error:
        assert error.line is not None
        return
    compile(text, "x", "exec")


@pytest.mark.parametrize(
    "text",
    [
        "import os",
        "from subprocess import run",
        "eval('1')",
        "def f(g):\n    return g()",
        "x = (1).__class__",
        "open('f')",
    ],
)
def test_a_module_that_does_more_than_the_templates_is_seen(text: str) -> None:
    with pytest.raises(AssertionError, match="the emitted module"):
        inspect(text)


def test_a_derivative_that_is_a_hoisted_value_is_computed_once() -> None:
    """score * f(pos): its derivative f(pos) is what the kernel has for each row already."""
    text = text_of("variant x\nscore = score * (1.0 + log(1 + max(pos, 0)))\nmask = causal")
    both = text.partition("def logits_and_derivative(")[2].partition("\n\n\n")[0]
    assert "tl.log" not in both
    assert both.partition("\n")[0] == "dot, subtotal):"


def test_a_gradient_by_column_takes_no_bounds_of_rows() -> None:
    """Read by row and by column, as FoX reads its gates: each of its places is a row's or a column's."""
    loop = zoo_text("fox").partition("def accumulate_dq(")[2].partition("\n\n\n")[0]
    assert "column < k_len" in loop
    assert "row" not in re.findall(r"\w+", loop)
