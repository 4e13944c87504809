"""Work for the tuner's processes to break on; apart from the tests, for processes that import little."""

from __future__ import annotations

import os
import time


def doubled(job: int) -> tuple[int, bool]:
    """Twice the job, and whether the process can go on: 13 kills it, of 7 it is not usable, 99 hangs."""
    if job == 13:
        os._exit(1)
    if job == 99:
        time.sleep(60)
    return 2 * job, job != 7
