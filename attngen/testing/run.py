"""Property tests of one variant: hypothesis draws calls, the criterion judges them, a failure is shrunk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import torch
from hypothesis import HealthCheck, Phase

from attngen.testing.cases import Case, arguments, cases
from attngen.testing.compare import Variant, assert_matches_reference
from attngen.testing.criteria import Verdict
from attngen.testing.reach import small_tiles
from attngen.testing.tensor import STRIDES

_SHRINK_SECONDS = 30.0  # after the first failure
_MOST_RUNS = 4  # of hypothesis an example, where a spec has few different calls

# The plainest call and a random one. A longer run of hypothesis is mostly variations of few calls, in which
# two draws are made equal: q, k and v all zero, lengths all 1. They find little here.
_ONE_FRESH = hypothesis.settings(
    max_examples=2,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    print_blob=False,
)


@dataclass
class Report:
    """What a run found. ``worst`` maps (dtype, tensor) to the verdict with the largest ratio."""

    variant: str
    examples: int = 0
    worst: dict[tuple[str, str], Verdict] = field(default_factory=dict)
    failure: str | None = None  # the shrunk counter-example's report
    error: BaseException | None = None  # what it raised: an AssertionError, or whatever the kernel raised

    @property
    def passed(self) -> bool:
        return self.error is None

    def add(self, dtype: str, verdicts: Sequence[Verdict]) -> None:
        self.examples += 1
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

    ``dtypes`` defaults to float16 and float32, and bfloat16 too on a CUDA device (Triton's interpreter
    gets it wrong). Lengths go up to ``max_length``, by default to several tiles, which are small in the
    interpreter for that. ``head_dims`` restricts head_dim and v_dim, by default to a few on CUDA, where each
    is a compilation; so is each of the memory layouts that ``strides`` restricts. A failure is shrunk for
    ``shrink_seconds``. ``progress`` is called with the number of examples done. Never raises for a failure.
    """
    on_cpu = device == "cpu"
    if dtypes is None:
        dtypes = ("float16", "float32") if on_cpu else ("bfloat16", "float16", "float32")
    if head_dims is None and not on_cpu:
        head_dims = (64, 80, 128)
    if max_length is None:
        max_length = 70 if on_cpu else 300
    report = Report(variant.name)
    passed: set[Case] = set()
    failed: set[Case] = set()
    give_up = float("inf")

    def check(case: Case) -> None:
        nonlocal give_up
        if case in passed:
            return
        if time.monotonic() > give_up and case not in failed:
            return  # enough shrinking: only the smallest failure found so far still fails
        made = case.tensors(device)
        named: dict[str, Any] = arguments(case, made)
        try:
            verdicts = assert_matches_reference(
                variant,
                made["q"],
                made["k"],
                made["v"],
                dout=made["dout"],
                seed=case.seed,
                layout=case.layout,
                **named,
            )
        except Exception:
            failed.add(case)
            give_up = min(give_up, time.monotonic() + shrink_seconds)
            raise
        passed.add(case)
        report.add(case.dtype, verdicts)
        if progress and not failed:
            progress(report.examples)

    drawn = cases(variant.ir, dtypes=dtypes, head_dims=head_dims, max_length=max_length, strides=strides)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small are slower on many
    try:
        with small_tiles(variant):
            for number in range(_MOST_RUNS * examples):
                if report.examples < examples:
                    hypothesis.seed(f"{seed}.{number}")(_ONE_FRESH(hypothesis.given(case=drawn)(check)))()
    except Exception as error:
        report.error = error
        report.failure = (
            str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        )
    finally:
        torch.set_num_threads(threads)
    return report
