"""A controller that kills itself with SIGKILL at its Nth step between intent and effect.

Run as ``python -m tests.faults.crashing``, with the command line of a cluster's controller for
one of those.  A step is the moment before or after a write to the store, a call of the provider
that has an effect, a change of a repository, or a note of how far the outboxes are settled.
``CODESWARM_CRASH_AT`` is N (0: never), or a step's name and which of that name it is
(``after LocalProvider.deliver#2``).  Every step is appended to the file ``CODESWARM_CRASH_LOG``.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from controller.reconcile.transcripts import Transcripts
from controller.repository.objects import ObjectStore
from controller.repository.service import Repositories
from controller.runtime import local
from controller.store.kube import KubeStore
from controller.store.sqlite import SqliteStore
from providers.aws_api import Boto
from providers.aws_nodes import Nodes
from providers.local import LocalProvider
from providers.remote import RemoteHost

AT = "CODESWARM_CRASH_AT"
LOG = "CODESWARM_CRASH_LOG"

EFFECTS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (SqliteStore, ("create", "update", "update_status", "delete")),
    (KubeStore, ("create", "update", "update_status", "delete")),
    (LocalProvider, ("launch", "deliver", "stop", "remove", "archive")),
    (RemoteHost, ("call", "upload", "download")),
    (Boto, ("run", "terminate", "tag", "create_volume", "attach", "delete_volume")),
    (Nodes, ("start", "stop", "clear")),
    (Repositories, ("put", "delete", "ensure_base")),
    (ObjectStore, ("put", "delete")),
)


def arm(at: str, log: int) -> Callable[[str], None]:
    """What is called at every step; it does not return from the one that is meant."""
    numbers = itertools.count(1)
    named: Counter[str] = Counter()

    def step(name: str) -> None:
        number = next(numbers)
        named[name] += 1
        os.write(log, f"{number} {name}#{named[name]}\n".encode())
        if at in (str(number), f"{name}#{named[name]}"):
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def surround(owner: type, name: str, step: Callable[[str], None]) -> None:
    """Step before and after an asynchronous method."""
    method = getattr(owner, name)
    label = f"{owner.__name__}.{name}"

    @functools.wraps(method)
    async def surrounded(*arguments: Any, **named: Any) -> Any:
        step(f"before {label}")
        try:
            return await method(*arguments, **named)
        finally:
            step(f"after {label}")

    setattr(owner, name, surrounded)


def surround_flush(step: Callable[[str], None]) -> None:
    """Step before and after it is noted how far outboxes are settled."""
    flush = Transcripts.flush

    def surrounded(self: Transcripts) -> None:
        if not self._unsaved:
            return
        step("before Transcripts.flush")
        flush(self)
        step("after Transcripts.flush")

    Transcripts.flush = surrounded  # type: ignore[method-assign]


def main() -> int:
    """Arm, then be the controller."""
    log = os.open(os.environ.pop(LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    step = arm(os.environ.pop(AT), log)
    for owner, names in EFFECTS:
        for name in names:
            surround(owner, name, step)
    surround_flush(step)
    if sys.argv[1:]:
        from cli.main import main as command

        return command()
    return local.main()


if __name__ == "__main__":
    sys.exit(main())
