"""Tests in this folder need a CUDA device: `make test-gpu`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0")


@pytest.fixture(scope="session", autouse=True)
def gpu_of_this_worker() -> None:
    """Spread the tests over the GPUs there are."""
    if count := torch.cuda.device_count():
        torch.cuda.set_device(int(WORKER.removeprefix("gw")) % count)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = not torch.cuda.is_available()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if missing:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
