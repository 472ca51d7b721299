"""A few threads for calls that block, which nobody waits for at the end.

``ThreadPoolExecutor`` would: a controller that is told to stop would hang for as long as an
endpoint that does not answer is waited for.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple["Future[Any]", Callable[[], Any]]


class Threads:
    """At most ``count`` threads, started as they are needed; used by one event loop.

    Args:
        count: how many.
        name: what they are called.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._started = 0
        self._busy = 0
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """Do work in a thread, after what came before. Work that is cancelled before its turn is
        not begun; work that has begun goes on.

        Raises: what ``work`` raises; RuntimeError, once closed.
        """
        if self._closed:
            raise RuntimeError("closed")
        job: Future[T] = Future()
        self._jobs.put((job, work))
        self._busy += 1
        if self._busy > self._started < self._count:
            self._started += 1
            name = f"{self._name}-{self._started}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        try:
            return await asyncio.wrap_future(job)
        finally:
            self._busy -= 1

    def close(self) -> None:
        """Begin nothing more: what waits for a thread fails, and idle threads end."""
        self._closed = True
        while True:
            try:
                waiting = self._jobs.get_nowait()
            except queue.Empty:
                break
            if waiting is not None and waiting[0].set_running_or_notify_cancel():
                waiting[0].set_exception(RuntimeError("closed"))
        for _ in range(self._started):
            self._jobs.put(None)

    def _serve(self) -> None:
        while (taken := self._jobs.get()) is not None:
            job, work = taken
            if not job.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:
                job.set_exception(error)
            else:
                job.set_result(result)
            del job, work, taken
