"""Packing what a swarm's workers leave behind into one ``tar.gz``."""

from __future__ import annotations

import io
import json
import logging
import os
import stat
import tarfile
import threading
import time
from pathlib import Path
from typing import IO, Any

from providers import trees
from providers.base import ProviderError, SwarmHandle
from providers.layout import PRIVATE_DIR, PRIVATE_FILE, partial, swarm_parts

_LOG = logging.getLogger(__name__)
_LABEL = "ARCHIVE.json"
_LEFT_OUT = frozenset({"env", ".env.part", "secrets", "worker.lock"})
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def archive_path(swarm: SwarmHandle, destination: Path) -> Path:
    """Where the archive of a swarm goes.

    Args:
        swarm: its name and uid make the file's name, so that a finished one is found again.
        destination: a path that ends in ``.tar.gz`` or ``.tgz`` and is not a folder is taken as
            the file; anything else is the folder for it.
    """
    if destination.name.endswith((".tar.gz", ".tgz")) and not destination.is_dir():
        return destination
    namespace, folder = swarm_parts(swarm)
    return destination / f"{namespace}-{folder}.tar.gz"


def is_finished(path: Path, swarm: SwarmHandle) -> bool:
    """Whether ``path`` is the finished archive of this very swarm (by uid).

    Raises: ProviderError (``ArchiveExists``) if something else is there.
    """
    if not os.path.lexists(path):
        return False
    try:
        with tarfile.open(path, "r:gz") as tar:
            label = tar.extractfile(_label_name(swarm))
            if label is not None and json.load(label)["uid"] == swarm.uid:
                return True
    except (OSError, EOFError, tarfile.TarError, KeyError, ValueError, TypeError):
        _LOG.debug("%s is not an archive of swarm %s", path, swarm.name)
    raise ProviderError(
        "ArchiveExists",
        f"{path} is there and is not an archive of swarm {swarm.name}: move it away, "
        "or choose another termination.archivePath",
    )


def pack(swarm: SwarmHandle, folder: int | None, path: Path, cancelled: threading.Event) -> None:
    """Write the archive: all job folders without secrets, sockets and FIFOs.

    Symlinks are stored as links; the file appears under its name only when it is whole.

    Args:
        swarm: what it is an archive of.
        folder: descriptor of the swarm's folder; None: it has none, the archive is empty.
        path: the file to make, mode 0600.
        cancelled: when set, packing is given up.

    Raises: ProviderError (``Cancelled``); OSError.
    """
    path.parent.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
    part = partial(path)
    part.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(part, flags, PRIVATE_FILE), "wb") as raw:
            with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=6) as tar:
                _add_label(tar, swarm)
                if folder is not None:
                    _add_tree(tar, swarm, folder, cancelled)
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _label_name(swarm: SwarmHandle) -> str:
    return f"{swarm_parts(swarm)[1]}/{_LABEL}"


def _add_label(tar: tarfile.TarFile, swarm: SwarmHandle) -> None:
    now = int(time.time())
    about = {
        "namespace": swarm.namespace,
        "swarm": swarm.name,
        "uid": swarm.uid,
        "createdAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
    }
    data = json.dumps(about, indent=2).encode() + b"\n"
    info = tarfile.TarInfo(_label_name(swarm))
    info.size, info.mode, info.mtime = len(data), PRIVATE_FILE, now
    tar.addfile(info, io.BytesIO(data))


def _add_tree(
    tar: tarfile.TarFile, swarm: SwarmHandle, folder: int, cancelled: threading.Event
) -> None:
    top = swarm_parts(swarm)[1]
    for node in trees.walk(folder, skip=_left_out):
        if cancelled.is_set():
            raise ProviderError("Cancelled", f"packing swarm {swarm.name} was given up")
        if node.leaving:
            continue
        arcname = f"{top}/{node.path}"
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


def _add_file(tar: tarfile.TarFile, arcname: str, node: trees.Node) -> None:
    descriptor = os.open(node.name, _READ_FLAGS, dir_fd=node.parent)
    with os.fdopen(descriptor, "rb") as file:
        info = tar.gettarinfo(arcname=arcname, fileobj=file)
        info.mtime = int(info.mtime)
        if info.isreg():
            tar.addfile(info, _Exactly(file, info.size))
        elif info.islnk():  # a further name of a file that is in the archive already
            tar.addfile(info)


def _add_entry(
    tar: tarfile.TarFile, arcname: str, node: trees.Node, kind: bytes, target: str = ""
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
