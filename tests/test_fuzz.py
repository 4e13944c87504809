"""Whatever the text, the compiler gives a kernel or a located error of its own: a sample of the fuzzer's run.

The run itself, of a million texts, is ``python -m tests.fuzz --count 1000000``.
"""

from __future__ import annotations

import random
from collections import Counter

import fuzz
import fuzz_specs
import pytest

from attngen.errors import SpecTypeError
from attngen.pipeline import check_spec
from attngen.source import Source
from attngen.syntax.parse import _parser, parse_statements


def sample(seed: int, count: int, deep: float) -> fuzz.Tally:
    found = fuzz.run_block(seed, 0, 0, count, deep, 120.0)
    shown = "\n".join(f"{f.place} for {f.spec!r}\n{f.trace}" for f in found.findings[:3])
    assert not found.findings, shown
    return found


def test_every_text_of_a_sample_becomes_a_kernel_or_a_located_error() -> None:
    counts = Counter(outcome for _, outcome in sample(3, 400, 0.1).counts.elements())
    # The sample says something only if texts end at every stage.
    wanted = {"kernel", "checked", "SpecSyntaxError", "SpecNameError", "SpecTypeError", "SpecErrors"}
    assert wanted <= set(counts), counts


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 14))
def test_every_text_of_a_larger_sample_becomes_a_kernel_or_a_located_error(seed: int) -> None:
    sample(seed, fuzz.BLOCK, 0.2)


# ---- The fuzzer itself -----------------------------------------------------------------------------------


def test_a_text_follows_from_its_seed_and_number_alone() -> None:
    assert fuzz_specs.block(5, 2, 150) == fuzz_specs.block(5, 2, 150)
    assert fuzz_specs.block(5, 2, 150)[:149] == fuzz_specs.block(5, 2, 149)
    assert fuzz_specs.block(5, 2, 150) != fuzz_specs.block(5, 3, 150)
    assert fuzz_specs.block(5, 2, 150) != fuzz_specs.block(6, 2, 150)


def test_a_resumed_run_covers_what_is_left_and_no_more() -> None:
    whole = [(n, i) for n, a, z in fuzz.blocks(0, 3500) for i in range(a, z)]
    assert whole == [(i // 1000, i % 1000) for i in range(3500)]
    parts = [
        (n, i)
        for first, count in ((0, 1700), (1700, 1800))
        for n, a, z in fuzz.blocks(first, count)
        for i in range(a, z)
    ]
    assert parts == whole


def test_derivations_use_every_production_of_the_grammar() -> None:
    used: set[object] = set()
    rng = random.Random(1)
    choose = rng.choice

    class Watched(random.Random):
        def choice(self, options):  # type: ignore[no-untyped-def]
            chosen = choose(options)
            used.add(chosen if hasattr(chosen, "expansion") else None)
            return chosen

    for _ in range(900):
        fuzz_specs.derive(Watched(1), "start", 25)
    rules = {r for r in _parser().rules if not r.origin.name.startswith("$")}
    assert rules <= used, rules - used


def test_what_the_grammar_derives_is_refused_for_its_meaning_only() -> None:
    """A derived expression parses: what stops it later is a name, a type or a bound."""
    rng = random.Random(2)
    for _ in range(200):
        text = " ".join(t for t in fuzz_specs.derive(rng, "expr", 14) if t.isascii() and len(t) <= 64)
        try:
            parse_statements(Source(f"let a = {text}"))
        except Exception as error:
            assert type(error).__name__ in ("SpecLimitError", "SpecValueError"), (text, error)


def test_every_token_of_a_text_is_kept_by_its_pieces() -> None:
    for text in fuzz_specs.block(7, 0, 200):
        if isinstance(text.spec, str):
            assert "".join(fuzz_specs.tokens_of(text.spec)) == text.spec


def test_a_foreign_exception_is_found_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: Source, **_: object) -> object:
        if "tanh" in source.text:
            raise KeyError("planted")
        return check_spec(source)

    monkeypatch.setattr(fuzz, "check_spec", broken)
    found = fuzz.run_block(3, 0, 0, 150, 0.0, 60.0).findings
    assert found
    small = fuzz.shrunk(found[0], 60.0)
    assert (small.spec, small.place[0]) == ("tanh", "KeyError")
    assert "planted" in small.trace


@pytest.mark.parametrize("place", [{}, {"line": 9}])
def test_an_error_without_a_place_in_the_text_is_a_finding(
    place: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from attngen.source import Span

    def nowhere(source: Source, **_: object) -> None:
        span = Span(place["line"], 1, place["line"], 2) if place else None
        raise SpecTypeError("wrong", source=source, span=span)

    monkeypatch.setattr(fuzz, "check_spec", nowhere)
    found = fuzz.try_one("any", "variant x", fuzz.Choices(False, "approx", -1.0), 60.0)
    assert isinstance(found, fuzz.Finding)
    assert found.place[0] == "NotLocated"


def test_a_text_that_takes_too_long_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(source: Source, **_: object) -> None:
        while True:
            pass

    monkeypatch.setattr(fuzz, "check_spec", forever)
    found = fuzz.try_one("any", "variant x", fuzz.Choices(False, "approx", -1.0), 0.05)
    assert isinstance(found, fuzz.Finding)
    assert found.place[0] == "TooSlow"
