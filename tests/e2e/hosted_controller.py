"""A controller of a file home whose workers a worker host runs: ``CODESWARM_WORKER_HOST``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from controller.runtime import local
from providers.hosted import HostedProvider


class Database(local.Database):
    """Remembers the epoch of this life."""

    epoch = 0

    def next_epoch(self) -> int:
        """As ``Database.next_epoch``."""
        Database.epoch = super().next_epoch()
        return Database.epoch


def provider(workspaces: Path) -> HostedProvider:
    """In place of ``LocalProvider``."""
    socket = Path(os.environ["CODESWARM_WORKER_HOST"])
    return HostedProvider(socket, Database.epoch, archives=workspaces.with_name("archives"))


if __name__ == "__main__":
    local.Database = Database  # type: ignore[misc]
    local.LocalProvider = provider  # type: ignore[misc,assignment]
    sys.exit(local.main())
