"""Where the state may lie: never on a network file system, and readable by its owner only."""

from __future__ import annotations

import os
import re
from pathlib import Path

from controller.store.base import StoreUnavailable

# Types as /proc/self/mountinfo names them. SQLite's write-ahead log needs memory shared by all
# its users, so that one machine only can use it (https://sqlite.org/wal.html), and the locks of
# many of these are unreliable.
NETWORK_FILE_SYSTEMS = frozenset(
    {
        "9p", "afs", "beegfs", "beegfs_nodev", "ceph", "cifs", "coda", "gfs2", "gpfs", "lustre",
        "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs",
        "wekafs",
        "fuse.ceph", "fuse.cephfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys",
        "fuse.juicefs", "fuse.mfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs",
    }
)  # fmt: skip

_OCTAL = re.compile(r"\\([0-7]{3})")


def file_system_of(path: Path, mountinfo: str) -> tuple[str, str]:
    """Type and mount point of the file system that holds ``path`` (it need not exist yet).

    Args:
        path: absolute, symbolic links resolved.
        mountinfo: text in the format of proc(5), ``/proc/self/mountinfo``.
    """
    found = ("unknown", "/")
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) < 9 or "-" not in fields[6:]:
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
        kind = fields[fields.index("-", 6) + 1]
        # Of mounts on one another the later line is the visible one.
        if path.is_relative_to(point) and len(point) >= len(found[1]):
            found = (kind, point)
    return found


def prepare_place(path: Path, mountinfo: str | None = None) -> None:
    """See that the state file can lie at ``path``; make directory (0700) and file (0600).

    Args:
        path: of the state file.
        mountinfo: instead of this process's own (for tests).

    Raises:
        StoreUnavailable: on a network file system, or where nothing can be written.
    """
    if mountinfo is None:
        mountinfo = _own_mountinfo()
    kind, point = file_system_of(path.parent.resolve(), mountinfo)
    if kind in NETWORK_FILE_SYSTEMS:
        raise StoreUnavailable(
            f"{path.parent} lies on a network file system ({kind}, mounted at {point}), where the "
            "state would not be safe: set CODESWARM_HOME to a directory on a local disk"
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # An existing file is not opened here: closing it would drop SQLite's own locks on it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError as error:
        if not path.parent.is_dir() or path.is_dir():
            raise StoreUnavailable(f"{error.filename} is in the way of the state") from error
    except OSError as error:
        raise StoreUnavailable(
            f"{path} cannot be made ({error.strerror}): set CODESWARM_HOME to a directory that "
            "you can write to"
        ) from error


def _own_mountinfo() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return ""
