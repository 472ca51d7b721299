"""What happens in the controller, told to whoever measures or shows it; by default to nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.reconcile.infos import SwarmInfo, TaskInfo
from controller.store.base import Key, Resource


class Observer:
    """Called in the event loop, in the midst of the work: each method returns at once."""

    def waited(self, key: Key, seconds: float) -> None:
        """A key was ready for so long before its pass began."""

    def passed(self, key: Key, result: str, seconds: float) -> None:
        """A pass has ended.

        Args:
            result: ``success``, ``conflict``, ``gone``, ``provider``, ``unavailable``, ``refused``
                or ``error``.
            seconds: from its begin to its end, what it waited for included.
        """

    def task(self, before: TaskInfo | None, info: TaskInfo, obj: Resource, initial: bool) -> None:
        """A Task as stored, and what was known of it before; ``initial``: at the start."""

    def task_gone(self, info: TaskInfo) -> None:
        """A Task is not there any more."""

    def swarm(self, info: SwarmInfo, obj: Resource, initial: bool) -> None:
        """A Swarm as stored; ``initial``: at the start."""

    def heard(self, job: str, record: Mapping[str, Any]) -> None:
        """A record has come out of a job's outbox; after a restart some come again."""
