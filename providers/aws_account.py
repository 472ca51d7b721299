"""Whose EC2 is looked at: with another account's credentials, what is not shown is not gone."""

from __future__ import annotations

import time
from collections.abc import Callable

from providers.aws_api import Boto
from providers.aws_preflight import caller
from providers.aws_values import Api
from providers.base import ProviderError, ProviderUnreachable

AGAIN_SECONDS = 60.0
"""After STS did not tell whose credentials these are, as it need not, or told of a stranger."""


class OwnAccount:
    """Asks, until it is known, whose credentials are used; called before each look.

    Args:
        ec2: with which credentials.
        belongs: told the account. Raises: ProviderUnreachable (``AnotherAccount``).
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        ec2: Boto,
        belongs: Callable[[Api, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ec2 = ec2
        self._belongs = belongs
        self._clock = clock
        self._told = ""
        self._error: ProviderUnreachable | None = None
        self._again = 0.0

    async def __call__(self) -> None:
        """Raises: ProviderUnreachable (``AnotherAccount``)."""
        if self._told:
            return
        if self._clock() >= self._again:
            self._again = self._clock() + AGAIN_SECONDS
            await self._ask()
        if self._error is not None:
            raise ProviderUnreachable(self._error.reason, str(self._error))

    async def _ask(self) -> None:
        try:
            await caller(self._ec2)
        except ProviderError:
            return
        if not self._ec2.account:
            return
        try:
            self._belongs(self._ec2.api, self._ec2.account)
        except ProviderUnreachable as error:
            self._error = error
        else:
            self._told, self._error = self._ec2.account, None
