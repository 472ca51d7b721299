"""Where the archive of a swarm lies, and whether it is there whole (``worker.packing`` packs)."""

from __future__ import annotations

import json
import logging
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from providers.base import ProviderError, SwarmHandle
from providers.layout import swarm_parts
from worker import packing
from worker.packing import Packed
from worker.paths import PRIVATE_DIR, PRIVATE_FILE, partial

_LOG = logging.getLogger(__name__)


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
            label = tar.extractfile(packed(swarm).label)
            if label is not None and json.load(label)["uid"] == swarm.uid:
                return True
    except (OSError, EOFError, tarfile.TarError, KeyError, ValueError, TypeError):
        _LOG.debug("%s is not an archive of swarm %s", path, swarm.name)
    raise ProviderError(
        "ArchiveExists",
        f"{path} is there and is not an archive of swarm {swarm.name}: move it away, "
        "or choose another termination.archivePath",
    )


def packed(swarm: SwarmHandle) -> Packed:
    """What an archive says of itself."""
    return Packed(swarm.namespace, swarm.name, swarm.uid, swarm_parts(swarm)[1])


def pack(swarm: SwarmHandle, folder: int | None, path: Path, cancelled: threading.Event) -> None:
    """Write the archive; the file appears under its name only when it is whole.

    Args:
        swarm: what it is an archive of.
        folder: descriptor of the swarm's folder; None: it has none, the archive is empty.
        path: the file to make, mode 0600.
        cancelled: when set, packing is given up.

    Raises: ProviderError (``Cancelled``); OSError.
    """
    with whole(path) as raw:
        packing.pack(packed(swarm), folder, raw, cancelled)


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which gets its name when all went well, and else is gone.

    Raises: OSError.
    """
    path.parent.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
    part = partial(path)
    part.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(part, flags, PRIVATE_FILE), "wb") as raw:
            yield raw
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
