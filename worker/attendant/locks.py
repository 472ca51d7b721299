"""Locks on a shared file system that a command may inherit.

A lock belongs to the open file description (flock(2)): while a command that was started with it
runs, it is held, even if the attendant that took it is killed.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
from pathlib import Path

from worker import paths
from worker.failures import ProviderError
from worker.paths import PRIVATE_FILE, component

_LOG = logging.getLogger(__name__)

_PAUSE = 0.05
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Locks:
    """Those that one controller holds here.

    Args:
        root: below which the files lie.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._held: dict[str, int] = {}
        self._wanted: set[str] = set()

    async def acquire(self, name: str, place: list[str], seconds: float) -> None:
        """Take a lock; where the file system has none, that is noted and nobody is kept out.

        Args:
            name: what the controller calls it.
            place: components of the file's path below the root; folders are made.
            seconds: how long it is waited for.

        Raises: ProviderError (``LockHeld``, ``UnsafePath``, ``InvalidName``, ``BadRequest``);
            OSError.
        """
        if not place or name in self._held or name in self._wanted:
            raise ProviderError("BadRequest", "lock: no path, or a name that is in use")
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        self._wanted.add(name)
        try:
            while name in self._wanted:
                descriptor = self._try(place)
                if descriptor is not None:
                    self._held[name] = descriptor
                    return
                if loop.time() >= until:
                    where = "/".join(place)
                    raise ProviderError("LockHeld", f"{where} was held for {seconds:.0f} s")
                await asyncio.sleep(_PAUSE)
            raise ProviderError("LockHeld", "the lock is not wanted any more")
        finally:
            self._wanted.discard(name)

    def descriptor(self, name: str) -> int:
        """That of a held lock, for a command to inherit. Raises: ProviderError (``LockLost``)."""
        held = self._held.get(name)
        if held is None:
            raise ProviderError("LockLost", "the lock is not held any more")
        return held

    def release(self, name: str) -> None:
        """Let go of a lock, or stop waiting for it; who inherited it holds it on.

        It is only closed, never unlocked: unlocking would take it from a command as well.
        """
        self._wanted.discard(name)
        descriptor = self._held.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of all."""
        for name in {*self._held, *self._wanted}:
            self.release(name)

    def _try(self, place: list[str]) -> int | None:
        folder, name = paths.make(self._root, *place[:-1]), component(place[-1])
        descriptor = os.open(folder / name, _FLAGS, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            _LOG.warning("%s cannot be locked: %s", folder / name, error.strerror)
            return descriptor
        if _is_there(folder / name, descriptor):
            return descriptor
        os.close(descriptor)  # it was removed meanwhile: who comes next makes another
        return None


def _is_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except OSError:
        return False
