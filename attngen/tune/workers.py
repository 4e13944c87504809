"""Jobs in processes that may break: a kernel that faults or hangs takes its process along, and nothing else.

After an illegal access CUDA refuses all that a process asks of it, so that such a process is replaced.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Workers(Generic[Job, Result]):
    """``count`` processes that work off jobs, the first ones first.

    ``work`` gives a job's result, and whether its process can go on. ``lost`` is the result of a job whose
    process died, or that took more than ``longest`` seconds.
    """

    def __init__(
        self, work: Callable[[Job], tuple[Result, bool]], count: int, lost: Result, longest: float = 120.0
    ) -> None:
        self._work, self._count, self._lost, self._longest = work, count, lost, longest

    def results(
        self, jobs: Sequence[Job], until: float, grace: float = float("inf")
    ) -> Iterator[tuple[Job, Result]]:
        """Each job with its result, as they come; jobs that are not begun before ``until`` have none.

        ``until`` is a time of ``time.monotonic``; what has begun is lost ``grace`` seconds after it. Closing
        the iterator ends all processes.
        """
        last = until + grace
        waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        found: queue.SimpleQueue[tuple[Job, Result] | None] = queue.SimpleQueue()
        stop = [until]

        def serve() -> None:
            try:
                while time.monotonic() < stop[0] and not waiting.empty():
                    self._one_process(waiting, found, stop, last)
            finally:
                found.put(None)

        count = max(1, min(self._count, len(jobs)))
        with ThreadPoolExecutor(count) as threads:
            for _ in range(count):
                threads.submit(serve)
            try:
                while count:
                    item = found.get()
                    if item is None:
                        count -= 1
                    else:
                        yield item
            finally:
                stop[0] = 0.0

    def _one_process(
        self,
        waiting: queue.SimpleQueue[Job],
        found: queue.SimpleQueue[tuple[Job, Result] | None],
        stop: Sequence[float],
        last: float,
    ) -> None:
        """Work off jobs in one process, for as long as it can go on."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        process.start()
        theirs.close()
        try:
            usable = True
            while usable and time.monotonic() < stop[0]:
                try:
                    job = waiting.get_nowait()
                except queue.Empty:
                    return
                result, usable = self._answer(ours, job, stop, last)
                found.put((job, result))
        finally:
            process.kill()
            process.join()

    def _answer(self, ours: Connection, job: Job, stop: Sequence[float], last: float) -> tuple[Result, bool]:
        until = min(time.monotonic() + self._longest, last)
        try:
            ours.send(job)
            while not ours.poll(0.2):
                if time.monotonic() > until or stop[0] == 0.0:
                    return self._lost, False
            answer: tuple[Result, bool] = ours.recv()
            return answer
        except (EOFError, OSError):
            return self._lost, False


def _serve(connection: Connection, work: Callable[[Job], tuple[Result, bool]]) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)  # what compilers print of a failure is pages
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(work(job))
