"""What every test process needs before anything imports triton."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Triton chooses its interpreter when it is imported. Here the CPU tests are the rule; `make test` runs the
# others with TRITON_INTERPRET=0.
os.environ.setdefault("TRITON_INTERPRET", "1")

# Kernels built by tests stay out of the user's cache.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.mkdtemp(prefix="attngen-tests-")
    os.environ["XDG_CACHE_HOME"] = _cache
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)

# The same examples in every run, and no clock: a slow machine is no failure. New ones:
# `--hypothesis-profile=search`.
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ["TRITON_INTERPRET"] not in ("", "0"):
        reason = "runs Triton's compiler, which the interpreter replaces: TRITON_INTERPRET=0"
        for item in items:
            if "compiled" in item.keywords or "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    if os.environ["TRITON_INTERPRET"] not in ("", "0") and "triton" in sys.modules:
        from quick_interpreter import remember_builtins

        remember_builtins()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small are slower on many."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
