"""The connection to a login host: made when it is needed, by one for all, and made again.

Who asks while it is being made waits for that one attempt.  A host that is away, or does not let
us in, is asked again after growing pauses, and whoever asks in between has the last answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from providers.base import ProviderError, ProviderUnreachable
from providers.ssh_target import Means, SshTarget

if TYPE_CHECKING:
    from providers.ssh_connect import Connection

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE = 30.0
_LONGEST_REFUSED = 120.0
_REFUSING = frozenset({"AuthenticationFailed", "HostKeyUnknown", "HostKeyChanged"})
"""What a host notices, and may ban us for."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often what may be repeated is tried again, and after what first pause."""

    attempts: int = 4
    """Beside the first."""
    delay_seconds: float = 1.5

    @property
    def tries(self) -> int:
        """The first one included."""
        return self.attempts + 1

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Retry:
        """``retry: {attempts, delaySeconds}`` of a provider block."""
        told = parameters.get("retry") or {}
        return cls(
            int(told.get("attempts", cls().attempts)),
            float(told.get("delaySeconds", cls().delay_seconds)),
        )

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row: growing, and never twice the same."""
        grown = self.delay_seconds * 1.6 ** min(failures - 1, 20)
        return float(min(grown, _LONGEST_PAUSE) * random.uniform(0.7, 1.3))


class Line:
    """One login host's connection.

    Args:
        target: where, and as whom.
        means: what of this machine's user may be used to get in.
        retry: for making it.
        connect_seconds: for each host on the way.
        keepalive_seconds: how often a silent host is asked whether it is there.
        lasting_seconds: how long it is not asked again after a failure that does not pass by
            itself (a refused key); doubled each time, to two minutes where the host notices.
        idle_seconds: once nobody has used it for so long, it is ended.
        made: called with each new connection.
    """

    def __init__(
        self,
        target: SshTarget,
        means: Means,
        *,
        retry: Retry,
        connect_seconds: float,
        keepalive_seconds: float,
        lasting_seconds: float,
        idle_seconds: float,
        made: Callable[[], None],
    ) -> None:
        self.target = target
        self.retry = retry
        self._means = means
        self._connect_seconds = connect_seconds
        self._keepalive_seconds = keepalive_seconds
        self._lasting_seconds = lasting_seconds
        self._idle_seconds = idle_seconds
        self._made = made
        self._connection: Connection | None = None
        self._attempt: asyncio.Task[Connection] | None = None
        self._failures = 0
        self.failure: ProviderUnreachable | None = None
        """Why it was not made the last time; None: it was."""
        self.not_before = 0.0
        """Until then nobody tries again (monotonic clock)."""
        self._idle: asyncio.TimerHandle | None = None
        self._closed = False

    async def connected(self) -> Connection:
        """The connection, made if need be, by one for all. Raises: ProviderUnreachable."""
        if self._connection is not None and not self._connection.ended:
            return self._connection
        if self._closed:
            raise ProviderUnreachable("ConnectionLost", f"the connection to {self} was ended here")
        if self._attempt is None or self._attempt.done():
            if self.failure is not None and time.monotonic() < self.not_before:
                raise ProviderUnreachable(self.failure.reason, str(self.failure))
            self._attempt = asyncio.get_running_loop().create_task(self._make(), name=f"ssh {self}")
            self._attempt.add_done_callback(_seen)
        return await asyncio.shield(self._attempt)

    async def _make(self) -> Connection:
        """Connect, as often as may be tried. Raises: ProviderUnreachable."""
        from providers.ssh_connect import connect
        from providers.ssh_errors import LASTING

        left = max(1, self.retry.tries - self._failures)
        while True:
            try:
                connection = await connect(
                    self.target,
                    self._means,
                    seconds=self._connect_seconds,
                    keepalive=self._keepalive_seconds,
                    lost=self._on_lost,
                )
            except ProviderUnreachable as error:
                left -= 1
                self._failures += 1
                lasting = error.reason in LASTING
                pause = self._pause(error.reason) if lasting else self.retry.pause(self._failures)
                self._note(error)
                self.not_before = time.monotonic() + pause
                if lasting or left <= 0:
                    raise
                await asyncio.sleep(pause)
                continue
            _LOG.info("%s: connected", connection.where)
            self._connection, self.failure, self._failures = connection, None, 0
            self._made()
            return connection

    def _pause(self, reason: str) -> float:
        """Until a failure that does not pass by itself is looked at again."""
        longest = _LONGEST_REFUSED if reason in _REFUSING else _LONGEST_PAUSE
        return float(min(self._lasting_seconds * 2.0 ** min(self._failures - 1, 10), longest))

    def _note(self, error: ProviderUnreachable) -> None:
        if self.failure is None or self.failure.reason != error.reason:
            _LOG.warning("%s: %s: %s", self, error.reason, error)
        self.failure = error

    def _on_lost(self) -> None:
        if self._connection is not None and self._connection.ended and not self._closed:
            _LOG.warning("%s: the connection was lost", self._connection.where)
            self._connection.close()
            self._connection = None

    def used(self) -> None:
        """Somebody begins to use it."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def unused(self) -> None:
        """Nobody uses it any more."""
        self.used()
        if not self._closed:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self._idle_seconds, self._disconnect)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @property
    def up(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None and not self._connection.ended

    async def close(self) -> None:
        """End it for good."""
        self._closed = True
        self.used()
        if self._attempt is not None:
            self._attempt.cancel()
            with suppress(asyncio.CancelledError, ProviderError):
                await self._attempt
        self._disconnect()

    def __str__(self) -> str:
        return str(self.target) if self._connection is None else self._connection.where


def _seen(task: asyncio.Task[Any]) -> None:
    """A failure that nobody waits for any more is no news."""
    if not task.cancelled():
        task.exception()
