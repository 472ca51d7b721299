"""The worker host's Unix socket: made at once as it is to be, and who is at its other end."""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from providers.base import ProviderError
from worker.paths import partial

_MODE = 0o660
_MAX_PATH = 107  # sun_path of unix(7), less its terminating zero
_PROBE_SECONDS = 2.0
_CREDENTIALS = struct.Struct("iII")


class Peer(Protocol):
    """What can be asked for the options of a socket."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """As of ``socket.socket``."""
        ...


def peer_uid(connection: Peer) -> int:
    """The user at the other end, as the kernel noted it when the connection was made.

    SO_PEERCRED of unix(7): no peer can claim another one.
    """
    if sys.platform != "linux":
        raise OSError("worker hosts need Linux")
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket that listens at a path, mode 0660 from its first moment; gone at the end.

    It takes the group of its folder where that has the setgid bit.  What a dead host left at the
    path is replaced.

    Raises: ProviderError (``HostRunning``, ``SocketUnusable``).
    """
    part = partial(path)
    if len(os.fsencode(part)) > _MAX_PATH:
        raise ProviderError(
            "SocketUnusable", f"{path}: a socket's path has at most {_MAX_PATH - 6} bytes"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            _require_free(path)
            part.unlink(missing_ok=True)
            before = os.umask(0o777 & ~_MODE)
            try:
                listener.bind(str(part))
            finally:
                os.umask(before)
            listener.listen()
            ours = _identity(part)
            part.rename(path)
        except OSError as error:
            raise ProviderError(
                "SocketUnusable", f"{path} cannot be made: {error.strerror or error}"
            ) from error
        try:
            yield listener
        finally:
            with suppress(OSError):
                if _identity(path) == ours:
                    path.unlink()


def _require_free(path: Path) -> None:
    """Raises: ProviderError if somebody listens there, or if it is no socket; OSError."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ProviderError(
                "SocketUnusable", f"{path} is there and is no socket: name another path"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_PROBE_SECONDS)
            probe.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return
    except TimeoutError:
        pass  # so many wait there that there is no room: somebody listens
    raise ProviderError("HostRunning", f"a worker host listens at {path}: stop it first")


def _identity(path: Path) -> tuple[int, int]:
    seen = path.lstat()
    return seen.st_dev, seen.st_ino
