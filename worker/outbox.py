"""The outbox: what a worker tells, in order, appended and never rewritten."""

from __future__ import annotations

import errno
import json
import os
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker import records
from worker.mailbox import is_torn, poke
from worker.masking import Masker

_SEQ = re.compile(rb'\{"seq":(\d{1,18}),')
_CHUNK = 1 << 20
_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass
class History:
    """What an earlier process of the same job wrote."""

    last_seq: int = 0
    started: set[str] = field(default_factory=set)
    """Injections that were accepted."""
    completed: set[str] = field(default_factory=set)
    faults: set[int] = field(default_factory=set)
    """Offsets of bad inbox lines that were reported."""


class Outbox:
    """Collects records and writes them in batches; may be used from several threads.

    Args:
        path: the outbox file; made if missing.
        job, node: go into every record.
        hint: FIFO that gets ``<job>\\n`` after every write, or None.
        masker: takes secrets out of every record but ``task_complete``, which says what git says.
        shared: the file is read on other hosts.  Every flush then waits until it is on disk: a
            network file system may keep what was written to itself until then, and for half a
            minute (nfs(5), close-to-open consistency), and loses it with this host.
    """

    def __init__(
        self,
        path: Path,
        job: str,
        node: str,
        hint: Path | None = None,
        masker: Masker | None = None,
        *,
        shared: bool = False,
    ) -> None:
        self._shared = shared
        self._unsynced = False
        self._masker = masker or Masker()
        self._names = f'"job_id":{_encode(job)},"node_id":{_encode(node)}'
        self._hint = hint
        self._word = job.encode() + b"\n"
        self._lock = threading.Lock()
        self._pending = bytearray()
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._handle = os.open(path, flags, 0o600)
        self.history = _read_history(self._handle)
        self._seq = self.history.last_seq
        self._end = -1  # of what this process wrote, bytes

    def emit(self, event: str, data: dict[str, Any], injection_id: str | None = None) -> None:
        """Add a record; it reaches the file with the next ``flush``."""
        body = _encode(data)
        if self._masker.finds(body) and event != records.TASK_COMPLETE:
            body = _encode(self._masker.mask_all(data))
        injection = "null" if injection_id is None else _encode(injection_id)
        with self._lock:
            self._seq += 1
            line = (
                f'{{"seq":{self._seq},"ts":{time.time():.6f},{self._names},'
                f'"injection_id":{injection},"event":"{event}","data":{body}}}\n'
            )
            self._pending += line.encode("ascii")

    @property
    def pending(self) -> bool:
        """Whether records wait for a ``flush``."""
        return bool(self._pending) or self._unsynced

    def flush(self) -> None:
        """Write all that waits, with one write; on failure it waits on.

        Raises: OSError (disk full, ...).
        """
        with self._lock:
            if not self._pending and not self._unsynced:
                return
            while self._pending:
                end = os.fstat(self._handle).st_size
                if end != self._end and is_torn(self._handle):
                    self._pending[:0] = b"\n"  # another's torn line takes none of ours with it
                written = os.write(self._handle, self._pending)
                self._end = end + written
                del self._pending[:written]
                self._unsynced = self._shared
        if self._unsynced:
            self._unsynced = False
            self._sync()
        if self._hint is not None:
            poke(self._hint, self._word)

    def _sync(self) -> None:
        """Have what was written seen elsewhere; others may emit meanwhile."""
        try:
            os.fdatasync(self._handle)
        except OSError as error:
            if error.errno in _CANNOT_SYNC:
                return
            self._unsynced = True
            raise

    def close(self) -> None:
        """Write what can be written, and close."""
        try:
            self.flush()
        except OSError:
            pass  # the folder is gone or full: there is nobody left to tell
        os.close(self._handle)


def _read_history(handle: int) -> History:
    """Read an outbox; lines that are none are passed over."""
    history = History()
    with open(os.dup(handle), "rb", buffering=_CHUNK) as file:
        file.seek(0)
        for line in file:
            match = _SEQ.match(line)
            if match is None:
                continue
            history.last_seq = max(history.last_seq, int(match.group(1)))
            if b'"turn_' in line or b'"mailbox"' in line:
                _remember(history, line)
    return history


def _remember(history: History, line: bytes) -> None:
    try:
        record = json.loads(line)
        event, data, injection = record["event"], record["data"], record["injection_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    if event == records.TURN_STARTED and isinstance(injection, str):
        history.started.add(injection)
    elif event == records.TURN_COMPLETE and isinstance(injection, str):
        history.completed.add(injection)
    elif event == records.AGENT_ERROR and isinstance(data, dict):
        offset = data.get("offset")
        if data.get("class") == "mailbox" and isinstance(offset, int):
            history.faults.add(offset)
