"""Plant a mutant in a copy of the package, and run there the check that must catch it.

    python tests/planting.py            writes docs/mutants.md: every mutant, and what its check said
    python tests/planting.py --missing  the same, but runs only those that the page lacks
    python tests/planting.py NAME...    prints what the checks of these mutants say

Nothing of the tree is touched: the copy's modules, templates and tests are found through PYTHONPATH, by a
process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mutants import BY_NAME, MUTANTS, SPECS, Mutant

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "mutants.md"

_SHIPPED = ("attngen", "grammar", "templates", "tests", "pyproject.toml")
_EXAMPLES = 30  # of a property run; a mutant fails within a few, the package itself runs them all
_SECONDS = 600


@dataclass(frozen=True)
class Outcome:
    """What a check said: ``error`` is the class of what it raised, "" where it passed."""

    error: str
    message: str

    @property
    def first_line(self) -> str:
        return self.message.split("\n")[0]


@contextmanager
def planted(mutant: Mutant | None) -> Iterator[Path]:
    """A copy of the package with the mutant in it, or of the package as it is."""
    with tempfile.TemporaryDirectory(prefix="attngen-mutant-") as made:
        folder = Path(made)
        for name in _SHIPPED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, folder / name)
        if mutant is not None:
            file = folder / mutant.file
            text = file.read_text(encoding="utf-8")
            assert text.count(mutant.old) == 1, f"{mutant.name}: its text stands not once in {mutant.file}"
            file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        yield folder


def outcome_of(check: str, mutant: Mutant | None, examples: int = _EXAMPLES) -> Outcome:
    """What ``check`` (see ``Mutant.caught_by``) says of the package with this mutant, or with none."""
    with planted(mutant) as folder:
        return property_run(check, folder, examples) if check in SPECS else _pytest(check, folder)


def python_path(folder: Path) -> str:
    """The copy's package first, then whatever else Python is told to find."""
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))


def environment(folder: Path, *, interpreted: bool) -> dict[str, str]:
    """Python with the copy's package, on one thread, with a cache of its own."""
    return {
        **os.environ,
        "PYTHONPATH": python_path(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TRITON_INTERPRET": str(int(interpreted)),
        "OMP_NUM_THREADS": "1",
        "ATTNGEN_CACHE_DIR": str(folder / "cache"),
    }


def run_in(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Python with the copy's package, in Triton's interpreter."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment(folder, interpreted=True),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )


_PROPERTY_RUN = """
import json, pathlib, sys
import attngen
from attngen.testing.run import run_property_tests

assert pathlib.Path(attngen.__file__).is_relative_to(sys.argv[1]), attngen.__file__
variant = attngen.compile(sys.argv[2], backend="triton")
report = run_property_tests(variant, examples=int(sys.argv[3]), shrink_seconds=float(sys.argv[4]))
error = "" if report.passed else type(report.error).__name__
print(json.dumps([error, report.failure or ""]))
"""


def spec_text(check: str, specs: Mapping[str, str] = SPECS) -> str:
    return f"variant {check}\n{specs[check]}\n"


def property_run(check: str, folder: Path, examples: int = _EXAMPLES, shrink_seconds: float = 0.0) -> Outcome:
    """What property tests of the copy in ``folder`` say of this spec."""
    done = run_in(folder, "-c", _PROPERTY_RUN, folder, spec_text(check), str(examples), str(shrink_seconds))
    if done.returncode:
        return Outcome("crash", done.stderr.strip().split("\n")[-1])
    return Outcome(*json.loads(done.stdout.strip().split("\n")[-1]))


def _pytest(check: str, folder: Path) -> Outcome:
    report = folder / "report.xml"
    quiet = ("-q", "-x", "-p", "no:cacheprovider", "--rootdir", folder, f"--junitxml={report}")
    done = run_in(folder, "-m", "pytest", *quiet, check)
    if not report.exists():
        return Outcome("crash", done.stderr.strip().split("\n")[-1])
    for case in ET.parse(report).iter("testcase"):
        for result in case:
            if result.tag in ("failure", "error"):
                message = result.get("message", "")
                kind, _, rest = message.partition(": ")
                if result.tag == "error":
                    return Outcome("crash", message)
                is_assertion = kind == "AssertionError" or message.startswith("assert ")
                return Outcome("AssertionError" if is_assertion else kind, rest or message)
    return Outcome("", "") if done.returncode == 0 else Outcome("crash", done.stdout[-500:])


def where_caught(mutant: Mutant) -> str:
    """The check, as the table says it."""
    if mutant.caught_by not in SPECS:
        return f"`{mutant.caught_by.removeprefix('tests/')}`"
    lines = SPECS[mutant.caught_by].split("\n")
    return f"property run of `{'; '.join(lines)}`" if any(lines) else "property run of full attention"


def row(mutant: Mutant) -> str:
    """The columns of the table that the list alone decides."""
    return f"| {mutant.meaning} | `{mutant.file}` | {where_caught(mutant)} |"


_HEAD = f"""# Planted mutants

A test kit is as good as the errors that it catches. Each line is a small error as people make them, planted
in a copy of the package: in a template, in the emitter, in the plan or in an analysis. Its check must then
fail, by an assertion and not by a crash, and passes without the mutant. A property run is `attngen test` of
that spec: up to {_EXAMPLES} calls, in Triton's interpreter. "says" is the first line of the failure.

`tests/mutants.py` has the mutants, `tests/test_mutants.py` holds them to this (`make test` a few of them,
`make test-slow` all), and `python tests/planting.py` writes this page. `tests/test_testing.py` plants more
in kernels written for that, which test the criterion alone. The kernels for sm_90 have their own on a GPU:
`tests/mutants_on_gpu.py`, `python tests/planting_on_gpu.py`.

How many calls it takes: a run begins with ragged calls of several tiles by several, a batch of grouped heads
and a mask that matters (`attngen/testing/kinds.py`). On 2026-11-21 the first 49 of this list that property
runs catch were planted, with runs as they were before, which drew calls of any size, and as they are:

| mutants caught by | 1 call | 2 calls | 5 calls | 10 calls |
| --- | --- | --- | --- | --- |
| calls of any size | 19 | 19 | 39 | 46 |
| calls of several tiles first | 41 | 47 | 49 | 49 |

"""


def known_rows() -> dict[str, str]:
    """The lines of the page as it is, by the name of their mutant."""
    lines = TABLE.read_text("utf-8").splitlines()
    found = {m.name: [line for line in lines if line.startswith(row(m) + " ")] for m in MUTANTS}
    return {name: line[0] for name, line in found.items() if line}


def write_table(outcomes: dict[str, Outcome], known: dict[str, str]) -> None:
    """The page: what was found now, and ``known`` lines for the others."""
    head = ["| the error | in | caught by | says |", "| --- | --- | --- | --- |"]
    said = {name: _cell(outcome.first_line) for name, outcome in outcomes.items()}
    rows = [f"{row(m)} {said[m.name]} |" if m.name in said else known[m.name] for m in MUTANTS]
    TABLE.write_text(_HEAD + "\n".join([*head, *rows]) + "\n", "utf-8")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").strip()


def main(names: list[str]) -> int:
    known = known_rows() if names == ["--missing"] else {}
    if names == ["--missing"]:
        chosen, names = [m for m in MUTANTS if m.name not in known], []
    else:
        chosen = [BY_NAME[name] for name in names] or list(MUTANTS)
    with ThreadPoolExecutor(int(os.environ.get("WORKERS", "1"))) as pool:
        found = pool.map(lambda m: outcome_of(m.caught_by, m), chosen)
        outcomes = {}
        for mutant, outcome in zip(chosen, found, strict=True):
            outcomes[mutant.name] = outcome
            print(f"{mutant.name}: {outcome.error or 'SURVIVED'}: {outcome.first_line}", flush=True)
    caught = all(o.error == "AssertionError" for o in outcomes.values())
    if caught and not names:
        write_table(outcomes, known)
    return 0 if caught else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
