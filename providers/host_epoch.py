"""Which controller a worker host obeys: the one with the highest epoch it has ever seen.

The number is kept in a file of the host's root, so that a restarted host does not forget it; the
same file is locked for the host's life, so that one root has one host.
"""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

from providers.base import ProviderError
from worker.paths import PRIVATE_DIR, PRIVATE_FILE

_LOG = logging.getLogger(__name__)
_NAME = ".worker-host"  # no namespace, and so no swarm, has a name that begins with a dot
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_DIGITS = 20
MAX_EPOCH = 10**_DIGITS - 1


class EpochFile:
    """The highest epoch of one root.

    Args:
        root: the host's folder; made where it is missing.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / _NAME
        self._handle = -1
        self.highest = 0

    def acquire(self) -> None:
        """Take the root for the life of this process, and read what is known.

        Raises: ProviderError (``HostRunning``, ``HomeUnusable``).
        """
        try:
            self._root.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
            self._handle = os.open(self._path, _FLAGS, PRIVATE_FILE)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.highest = self._read()
        except BlockingIOError:
            self.release()
            raise ProviderError(
                "HostRunning", f"another worker host runs on {self._root}: stop it first"
            ) from None
        except OSError as error:
            self.release()
            raise ProviderError(
                "HomeUnusable", f"{self._root} cannot be used: {error.strerror or error}"
            ) from error

    def admit(self, epoch: int) -> None:
        """Take a controller's epoch as the highest; it is on disk when this returns.

        Raises: ProviderError (``Fenced``) if a higher one is known; (``HomeUnusable``) if it
            cannot be kept.
        """
        if epoch < self.highest:
            raise ProviderError(
                "Fenced",
                f"a controller of epoch {self.highest} has taken over from epoch {epoch}",
            )
        if epoch == self.highest:
            return
        try:
            # In place and of one length: that needs no space on a full disk.
            os.pwrite(self._handle, b"%0*d\n" % (_DIGITS, epoch), 0)
            os.fsync(self._handle)
        except OSError as error:
            raise ProviderError(
                "HomeUnusable", f"{self._path} cannot be written: {error.strerror or error}"
            ) from error
        self.highest = epoch

    def release(self) -> None:
        """Let the root go."""
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1

    def _read(self) -> int:
        text = os.pread(self._handle, 64, 0).strip()
        if not text:
            return 0
        if not text.isdigit() or len(text) > _DIGITS:
            _LOG.warning("%s holds no number: the epoch begins at 0 again", self._path)
            return 0
        return int(text)
