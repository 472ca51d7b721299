"""Packing what a swarm's workers leave behind as a ``tar.gz``."""

from __future__ import annotations

import io
import json
import logging
import os
import stat
import tarfile
import threading
import time
from dataclasses import dataclass
from typing import IO, Any

from worker import walk
from worker.failures import ProviderError
from worker.paths import PRIVATE_FILE

_LOG = logging.getLogger(__name__)
_LEFT_OUT = frozenset({"env", ".env.part", "secrets", "worker.lock"})
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Packed:
    """What an archive is one of."""

    namespace: str
    swarm: str
    uid: str
    folder: str
    """The folder that all in the archive lies in."""

    @property
    def label(self) -> str:
        """Name of the file in the archive that says so."""
        return f"{self.folder}/ARCHIVE.json"


def pack(swarm: Packed, folder: int | None, file: IO[bytes], cancelled: threading.Event) -> None:
    """Write the archive: all job folders without secrets, sockets and FIFOs.

    Symlinks are stored as links.

    Args:
        swarm: what it is an archive of.
        folder: descriptor of the swarm's folder; None: it has none, the archive is empty.
        file: where to write.
        cancelled: when set, packing is given up.

    Raises: ProviderError (``Cancelled``); OSError.
    """
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as tar:
        _add_label(tar, swarm)
        if folder is not None:
            _add_tree(tar, swarm, folder, cancelled)


def _add_label(tar: tarfile.TarFile, swarm: Packed) -> None:
    now = int(time.time())
    about = {
        "namespace": swarm.namespace,
        "swarm": swarm.swarm,
        "uid": swarm.uid,
        "createdAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
    }
    data = json.dumps(about, indent=2).encode() + b"\n"
    info = tarfile.TarInfo(swarm.label)
    info.size, info.mode, info.mtime = len(data), PRIVATE_FILE, now
    tar.addfile(info, io.BytesIO(data))


def _add_tree(tar: tarfile.TarFile, swarm: Packed, folder: int, cancelled: threading.Event) -> None:
    for node in walk.walk(folder, skip=_left_out):
        if cancelled.is_set():
            raise ProviderError("Cancelled", f"packing swarm {swarm.swarm} was given up")
        if node.leaving:
            continue
        arcname = f"{swarm.folder}/{node.path}"
        try:
            if stat.S_ISREG(node.stat.st_mode):
                _add_file(tar, arcname, node)
            elif stat.S_ISLNK(node.stat.st_mode):
                target = os.readlink(node.name, dir_fd=node.parent)
                _add_entry(tar, arcname, node, tarfile.SYMTYPE, target)
            elif node.is_dir:
                _add_entry(tar, arcname, node, tarfile.DIRTYPE)
        except (PermissionError, FileNotFoundError) as error:
            _LOG.warning("left out of the archive: %s (%s)", arcname, error.strerror)


def _left_out(path: str) -> bool:
    """Whether a path (``<job>/<name>``, ...) holds secrets or means nothing once packed."""
    job, _, below = path.partition("/")
    return bool(job) and below in _LEFT_OUT


def _add_file(tar: tarfile.TarFile, arcname: str, node: walk.Node) -> None:
    descriptor = os.open(node.name, _READ_FLAGS, dir_fd=node.parent)
    with os.fdopen(descriptor, "rb") as file:
        info = tar.gettarinfo(arcname=arcname, fileobj=file)
        info.mtime = int(info.mtime)
        if info.isreg():
            tar.addfile(info, _Exactly(file, info.size))
        elif info.islnk():  # a further name of a file that is in the archive already
            tar.addfile(info)


def _add_entry(
    tar: tarfile.TarFile, arcname: str, node: walk.Node, kind: bytes, target: str = ""
) -> None:
    info = tarfile.TarInfo(arcname)
    info.type, info.linkname = kind, target
    info.mode = stat.S_IMODE(node.stat.st_mode)
    info.uid, info.gid = node.stat.st_uid, node.stat.st_gid
    info.mtime = int(node.stat.st_mtime)
    tar.addfile(info)


class _Exactly(io.RawIOBase):
    """Reads as many bytes as its header promised, with zeros for what a writer cut off."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> Any:
        """The next bytes."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        self._left -= wanted
        return data.ljust(wanted, b"\0")
