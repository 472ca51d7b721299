"""One follower for all outboxes of a host: whole lines, in order, once.

The files are the truth.  A hint (a worker writes its job's name into a FIFO after it appended)
only makes it fast; a look at every file's size once a second finds what hints did not say.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from worker.paths import PRIVATE_DIR, make_fifo
from worker.records import AGENT_ERROR

CHUNK = 256 * 1024
"""Bytes read from one file before it is another's turn."""
MAX_LINE = 8 * 1024 * 1024
"""Bytes of the longest line that is handed on."""

LIVELY_SECONDS, QUIET_POLL_SECONDS = 30.0, 2.0
"""Without hints: an outbox that has not grown for so long is looked at so often only."""
_TURN_SECONDS = 0.005
_PAUSE_FACTOR = 3
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class RecordBatch:
    """Whole outbox lines of one job, in file order."""

    job: str
    lines: Sequence[bytes]
    """Each without its newline; not yet parsed, not yet trusted."""
    end: int
    """Offset in the outbox just after the last line, bytes."""


class NotTaken(Exception):
    """What a sink raises when it cannot take records now: they are handed to it again later."""


Sink = Callable[[RecordBatch], None]


@dataclass
class LineBuffer:
    """Cuts a stream of bytes into whole lines and knows where each ends.

    Args:
        offset: where in the file the next line begins, bytes.
        limit: longer lines (bytes) are dropped and only measured.
    """

    offset: int
    limit: int = MAX_LINE
    tail: bytearray = field(default_factory=bytearray)
    dropped: int = 0
    """Bytes so far of a line that is too long."""

    @property
    def position(self) -> int:
        """Where in the file the next byte is to be read."""
        return self.offset + self.dropped + len(self.tail)

    def feed(self, chunk: bytes) -> list[bytes | int]:
        """Take bytes that follow on ``position``; returns the lines they complete.

        An ``int`` in place of a line is the length of one that was longer than the limit.
        Empty lines are left out.
        """
        end = chunk.rfind(b"\n")
        if end < 0:
            self._keep(chunk)
            return []
        begun = self.dropped + len(self.tail)
        whole: list[bytes | int] = []
        first, *others = chunk[:end].split(b"\n")
        if begun + len(first) > self.limit:
            whole.append(begun + len(first))
        else:
            whole.append(bytes(self.tail) + first)
        whole.extend(line if len(line) <= self.limit else len(line) for line in others)
        self.offset += begun + end + 1
        self.tail.clear()
        self.dropped = 0
        self._keep(chunk[end + 1 :])
        return [line for line in whole if line != b""]

    def _keep(self, rest: bytes) -> None:
        if self.dropped or len(self.tail) + len(rest) > self.limit:
            self.dropped += len(self.tail) + len(rest)
            self.tail.clear()
        else:
            self.tail += rest


@dataclass(eq=False)
class _Followed:
    """One outbox and how far it is read."""

    job: str
    path: Path
    buffer: LineBuffer
    inode: tuple[int, int] | None = None
    waiting: bool = False
    lively_until: float = 0.0
    """It is expected to grow until then (monotonic clock)."""
    looked_at: float = 0.0
    """The same clock."""

    def due(self, now: float) -> bool:
        """Whether it is to be looked at, without hints."""
        return now < self.lively_until or now - self.looked_at >= QUIET_POLL_SECONDS

    def restart(self, inode: tuple[int, int] | None) -> None:
        self.buffer = LineBuffer(0, self.buffer.limit)
        self.inode = inode


_Look = tuple[list[_Followed], float]
"""Outboxes that differ from what was read, and how many seconds looking took."""


class Follower:
    """Reads outboxes and hands their lines to a sink, in the event loop, never blocking long.

    Args:
        hint: path of the FIFO; made at ``start``, left in place at ``close`` so that workers
            may keep it open. None: there is none, since the workers are on other hosts.
        poll_seconds: how often every file's size is looked at; less often where looking takes
            more than a quarter of the time, and, without a hint, where a file grows no more.
        limit: longest line, bytes; an ``agent_error`` record stands in for a longer one.
        stat_file: how a file is looked at (tests count the calls). Default: lstat(2); without a
            hint the file is opened, since what a network file system remembers of a file's size
            is only then asked for anew (close-to-open consistency, nfs(5)).
    """

    def __init__(
        self,
        hint: Path | None,
        *,
        poll_seconds: float = 1.0,
        limit: int = MAX_LINE,
        stat_file: Callable[[Path], os.stat_result] | None = None,
    ) -> None:
        self._hint = hint
        self._poll_seconds = poll_seconds
        self._limit = limit
        self._stat = stat_file or (look_opened if hint is None else os.lstat)
        self._files: dict[str, _Followed] = {}
        self._queue: deque[_Followed] = deque()
        self._sink: Sink | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looker: ThreadPoolExecutor | None = None
        """Looks at files where there are no hints: a file system elsewhere may take its time."""
        self._draining = False
        self._descriptor = -1
        self._rest = b""

    def start(self, sink: Sink) -> None:
        """Begin to read; needs a running event loop. A second call only changes the sink.

        Raises: OSError if the FIFO cannot be made.
        """
        self._sink = sink
        if self._loop is not None:
            return
        if self._hint is not None:
            self._hint.parent.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
            make_fifo(self._hint)
            # Open for writing too: with no other writer it would be at its end all the time.
            self._descriptor = os.open(self._hint, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop = asyncio.get_running_loop()
        if self._hint is None:
            self._looker = ThreadPoolExecutor(1)
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._hinted)
        self._poll()

    def close(self) -> None:
        """Stop reading; may be called twice, and started again."""
        if self._loop is None:
            return
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
        if self._timer is not None:
            self._timer.cancel()
        if self._looker is not None:
            self._looker.shutdown(wait=False)
        self._loop = self._timer = self._looker = None
        self._descriptor = -1

    def _started(self) -> bool:
        return self._loop is not None

    def follow(self, job: str, path: Path, offset: int) -> None:
        """Read a job's outbox from ``offset`` (bytes, the beginning of a line) on."""
        file = _Followed(job, path, LineBuffer(offset, self._limit))
        file.lively_until = time.monotonic() + LIVELY_SECONDS
        self._files[job] = file
        self._mark(file)

    def unfollow(self, job: str) -> None:
        """Read a job's outbox no more."""
        self._files.pop(job, None)

    def stir(self, job: str) -> None:
        """A followed outbox is expected to grow now: look at it oftener for a while."""
        file = self._files.get(job)
        if file is not None:
            file.lively_until = time.monotonic() + LIVELY_SECONDS

    async def flush(self, job: str) -> None:
        """Hand on all that a followed outbox holds now, before returning."""
        file = self._files.get(job)
        if file is None:
            return
        until = time.monotonic() + _TURN_SECONDS
        while self._files.get(job) is file and self._read(file):
            if time.monotonic() >= until:
                await asyncio.sleep(0)
                until = time.monotonic() + _TURN_SECONDS

    def _mark(self, file: _Followed) -> None:
        if not file.waiting:
            file.waiting = True
            self._queue.append(file)
        if not self._draining and self._loop is not None:
            self._draining = True
            self._loop.call_soon(self._drain)

    def _hinted(self) -> None:
        try:
            names = (self._rest + os.read(self._descriptor, 65536)).split(b"\n")
        except BlockingIOError:
            return
        self._rest = names.pop()[:255]
        for name in dict.fromkeys(names):
            file = self._files.get(name.decode(errors="replace"))
            if file is not None:
                self._mark(file)

    def _poll(self) -> None:
        if self._loop is None:
            return
        if self._looker is None:
            self._looked(*self._look(list(self._files.values())))
            return
        now = time.monotonic()
        due = [file for file in self._files.values() if file.due(now)]
        for file in due:
            file.looked_at = now
        looker = self._looker
        looking = self._loop.run_in_executor(looker, self._look, due)
        looking.add_done_callback(lambda done: self._looked_there(looker, done))

    def _looked_there(self, looker: ThreadPoolExecutor, done: asyncio.Future[_Look]) -> None:
        if looker is not self._looker or done.cancelled():
            return  # it was closed meanwhile
        self._looked(*(([], 0.0) if done.exception() else done.result()))

    def _look(self, files: Sequence[_Followed]) -> _Look:
        """Those of these files that differ from what was read, and how long looking took."""
        begun = time.monotonic()
        found = [file for file in files if self._differs(file)]
        return found, time.monotonic() - begun

    def _looked(self, found: Sequence[_Followed], took: float) -> None:
        if self._loop is None:
            return
        for file in found:
            if self._files.get(file.job) is file:
                self._mark(file)
        pause = max(self._poll_seconds, _PAUSE_FACTOR * took)
        self._timer = self._loop.call_later(pause, self._poll)

    def _differs(self, file: _Followed) -> bool:
        try:
            seen = self._stat(file.path)
        except OSError:
            return file.inode is not None
        return (seen.st_dev, seen.st_ino) != file.inode or seen.st_size != file.buffer.position

    def _drain(self) -> None:
        """Read one chunk of each waiting file in turn, for a few milliseconds at most."""
        self._draining = False
        if self._loop is None:
            return
        until = self._loop.time() + _TURN_SECONDS
        while self._queue:
            file = self._queue.popleft()
            file.waiting = False
            if self._files.get(file.job) is file and self._read(file):
                self._mark(file)
            if not self._started():  # closed by the sink
                return
            if self._loop.time() >= until:
                break
        if self._queue and not self._draining:
            self._draining = True
            self._loop.call_soon(self._drain)

    def _read(self, file: _Followed) -> bool:
        """Hand on one chunk; whether there is more."""
        try:
            descriptor = os.open(file.path, _READ_FLAGS)
        except OSError:
            if file.inode is not None:
                file.restart(None)
            return False
        try:
            seen = os.fstat(descriptor)
            if not stat.S_ISREG(seen.st_mode):
                return False
            inode = (seen.st_dev, seen.st_ino)
            replaced = file.inode is not None and file.inode != inode
            if replaced or seen.st_size < file.buffer.position:
                file.restart(inode)
            file.inode = inode
            chunk = os.pread(descriptor, CHUNK, file.buffer.position)
        except OSError:
            return False  # the next poll tries again
        finally:
            os.close(descriptor)
        return self._hand_on(file, chunk) and file.buffer.position < seen.st_size

    def _hand_on(self, file: _Followed, chunk: bytes) -> bool:
        """Give the lines that ``chunk`` completes to the sink; False if it failed to take them.

        They are then read again at the next poll: nothing is lost by an error of the sink.
        """
        before = file.buffer.offset
        lines = [
            line if isinstance(line, bytes) else _too_long(file.job, line, self._limit)
            for line in file.buffer.feed(chunk)
        ]
        if not lines or self._sink is None:
            return bool(chunk)
        try:
            self._sink(RecordBatch(file.job, lines, file.buffer.offset))
        except NotTaken:
            file.buffer = LineBuffer(before, self._limit)
            return False
        except Exception as error:
            file.buffer = LineBuffer(before, self._limit)
            if self._loop is not None:
                self._loop.call_exception_handler(
                    {"message": f"records of {file.job} were not taken", "exception": error}
                )
            return False
        file.lively_until = time.monotonic() + LIVELY_SECONDS
        return True


def look_opened(path: Path) -> os.stat_result:
    """What fstat(2) says of a file that is opened for it. Raises: OSError."""
    descriptor = os.open(path, _READ_FLAGS)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _too_long(job: str, length: int, limit: int) -> bytes:
    """The record that stands in for a line longer than the limit (both in bytes)."""
    return json.dumps(
        {
            "seq": 0,
            "ts": time.time(),
            "job_id": job,
            "node_id": "",
            "injection_id": None,
            "event": AGENT_ERROR,
            "data": {
                "class": "infrastructure",
                "message": f"a record of {length} bytes was skipped (at most {limit} are read)",
                "will_retry": False,
            },
        }
    ).encode()
