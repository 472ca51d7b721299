"""The wake-up hint: a FIFO by which writers tell the controller to look at once.

Only a hint: the controller also looks by itself once in a while, so nothing depends on it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

NAME = "wake"


def poke(home: Path) -> None:
    """Tell the controller of ``home``, if one listens, that something was committed."""
    try:
        fd = os.open(home / NAME, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # nobody listens, or nobody ever did
        return
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.write(fd, b"\n")
    except OSError:  # full: it has been told already
        pass
    finally:
        os.close(fd)


class WakePipe:
    """The controller's end of the FIFO, made (mode 0600) where it is missing.

    Raises:
        OSError: it cannot be made or opened.
    """

    def __init__(self, home: Path) -> None:
        path = home / NAME
        try:
            os.mkfifo(path, 0o600)
        except FileExistsError:
            if not stat.S_ISFIFO(path.lstat().st_mode):
                raise
        # Open for writing too, so that the last writer's leaving is no end of file.
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)

    def drain(self) -> None:
        """Take what was written."""
        try:
            while len(os.read(self.fd, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Stop listening; the FIFO itself stays."""
        os.close(self.fd)
