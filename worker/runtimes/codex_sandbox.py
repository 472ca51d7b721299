"""What a manifest's sandbox and approval settings are in Codex's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.config import Config

SHARED_TEMP = Path("/tmp")
TEMP_VARIABLE = "TMPDIR"


@dataclass(frozen=True)
class Sandbox:
    """What the agent's commands may touch.

    Args:
        mode: read-only, workspace-write or danger-full-access.
        network: whether they may use the network.
        workspace: the checkout.
        temp: where they may leave temporary files; None: where everybody does.
    """

    mode: str
    network: bool
    workspace: Path
    temp: Path | None

    def policy(self) -> dict[str, Any]:
        """A turn's ``sandboxPolicy``.

        Codex keeps ``.git`` of a writable folder read-only; naming it makes the checkout's own
        repository writable, and nothing of the shared object store.
        """
        if self.mode == "danger-full-access":
            return {"type": "dangerFullAccess"}
        if self.mode == "read-only":
            return {"type": "readOnly", "networkAccess": self.network}
        roots = [self.workspace / ".git", *([self.temp] if self.temp else [])]
        return {
            "type": "workspaceWrite",
            "writableRoots": [str(root) for root in roots],
            "networkAccess": self.network,
            "excludeSlashTmp": self.temp is not None,
            "excludeTmpdirEnvVar": self.temp is not None,
        }


def sandbox_of(config: Config, env: Mapping[str, str]) -> Sandbox:
    """The sandbox of a worker's commands.

    Commands may write to ``/tmp``, unless the worker's own folder or the shared objects lie
    there: then they get a folder of their own for temporary files.
    """
    agent = config.agent
    shared = [SHARED_TEMP, *([Path(env[TEMP_VARIABLE])] if env.get(TEMP_VARIABLE) else [])]
    own = [config.base.resolve(), config.stores.resolve()]
    exposed = any(_within(path, temp.resolve()) for path in own for temp in shared)
    return Sandbox(
        mode=agent.sandbox_mode,
        network=agent.network_access,
        workspace=config.workspace,
        temp=config.base / "tmp" if exposed else None,
    )


def _within(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def approval_policy(policy: str) -> str:
    """The protocol's ``AskForApproval``.

    Codex has no ``on-failure`` any more; ``on-request`` asks in the same places, as the model asks
    for more once a command has failed in the sandbox.
    """
    return "on-request" if policy == "on-failure" else policy
