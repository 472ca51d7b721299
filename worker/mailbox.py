"""Appending to a mailbox file, and poking the FIFO of whoever reads it.

The controller's side uses this too, for inboxes.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from worker.locks import lock

MAX_LINE_BYTES = 8 << 20
"""Longer lines of an inbox are skipped by its reader."""


def append_line(path: Path, line: bytes, *, durable: bool = False) -> None:
    """Append one record with a single write, under the file's lock where there are locks.

    A file that does not end in a newline gets one first, so that a line torn by a crash costs
    only itself.

    Args:
        path: the mailbox file; made with mode 0600 if it is missing.
        line: the record, without newline.
        durable: wait until it is on disk.

    Raises: OSError; ValueError for a line that no reader would take.
    """
    if b"\n" in line or len(line) > MAX_LINE_BYTES:
        raise ValueError("a record is one line of at most 8 MiB")
    handle = os.open(
        path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        lock(handle, wait=True)
        data = memoryview(b"\n" + line + b"\n" if is_torn(handle) else line + b"\n")
        while data:
            data = data[os.write(handle, data) :]
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)


def is_torn(handle: int) -> bool:
    """Whether a file's last line has no newline."""
    size = os.fstat(handle).st_size
    return size > 0 and os.pread(handle, 1, size - 1) != b"\n"


def poke(fifo: Path, word: bytes) -> bool:
    """Write a few bytes to a FIFO without ever waiting; whether a reader will see it.

    It is only a hint: no reader, a full pipe or no FIFO at all is no error.
    """
    try:
        handle = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not stat.S_ISFIFO(os.fstat(handle).st_mode):
            return False
        return os.write(handle, word) > 0
    except BlockingIOError:
        return True  # full: the reader has hints enough
    except OSError:
        return False
    finally:
        os.close(handle)


def open_wake(fifo: Path) -> int:
    """Make (where missing) and open a FIFO for reading; it never reports end of file.

    Raises: OSError.
    """
    try:
        if not stat.S_ISFIFO(fifo.lstat().st_mode):
            fifo.unlink()
            os.mkfifo(fifo, 0o600)
    except FileNotFoundError:
        os.mkfifo(fifo, 0o600)
    # Read and write (fifo(7)): the open does not wait, and there is always one writer.
    return os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
