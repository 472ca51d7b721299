"""The file home: which file or folder of ``$CODESWARM_HOME`` holds what."""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.store.base import StoreUnavailable

VARIABLE = "CODESWARM_HOME"


@dataclass(frozen=True, slots=True)
class Home:
    """Paths of one file home. Nothing is touched but by ``ensure``."""

    root: Path
    """Absolute."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Home:
        """The home that ``$CODESWARM_HOME`` names, else ``~/.codeswarm``."""
        values = os.environ if environ is None else environ
        return cls.at(values.get(VARIABLE) or "~/.codeswarm")

    @classmethod
    def at(cls, path: str | Path) -> Home:
        """The home at a path, relative to the working directory, ``~`` understood."""
        return cls(Path(os.path.abspath(Path(path).expanduser())))  # noqa: PTH100 (keep symlinks)

    @property
    def state(self) -> Path:
        """The database."""
        return self.root / "state.db"

    @property
    def transcripts(self) -> Path:
        """Copies of outboxes: ``<namespace>/<swarm>-<uid8>/<job>.jsonl``."""
        return self.root / "transcripts"

    @property
    def workspaces(self) -> Path:
        """Local workers' folders, where no ``workspaceRoot`` says otherwise."""
        return self.root / "workspaces"

    @property
    def archives(self) -> Path:
        """``tar.gz`` files of terminated swarms."""
        return self.root / "archives"

    @property
    def logs(self) -> Path:
        """Logs of background processes."""
        return self.root / "logs"

    @property
    def controller_log(self) -> Path:
        """What a controller in the background says."""
        return self.logs / "controller.log"

    @property
    def config(self) -> Path:
        """Settings; need not exist."""
        return self.root / "config.yaml"

    @property
    def lock(self) -> Path:
        """Held by the running controller (see ``lock.py``)."""
        return self.root / "controller.lock"

    @property
    def http(self) -> Path:
        """Where the running controller listens, and the token for it (0600)."""
        return self.root / "http.json"

    @property
    def wake(self) -> Path:
        """FIFO by which a writer of desired state wakes the controller; only a hint."""
        return self.root / "wake"

    @property
    def aws_places(self) -> Path:
        """Regions and endpoints in which this home ever had machines."""
        return self.root / "aws-places.jsonl"

    @property
    def identity(self) -> str:
        """Which home this is, for what it leaves elsewhere (tags of machines); made when first
        asked for, and then the same for ever.

        Raises: StoreUnavailable, with what to do.
        """
        path = self.root / "identity"
        try:
            for _ in range(3):
                with contextlib.suppress(FileNotFoundError):
                    return _identity(path)
                _make_identity(path)
            return _identity(path)
        except OSError as error:
            raise StoreUnavailable(
                f"{path} cannot be read or made ({error.strerror}): it says which home this is, "
                "and machines elsewhere are found by it"
            ) from error

    def ensure(self) -> Home:
        """Make the folders, for their owner alone (0700); returns itself.

        Raises: StoreUnavailable, with what to do.
        """
        try:
            for path in (
                self.root,
                self.transcripts,
                self.workspaces,
                self.archives,
                self.logs,
            ):
                path.mkdir(mode=0o700, parents=path is self.root, exist_ok=True)
            if stat.S_IMODE(self.root.stat().st_mode) & 0o077:
                self.root.chmod(0o700)
        except OSError as error:
            raise StoreUnavailable(
                f"the home {self.root} cannot be made ({error.strerror}): "
                f"let {VARIABLE} or --home name a folder that you may write"
            ) from error
        return self


def _identity(path: Path) -> str:
    """What the file says. Raises: OSError, StoreUnavailable."""
    try:
        return str(uuid.UUID(path.read_text().strip()))
    except ValueError as error:
        raise StoreUnavailable(
            f"{path} holds no identity: restore it from a backup. Without it this home does not "
            "know its machines elsewhere any more; if it has none, delete the file"
        ) from error


def _make_identity(path: Path) -> None:
    """Make the file, whole or not at all; another process's that is there first is left."""
    draft = path.with_name(f".identity.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{uuid.uuid4()}\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
