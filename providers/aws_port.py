"""What the AWS provider needs of EC2; ``providers.aws_api`` does it with boto3.

A call either gives its answer or raises: ``ProviderUnreachable`` (nothing was done: no answer
could be had, or credentials are refused), ``OutcomeUnknown`` (it may have been done), or
``ProviderError`` with a reason of ``providers.aws_errors`` (it was refused, and not done).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from providers.aws_values import Instance, Volume, Wish


class Ec2(Protocol):
    """EC2 of one region, endpoint and set of credentials."""

    @property
    def calls(self) -> int:
        """How many requests were sent, retries too."""
        ...

    async def instances(self, uids: Collection[str]) -> list[Instance]:
        """All instances of swarms, by their tag; those that ended lately too."""
        ...

    async def volumes(self, uids: Collection[str]) -> list[Volume]:
        """All volumes of swarms, by their tag."""
        ...

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
        """Launch up to ``count`` instances, one at least, in one request.

        Args:
            wish: what they are made of.
            count: how many.
            token: ClientToken, 64 characters at most.
            tags: of each of them.
            user_data: text, for cloud-init.
            zone: availability zone; None: EC2 or the subnet chooses.

        Raises: ProviderError (``InsufficientInstanceCapacity``, ``QuotaExceeded``,
            ``ImageNotFound``, ..., ``IdempotentParameterMismatch``), and as above.
        """
        ...

    async def terminate(self, ids: Sequence[str]) -> None:
        """Terminate instances; those that are not known any more are fine.

        One that is unknown keeps no other alive: the rest is tried again without it.
        """
        ...

    async def tag(self, ids: Sequence[str], tags: Mapping[str, str]) -> None:
        """Set tags of instances or volumes."""
        ...

    async def create_volume(
        self, wish: Wish, zone: str, *, token: str, tags: Mapping[str, str]
    ) -> Volume:
        """Create the shared volume in a zone."""
        ...

    async def attach(self, volume: str, instance: str, device: str) -> None:
        """Begin to attach a volume; one that is attached there already is fine.

        Raises: ProviderError (``VolumeInUse``: it is attached elsewhere), and as above.
        """
        ...

    async def detach(self, volume: str, *, force: bool = False) -> None:
        """Begin to detach a volume; one that is attached nowhere is fine."""
        ...

    async def delete_volume(self, volume: str) -> None:
        """Delete a volume; one that is not there is fine."""
        ...

    async def impaired(self, ids: Collection[str]) -> set[str]:
        """Those of these running instances whose system or instance check fails."""
        ...

    async def exists(self, instance: str) -> bool:
        """Whether EC2 knows an instance by its id, be it ended; just launched it may not be."""
        ...

    async def console(self, instance: str) -> str:
        """The last of what an instance printed on its console; empty, where there is none."""
        ...
