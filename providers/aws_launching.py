"""Launching instances: one request at a time, and the same request until it is answered.

RunInstances is not lost on us when its answer is: the request is repeated word for word under its
ClientToken, or found to have been carried out by the host key that its instances were given.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from providers.aws_plan import pause_after
from providers.aws_port import Ec2
from providers.aws_userdata import HostKey, host_key, user_data
from providers.aws_values import HOST_KEY_TAG, WISH_TAG, Instance, Wish
from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable

MISMATCH_SECONDS = 180.0
"""For so long an earlier controller's request of the same token may still show its instances."""


_ASKED_FOR = ("", "Client.UserInitiatedShutdown")
"""State reasons of instances that were ended by a request."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """A request that was sent, and that nobody knows the answer of."""

    wish: Wish
    count: int
    zone: str | None
    token: str
    key: HostKey
    lets_in: tuple[str, ...]


class Launching:
    """Launches for one swarm.

    Args:
        ec2: whom to ask.
        uid: of the swarm.
        clock: monotonic, seconds.
    """

    def __init__(self, ec2: Ec2, uid: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._ec2 = ec2
        self._uid = uid
        self._clock = clock
        self._sent: _Sent | None = None
        self._salt = ""
        self._refusals = 0
        self._again = 0.0
        self._mismatch: float | None = None
        self._ended: set[str] | None = None
        """Instances that ended too early; None: nothing was looked at yet."""
        self.last: float | None = None
        """When a request was sent last; our clock."""

    @property
    def waits(self) -> float:
        """Seconds until the next request may be sent."""
        return max(0.0, self._again - self._clock())

    def seen(self, instances: Collection[Instance]) -> None:
        """A look has shown these: a request that was carried out is recognised by its key."""
        sent = self._sent
        if sent is not None and any(i.host_key == sent.key.public for i in instances):
            self._answered()

    def retry(self) -> None:
        """A person changed something, or asked to try again at once."""
        self._again = 0.0

    def died(self) -> None:
        """An instance ended before it could be used: the next is not launched at once."""
        self._refusals += 1
        self._again = max(self._again, self._clock() + pause_after(self._refusals))

    def ended(self, instances: Collection[Instance]) -> ProviderError | None:
        """Of all that a look has shown: why some ended by themselves before they could be used.

        Such as a disk that could not be made; the next are not launched at once, then.
        """
        early = {
            i.id: i.state_reason for i in instances
            if i.state == "terminated" and not i.was_ready and i.state_reason not in _ASKED_FOR
        }  # fmt: skip
        new, first = early.keys() - (self._ended or ()), self._ended is None
        self._ended = set(early)
        if first or not new:
            return None
        self.died()
        id = min(new)
        return ProviderError(
            early[id].rpartition(".")[2],
            f"{id} ended before it could be used: AWS says {early[id]}; another one is launched "
            f"in {self.waits:.0f} s",
        )

    def settled(self) -> None:
        """Instances have come to be used: what failed before is forgotten."""
        self._refusals = 0

    async def run(
        self,
        wish: Wish,
        count: int,
        *,
        zone: str | None,
        jobs: Collection[str],
        tags: Mapping[str, str],
        lets_in: tuple[str, ...] = (),
    ) -> list[Instance]:
        """Launch instances, or ask again for those of a request without an answer.

        Args:
            wish: what they are made of.
            count: how many.
            zone: where; None: as the wish says.
            jobs: the workers that they are for.
            tags: of the swarm.
            lets_in: public keys that may log in there, where no key pair of EC2's says so.

        Raises: ProviderError (what EC2 refuses), ProviderUnreachable, OutcomeUnknown.
        """
        sent = self._sent
        if sent is None:
            token = self._token(wish, count, zone, jobs)
            sent = _Sent(wish, count, zone, token, host_key(), lets_in)
        self.last = self._clock()
        try:
            found = await self._ec2.run(
                sent.wish,
                sent.count,
                token=sent.token,
                tags={**tags, HOST_KEY_TAG: sent.key.public, WISH_TAG: sent.wish.digest},
                user_data=user_data(sent.key, sent.lets_in),
                zone=sent.zone,
            )
        except OutcomeUnknown:
            self._sent = sent
            raise
        except ProviderUnreachable:
            raise
        except ProviderError as error:
            self._refused(error)
            raise
        self._answered()
        return found

    def _answered(self) -> None:
        self._sent, self._mismatch, self._again = None, None, 0.0
        self._salt = secrets.token_hex(8)

    def _refused(self, error: ProviderError) -> None:
        self._sent = None
        if error.reason == "IdempotentParameterMismatch":
            # The controller before us has sent it: its instances are about to be seen.
            if self._mismatch is None:
                self._mismatch = self._clock()
            if self._clock() - self._mismatch < MISMATCH_SECONDS:
                self._again = self._clock() + pause_after(1)
                return
        self._mismatch = None
        self._salt = secrets.token_hex(8)
        if error.reason == "IdempotentInstanceTerminated":
            return  # a token of long ago: at once with another one
        self._refusals += 1
        self._again = self._clock() + pause_after(self._refusals)

    def _token(self, wish: Wish, count: int, zone: str | None, jobs: Collection[str]) -> str:
        """Equal for the same need, also in a controller that was started anew."""
        need = [self._uid, wish.digest, count, zone, sorted(jobs), self._salt]
        return hashlib.sha256(json.dumps(need).encode()).hexdigest()
