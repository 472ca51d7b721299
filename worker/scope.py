"""What one turn may start and wait for; the loop can interrupt all of it from its own thread."""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.children import Spared, end_descendants, kill_descendants
from worker.errors import Interrupted

OUTPUT_TAIL_BYTES = 8 << 10

_READ_BYTES = 64 << 10
_READS_AT_ONCE = 32
_POLL_MS = 20  # where the system cannot tell of a process's end


@dataclass(frozen=True)
class Finished:
    """A process that ended."""

    exit_code: int
    """Negative: the number of the signal that ended it."""
    output: bytes
    errors: bytes
    """Empty if errors went into ``output``."""
    seconds: float


SPENDING = frozenset({"BudgetExceeded"})
"""Reasons to interrupt that only keep an agent from spending more."""


@dataclass(frozen=True)
class Answer:
    """A person's or rule's answer to a question."""

    decision: str
    """One of those offered: approve, approve-session, approve-always, deny or cancel."""
    by: str = ""
    reason: str = ""

    @property
    def approved(self) -> bool:
        """Whether the agent may go on with it."""
        return self.decision.startswith("approve")


class TurnScope:
    """One turn's processes, pauses and questions.

    Args:
        spared: the agent's own processes, which no interruption and no sweep ends.
    """

    def __init__(self, spared: Callable[[], Sequence[Spared]] = lambda: ()) -> None:
        self._changed = threading.Condition()
        self._spared = spared
        self._reason: str | None = None
        self._answers: dict[str, Answer] = {}
        self._watcher: Callable[[], None] = lambda: None
        self._spawned = False
        self._agent_done = False
        self._save_by: float | None = None
        self._saving = False
        self._order = ""

    def agent_done(self) -> None:
        """The agent has done its part: what only keeps it from spending more ends nothing now."""
        with self._changed:
            self._agent_done = True

    def spawned(self) -> None:
        """Somebody starts processes in this turn by other ways than ``run``: sweep them too."""
        self._spawned = True

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have ``watcher`` called (any thread) after an interruption and after each answer."""
        with self._changed:
            self._watcher = watcher
        watcher()

    def interrupt(self, reason: str, save_by: float | None = None) -> None:
        """End the turn as soon as possible (any thread); only the first reason counts.

        Args:
            save_by: until then (``time.monotonic()``) it may still save its work, see ``save``; a
                turn that only commits and pushes by now is not disturbed at all.  None: it may not.
        """
        with self._changed:
            if self._agent_done and reason in SPENDING:
                return
            if save_by is None:
                self._save_by = None
            else:
                self._order = self._order or reason
                self._changed.notify_all()
                earlier = self._save_by
                self._save_by = save_by if earlier is None else min(save_by, earlier)
                if self._agent_done or self._saving:
                    return
            if self._reason is None:
                self._reason = reason
            self._changed.notify_all()
            watcher = self._watcher
        watcher()
        if self._spawned:
            kill_descendants(self._spared())

    def order(self, seconds: float) -> str:
        """Why the worker must leave, if it is told so by now or within so many seconds; or nothing.

        A batch system that ends a job tells all of its processes at once: the end of one that the
        turn has started may be seen before the order itself.
        """
        with self._changed:
            self._changed.wait_for(lambda: bool(self._order), seconds)
            return self._order

    def save(self) -> bool:
        """Let the interrupted turn start processes once more, to save its work; whether it may.

        Call it once everything that the agent had started is gone.  Another interruption ends it.
        """
        with self._changed:
            if self._save_by is None or time.monotonic() >= self._save_by:
                return False
            self._reason, self._saving = None, True
            return True

    def answer(self, request_id: str, answer: Answer) -> None:
        """Give the answer to a question (any thread), asked already or not; the first counts."""
        with self._changed:
            self._answers.setdefault(request_id, answer)
            self._changed.notify_all()
            watcher = self._watcher
        watcher()

    def answer_to(self, request_id: str) -> Answer | None:
        """The answer to a question, if there is one already."""
        return self._answers.get(request_id)

    @property
    def reason(self) -> str | None:
        """Why the turn is to end; None as long as it is not."""
        return self._reason

    @property
    def interrupted(self) -> bool:
        """Whether the turn is to end."""
        return self._reason is not None

    def check(self) -> None:
        """Raises: Interrupted, if the turn is to end."""
        if self._reason is not None:
            raise Interrupted(self._reason)

    def sleep(self, seconds: float | None) -> None:
        """Wait, for ever with None.

        Raises: Interrupted.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._reason is not None, seconds)
        self.check()

    def wait_answer(self, request_id: str) -> Answer:
        """Wait for the answer to a question.

        Raises: Interrupted.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._reason is not None or request_id in self._answers)
            self.check()
            return self._answers[request_id]

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        merge_errors: bool = False,
        limit: int | None = None,
    ) -> Finished:
        """Run a process to its end, in a session of its own, without input.

        What it leaves running in the background is not waited for; ``sweep`` ends it.

        Args:
            cwd, env: as for ``subprocess``.
            merge_errors: standard error goes into ``output``.
            limit: keep only about the last so many bytes of the output.

        Raises: Interrupted; OSError if it cannot be started.
        """
        began = time.monotonic()
        with self._changed:  # so that no interruption falls between the check and the start
            self.check()
            self._spawned = True
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merge_errors else subprocess.PIPE,
                start_new_session=True,
            )
        tails = _collect(process, limit)
        self.check()
        output, errors = tails[0], (tails[1] if len(tails) > 1 else b"")
        return Finished(process.returncode, output, errors, time.monotonic() - began)

    def sweep(self) -> bool:
        """End every process that the turn left; whether that succeeded."""
        if not self._spawned:
            return True
        self._spawned = False
        return end_descendants(spared=self._spared())


class _Tail:
    """The last bytes of a stream."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        self._kept += data
        if self._limit is not None and len(self._kept) > 8 * self._limit:
            del self._kept[: -self._limit]

    def value(self) -> bytes:
        kept = bytes(self._kept)
        return kept if self._limit is None else kept[-self._limit :]


def _collect(process: subprocess.Popen[bytes], limit: int | None) -> list[bytes]:
    """Read a process's pipes until it ends, and reap it."""
    streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
    tails = {stream.fileno(): _Tail(limit) for stream in streams}
    poller = select.poll()
    for handle in tails:
        os.set_blocking(handle, False)
        poller.register(handle, select.POLLIN)
    ended = _Watch(process, poller)
    open_handles = set(tails)
    try:
        while open_handles and not ended():
            for handle, _ in poller.poll(_POLL_MS if ended.polled else None):
                if handle in open_handles and not _drain(handle, tails[handle]):
                    poller.unregister(handle)
                    open_handles.discard(handle)
        for handle in open_handles:
            _drain(handle, tails[handle])
        process.wait()
    finally:
        ended.close()
        for stream in streams:
            stream.close()
    return [tail.value() for tail in tails.values()]


def _drain(handle: int, tail: _Tail) -> bool:
    """Read what is there now (and not for ever); False at the end of the stream."""
    for _ in range(_READS_AT_ONCE):
        try:
            data = os.read(handle, _READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        tail.add(data)
    return True


class _Watch:
    """Tells whether a process has ended, by a pidfd (pidfd_open(2)) where there is one."""

    def __init__(self, process: subprocess.Popen[bytes], poller: select.poll) -> None:
        self._process = process
        self._handle: int | None = None
        opener: Callable[[int], int] | None = getattr(os, "pidfd_open", None)
        if opener is not None:
            try:
                self._handle = opener(process.pid)
                poller.register(self._handle, select.POLLIN)
            except OSError:
                self._handle = None
        self.polled = self._handle is None

    def __call__(self) -> bool:
        return self._process.poll() is not None

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
