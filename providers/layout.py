"""Where a local swarm's files lie, and the proof that no name leads out of there."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from providers.base import ProviderError, SwarmHandle

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


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders below one root.

    Args:
        root: absolute, symlinks resolved; what lies above it is trusted, what lies below not.
    """

    root: Path

    @property
    def hint(self) -> Path:
        """The FIFO by which workers say that their outbox grew."""
        return self.root / "outbox.wake"

    @property
    def stores(self) -> Path:
        """Folder of the shared git object stores of this host."""
        return self.root / "stores"

    def base(self, swarm: SwarmHandle) -> Path:
        """The root for this swarm: its ``workspaceRoot`` if it has one.

        Raises: ProviderError (``InvalidParameters``) if that is not an absolute path.
        """
        chosen = swarm.parameters.get("workspaceRoot")
        if not chosen:
            return self.root
        path = Path(str(chosen)).expanduser()
        if not path.is_absolute():
            raise ProviderError(
                "InvalidParameters",
                f"local.workspaceRoot: {str(chosen)!r} is a relative path; "
                "give an absolute one, or one that begins with '~'",
            )
        return path.resolve()

    def swarm_dir(self, swarm: SwarmHandle) -> Path:
        """Folder of a swarm; neither made nor checked."""
        return self.base(swarm).joinpath(*swarm_parts(swarm))

    def job_dir(self, swarm: SwarmHandle, job: str) -> Path:
        """Folder of a job (``CODESWARM_BASE_DIR``); neither made nor checked."""
        return self.swarm_dir(swarm) / component(job)

    def existing(self, swarm: SwarmHandle, *below: str) -> Path | None:
        """A folder below the swarm's own, or None if it is not there.

        Raises: ProviderError (``UnsafePath``) if a component is a symlink or no folder.
        """
        path = str(self.base(swarm))  # a string: this is on the way of every delivery
        for name in (*swarm_parts(swarm), *below):
            path = f"{path}/{component(name)}"
            try:
                _require_plain(path)
            except FileNotFoundError:
                return None
        return Path(path)

    def make(self, swarm: SwarmHandle, *below: str) -> Path:
        """A folder below the swarm's own, made (mode 0700) where it is missing.

        Raises: ProviderError (``UnsafePath``) if a component is a symlink or no folder; OSError.
        """
        for _ in range(_MKDIR_ATTEMPTS):
            try:
                return self._make(swarm, below)
            except FileNotFoundError:
                continue  # the removal of an empty parent came in between
        return self._make(swarm, below)

    def _make(self, swarm: SwarmHandle, below: tuple[str, ...]) -> Path:
        path = self.base(swarm)
        path.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
        for name in (*swarm_parts(swarm), *below):
            path = path / component(name)
            try:
                path.mkdir(mode=PRIVATE_DIR)
            except FileExistsError:
                _require_plain(path)
        return path

    def open(self, swarm: SwarmHandle) -> int | None:
        """Descriptor of the swarm's folder, opened without following a symlink; None if absent.

        Raises: ProviderError (``UnsafePath``); OSError.
        """
        try:
            current = os.open(self.base(swarm), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        for name in swarm_parts(swarm):
            try:
                following = os.open(name, _OPEN_DIR, dir_fd=current)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise _unsafe(self.swarm_dir(swarm)) from error
            finally:
                os.close(current)
            current = following
        return current


def swarm_parts(swarm: SwarmHandle) -> tuple[str, str]:
    """A swarm's two components below the root: namespace, and name with 8 characters of uid."""
    return component(swarm.namespace), component(f"{swarm.name}-{swarm.uid[:8]}")


def inbox_name(job: str, index: int) -> str:
    """File name of a worker's inbox and of its outbox."""
    return f"{component(job)}_{index:02d}.jsonl"


def write_private(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, with mode 0600.

    The temporary name is fixed (``.<name>.part``), so that a crash leaves at most one behind,
    and one that can be recognised.

    Raises: OSError.
    """
    part = partial(path)
    part.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(part, flags, PRIVATE_FILE)
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
