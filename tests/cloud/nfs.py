"""NFS between machines, as far as a kernel without it can have it.

A client gets the server's block device to mount if a server would let it in.  While the server is
away, who has files open there is stopped, and who opens one waits: as with a hard mount, only
SIGKILL helps, and all go on when the server is back and still exports it.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.cloud.machine import Machine, send

_LIBC = ctypes.CDLL(None, use_errno=True)
_INIT = 0x04 | 0x01 | 0x02  # FAN_CLASS_CONTENT, FAN_CLOEXEC, FAN_NONBLOCK (linux/fanotify.h)
_ADD_MOUNT = 0x01 | 0x10  # FAN_MARK_ADD, FAN_MARK_MOUNT
_ASKED = 0x10000 | 0x20000 | 0x40000000  # FAN_OPEN_PERM, FAN_ACCESS_PERM, FAN_ONDIR
_CWD = -100  # AT_FDCWD


class Hang:
    """Lets everybody wait who opens or reads anything of a mount. Raises: OSError."""

    def __init__(self, path: str) -> None:
        self._fd = _LIBC.fanotify_init(_INIT, os.O_RDONLY)
        mask = ctypes.c_uint64(_ASKED)
        if self._fd < 0 or _LIBC.fanotify_mark(self._fd, _ADD_MOUNT, mask, _CWD, path.encode()):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def end(self) -> None:
        """Let them all go on."""
        os.close(self._fd)


@dataclass
class Mount:
    """A client's mount."""

    client: Machine
    server: str
    """Id of the instance."""
    address: str
    device: int
    folder: str
    hang: Hang | None = None
    stopped: list[int] = field(default_factory=list)

    @property
    def there(self) -> bool:
        """Whether it is still mounted."""
        return self.client.alive and (self.device, self.folder) in self.client.mounts()

    def freeze(self) -> None:
        """Its server does not answer any more."""
        if self.hang is None:
            self.hang = Hang(str(self.client.inside(self.folder)))
            self.stopped = self.client.users(self.device)
            send(self.stopped, signal.SIGSTOP)

    def thaw(self) -> None:
        """Its server answers again."""
        if self.hang is not None:
            self.hang.end()
            self.hang = None
            here = set(self.client.processes())
            send([pid for pid in self.stopped if pid in here], signal.SIGCONT)


class Nfs:
    """All servers and clients of a cloud.

    Args:
        machines: those that live now.
    """

    def __init__(self, machines: Callable[[], Iterable[Machine]]) -> None:
        self._machines = machines
        self._mounts: list[Mount] = []
        self.blocked = False
        """Whether no machine reaches port 2049 of another."""

    def export(self, client: Machine, address: str, path: str) -> dict[str, Any]:
        """Whether a server lets a client mount a path: its device, or what mount(8) says."""
        server = self._by_address(address)
        if server is None or self.blocked or server.frozen:
            return {"error": f"Connection timed out for {address}:{path}"}
        if not server.inside("/run/nfs/serving").exists():
            return {"error": f"Connection refused for {address}:{path}"}
        exports = server.inside("/run/nfs/exports").read_text().splitlines()
        clients = [line.split()[1] for line in exports if line.split()[0] == path]
        if not clients:
            return {
                "error": f"mounting {address}:{path} failed, reason given by server: "
                "No such file or directory"
            }
        if client.private not in clients:
            return {"error": f"access denied by server while mounting {address}:{path}"}
        devices = [device for device, folder in server.mounts() if folder == path]
        if not devices or os.major(devices[-1]) != 7:
            return {"error": f"{address}:{path} is no volume: the stand-in exports those only"}
        return {"major": 7, "minor": os.minor(devices[-1])}

    def mounted(self, client: Machine, address: str, folder: str) -> None:
        """A client has mounted what it was given."""
        server = self._by_address(address)
        where = {folder: device for device, folder in client.mounts()}
        if server is not None and folder in where:
            self._prune()
            self._mounts.append(Mount(client, server.id, address, where[folder], folder))

    def lost(self, server_id: str) -> None:
        """A server is away."""
        self._prune()
        for mount in self._mounts:
            if mount.server == server_id:
                mount.freeze()

    def back(self, server_id: str) -> None:
        """A server has exported something, or goes on."""
        self._prune()
        for mount in self._mounts:
            if mount.server == server_id and mount.hang is not None:
                told = self.export(mount.client, mount.address, mount.folder)
                if told.get("minor") == os.minor(mount.device):
                    mount.thaw()

    def _prune(self) -> None:
        for mount in [mount for mount in self._mounts if not mount.client.alive]:
            self._mounts.remove(mount)
            if mount.hang is not None:
                mount.hang.end()
        self._mounts = [mount for mount in self._mounts if mount.hang is not None or mount.there]

    def _by_address(self, address: str) -> Machine | None:
        for machine in self._machines():
            if machine.alive and address in (machine.private, machine.public):
                return machine
        return None
