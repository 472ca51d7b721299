"""Claims: whoever makes the file ``claim`` in a job's folder has the job, and nobody after it.

It is made by link(2), so that it appears with what is in it; where there are no hard links, by
``O_EXCL``, and then an empty one says nothing yet.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from worker import notes
from worker.paths import PRIVATE_FILE, write_private

CLAIM = "claim"
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK})


def take(folder: Path, text: str) -> str:
    """Claim a folder unless somebody has; what its claim says then.

    A network file system may say that the claim was there when it made it itself, and its answer
    got lost: only what is in it tells whose it is.

    Args:
        folder: a job's.
        text: one line, that nobody else would write.

    Raises: OSError.
    """
    claim = folder / CLAIM
    mine = folder / f".claim.{os.uname().nodename}-{os.getpid()}-{threading.get_ident()}"
    write_private(mine, f"{text}\n".encode())
    try:
        try:
            os.link(mine, claim, follow_symlinks=False)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _write_new(claim, f"{text}\n".encode())
    finally:
        mine.unlink(missing_ok=True)
    return read(folder) or ""


def read(folder: Path) -> str | None:
    """What a folder's claim says; None: there is none."""
    text = notes.read(folder / CLAIM)
    return None if text is None else text.strip()


def _write_new(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, PRIVATE_FILE)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
