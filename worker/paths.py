"""Folders and files below a root, and the proof that no name leads out of it.

What lies above a root is trusted, what lies below is not: agents write there.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from worker.failures import ProviderError

PRIVATE_DIR = 0o700
PRIVATE_FILE = 0o600

_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}\Z")
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MKDIR_ATTEMPTS = 5


def component(name: str) -> str:
    """Return ``name`` if it is safe as one component of a path.

    Raises: ProviderError (``InvalidName``) for ``..``, separators, hidden and empty names.
    """
    if not is_component(name):
        raise ProviderError(
            "InvalidName",
            f"{name!r} cannot name a folder: letters, digits, '-', '_' and '.' are allowed, "
            "beginning with a letter or digit, up to 255 of them",
        )
    return name


def is_component(name: object) -> bool:
    """Whether this is a text that is safe as one component of a path."""
    return isinstance(name, str) and _COMPONENT.match(name) is not None


def existing(root: Path, *below: str) -> Path | None:
    """A folder below the root, or None if it is not there.

    Raises: ProviderError (``UnsafePath``) if a component is a symlink or no folder.
    """
    path = str(root)  # a string: this is on the way of every delivery
    for name in below:
        path = f"{path}/{component(name)}"
        try:
            _require_plain(path)
        except FileNotFoundError:
            return None
    return Path(path)


def make(root: Path, *below: str) -> Path:
    """A folder below the root, made (mode 0700, the root too) where it is missing.

    Raises: ProviderError (``UnsafePath``) if a component is a symlink or no folder; OSError.
    """
    for _ in range(_MKDIR_ATTEMPTS):
        try:
            return _make(root, below)
        except FileNotFoundError:
            continue  # the removal of an empty parent came in between
    return _make(root, below)


def _make(root: Path, below: tuple[str, ...]) -> Path:
    path = root
    path.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
    for name in below:
        path = path / component(name)
        try:
            path.mkdir(mode=PRIVATE_DIR)
        except FileExistsError:
            _require_plain(path)
    return path


def open_folder(root: Path, *below: str) -> int | None:
    """Descriptor of a folder below the root, opened without following a symlink; None if absent.

    Raises: ProviderError (``UnsafePath``); OSError.
    """
    try:
        current = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    for name in below:
        try:
            following = os.open(component(name), _OPEN_DIR, dir_fd=current)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unsafe(root.joinpath(*below)) from error
        finally:
            os.close(current)
        current = following
    return current


def inbox_name(job: str, index: int) -> str:
    """File name of a worker's inbox and of its outbox."""
    return f"{component(job)}_{index:02d}.jsonl"


def write_private(path: Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Write a file whole or not at all, with mode 0600 unless told otherwise.

    The temporary name is fixed (``.<name>.part``), so that a crash leaves at most one behind,
    and one that can be recognised.

    Raises: OSError.
    """
    part = partial(path)
    part.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(part, flags, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    part.replace(path)


def partial(path: Path) -> Path:
    """The name under which ``write_private`` writes before it renames."""
    return path.with_name(f".{path.name}.part")


def make_fifo(path: Path) -> None:
    """Make a FIFO of mode 0600; one that is there is kept, since others may hold it open.

    Raises: OSError.
    """
    try:
        os.mkfifo(path, PRIVATE_FILE)
    except FileExistsError:
        if stat.S_ISFIFO(path.lstat().st_mode):
            return
        path.unlink()
        os.mkfifo(path, PRIVATE_FILE)


def _require_plain(path: str | Path) -> None:
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise _unsafe(path)


def _unsafe(path: str | Path) -> ProviderError:
    return ProviderError(
        "UnsafePath", f"{path} is not a plain folder (a symlink, or a file): it is left alone"
    )
