"""File locks, where the file system has any.

Some shared file systems are mounted without ``flock`` (Lustre without the option of that name,
NFS without its lock daemon).  Where a lock is only a safety net, a worker goes on without it.
"""

from __future__ import annotations

import errno
import fcntl

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What flock(2) fails with where the file system has no locks."""


def lock(handle: int, *, wait: bool) -> bool:
    """Take an open file's lock, until it is closed; False where the file system has no locks.

    Raises: BlockingIOError if it is taken and ``wait`` is False; OSError.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        raise
    return True
