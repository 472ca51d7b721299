"""Where a local swarm's files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from providers.base import ProviderError, SwarmHandle
from worker import paths
from worker.paths import component


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
        return paths.existing(self.base(swarm), *swarm_parts(swarm), *below)

    def make(self, swarm: SwarmHandle, *below: str) -> Path:
        """A folder below the swarm's own, made (mode 0700) where it is missing.

        Raises: ProviderError (``UnsafePath``) if a component is a symlink or no folder; OSError.
        """
        return paths.make(self.base(swarm), *swarm_parts(swarm), *below)

    def open(self, swarm: SwarmHandle) -> int | None:
        """Descriptor of the swarm's folder, opened without following a symlink; None if absent.

        Raises: ProviderError (``UnsafePath``); OSError.
        """
        return paths.open_folder(self.base(swarm), *swarm_parts(swarm))


def swarm_parts(swarm: SwarmHandle) -> tuple[str, str]:
    """A swarm's two components below the root: namespace, and name with 8 characters of uid."""
    return component(swarm.namespace), component(f"{swarm.name}-{swarm.uid[:8]}")
