"""Property tests of one variant: hypothesis draws calls, the criterion judges them, a failure is shrunk."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import torch
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from attngen.testing.cases import Case, arguments, cases
from attngen.testing.compare import Variant, assert_matches_reference
from attngen.testing.criteria import Verdict
from attngen.testing.kinds import SMALL, USUAL
from attngen.testing.reach import small_tiles
from attngen.testing.shrink import smallest
from attngen.testing.tensor import STRIDES

_SHRINK_SECONDS = 30.0  # after the first failure
_MOST_DRAWS = 4  # an example, where a spec has few different calls

# The simplest draw, and a random one. A longer run of hypothesis is mostly variations of few calls, in which
# two draws are made equal: q, k and v all zero, lengths all 1. They find little here.
_ONE_FRESH = hypothesis.settings(
    max_examples=2,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


@dataclass
class Report:
    """What a run found. ``worst`` maps (dtype, tensor) to the verdict with the largest ratio."""

    variant: str
    examples: int = 0  # judged, with the one that failed; what shrinking it tried is not counted
    worst: dict[tuple[str, str], Verdict] = field(default_factory=dict)
    failure: str | None = None  # the shrunk counter-example's report
    error: BaseException | None = None  # what it raised: an AssertionError, or whatever the kernel raised

    @property
    def passed(self) -> bool:
        return self.error is None

    def add(self, dtype: str, verdicts: Sequence[Verdict]) -> None:
        for verdict in verdicts:
            before = self.worst.get((dtype, verdict.name))
            if before is None or verdict.ratio > before.ratio:
                self.worst[dtype, verdict.name] = verdict

    def __str__(self) -> str:
        lines = [f"{self.variant}: {self.examples} examples, {'passed' if self.passed else 'FAILED'}"]
        if self.failure:
            return "\n".join([*lines, "", self.failure])
        for (dtype, name), verdict in sorted(self.worst.items()):
            lines.append(f"  {dtype:9} {name:20} {verdict.ratio:.3f} of its bound")
        return "\n".join(lines)


def run_property_tests(
    variant: Variant,
    *,
    examples: int,
    device: str = "cpu",
    dtypes: Sequence[str] | None = None,
    head_dims: Sequence[int] | None = None,
    seed: int = 0,
    max_length: int | None = None,
    strides: Sequence[str] = STRIDES,
    shrink_seconds: float = _SHRINK_SECONDS,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Judge ``variant`` on ``examples`` drawn calls; the same ``seed`` draws the same calls.

    The first are of several tiles by several, ragged; calls of nothing, of one and whatever comes along
    follow (``testing.kinds``). ``dtypes``, by turns, defaults to float16 and float32, and bfloat16 too on a
    CUDA device (Triton's interpreter gets it wrong). Lengths go up to ``max_length``, by default to several
    tiles, which are small in the interpreter for that. ``head_dims`` restricts head_dim and v_dim, by default
    to a few on CUDA, where each is a compilation; so is each of the memory layouts that ``strides``
    restricts. A failure is shrunk for ``shrink_seconds``. ``progress`` is called with the number of examples
    done. Never raises for a failure.
    """
    on_cpu = device == "cpu"
    if dtypes is None:
        dtypes = ("float16", "float32") if on_cpu else ("bfloat16", "float16", "float32")
    if head_dims is None and not on_cpu:
        head_dims = (64, 80, 128)
    if max_length is None:
        max_length = 70 if on_cpu else 300
    report = Report(variant.name)

    def calls(nth: int) -> st.SearchStrategy[Case]:
        return cases(
            variant.ir,
            dtypes=dtypes,
            head_dims=head_dims,
            max_length=max_length,
            strides=strides,
            nth=nth,
            tiles=SMALL if on_cpu else USUAL,
        )

    seen: set[Case] = set()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small are slower on many
    try:
        with small_tiles(variant), warnings.catch_warnings():
            # numpy's, of scores that the mask takes away: a GPU says nothing of them.
            warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"triton\.runtime\.interpreter")
            for nth in range(_MOST_DRAWS * examples):
                case = _drawn(calls(nth), f"{seed}.{nth}")
                if case is None or case in seen:
                    continue
                seen.add(case)
                report.examples += 1
                try:
                    report.add(case.dtype, _judge(variant, case, device))
                except Exception as error:
                    report.error = _shrunk(
                        variant, case, error, device, head_dims or (16, 24), shrink_seconds
                    )
                    break
                if progress:
                    progress(report.examples)
                if report.examples == examples:
                    break
    finally:
        torch.set_num_threads(threads)
    if (failed := report.error) is not None:
        is_verdict = isinstance(failed, AssertionError)
        report.failure = str(failed) if is_verdict else f"{type(failed).__name__}: {failed}"
    return report


def _shrunk(
    variant: Variant, case: Case, error: Exception, device: str, head_dims: Sequence[int], seconds: float
) -> Exception:
    """What the smallest call raises that was found to fail within the time."""
    errors: dict[Case, Exception | None] = {case: error}
    until = time.monotonic() + seconds

    def fails(case: Case) -> bool:
        if case not in errors:
            if time.monotonic() > until:
                return False
            errors[case] = None
            try:
                _judge(variant, case, device)
            except Exception as error:
                errors[case] = error
        return errors[case] is not None

    return errors[smallest(case, variant.ir, fails, head_dims)] or error


def _drawn(strategy: st.SearchStrategy[Case], seed: str) -> Case | None:
    """A random one of the strategy's cases; None in the rare case that hypothesis draws none."""
    found: list[Case] = []

    def keep(ticket: int, case: Case) -> None:
        if ticket:  # 0 in the simplest draw, which hypothesis tries first
            found.append(case)

    given = hypothesis.given(ticket=st.integers(0, 2**30), case=strategy)
    hypothesis.seed(seed)(_ONE_FRESH(given(keep)))()
    return found[0] if found else None


def _judge(variant: Variant, case: Case, device: str) -> list[Verdict]:
    made = case.tensors(device)
    named: dict[str, Any] = arguments(case, made)
    q, k, v = (made[name] for name in "qkv")
    return assert_matches_reference(
        variant, q, k, v, dout=made["dout"], seed=case.seed, layout=case.layout, **named
    )
