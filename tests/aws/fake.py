"""An EC2 that does what a test tells it, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from providers.aws_values import HOST_KEY_TAG, UID_TAG, Instance, Volume, Wish


class Clock:
    """Monotonic seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeEc2:
    """Answers what it was given; keeps what it was asked."""

    def __init__(self) -> None:
        self.calls = 0
        self.shown: list[Instance] = []
        self.disks: list[Volume] = []
        self.known: set[str] = set()
        """Instances that only their id finds."""
        self.requests: list[dict[str, Any]] = []
        self.failure: Exception | None = None

    def _called(self) -> None:
        self.calls += 1
        if self.failure is not None:
            raise self.failure

    async def instances(self, uids: Collection[str]) -> list[Instance]:
        self._called()
        return [i for i in self.shown if i.uid in uids]

    async def exists(self, instance: str) -> bool:
        self._called()
        return instance in self.known

    async def volumes(self, uids: Collection[str]) -> list[Volume]:
        self._called()
        return [v for v in self.disks if v.uid in uids]

    async def run(
        self,
        wish: Wish,
        count: int,
        *,
        token: str,
        tags: Mapping[str, str],
        user_data: str,
        zone: str | None,
    ) -> list[Instance]:
        self.requests.append(
            {
                "count": count,
                "token": token,
                "user_data": user_data,
                "zone": zone,
                "key": tags[HOST_KEY_TAG],
                "wish": wish,
            }
        )
        self._called()
        return [
            Instance(f"i-{len(self.requests)}-{n}", "pending", tags=dict(tags))
            for n in range(count)
        ]


def machine(id: str, uid: str = "u1", state: str = "running") -> Instance:
    """An instance of a swarm."""
    return Instance(id, state, tags={UID_TAG: uid})


def disk(id: str, uid: str = "u1") -> Volume:
    """A volume of a swarm."""
    return Volume(id, "available", tags={UID_TAG: uid})
