"""Hosts to connect to as tests need them: quick to try again, and with nothing of this user's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from providers.base import ProviderError
from providers.ssh import Retry, SshHost
from providers.ssh_target import Means, SshTarget
from tests.sshd import Sshd

T = TypeVar("T")
FILES = Means(files=True)
"""Files of this machine count, but neither the user's configuration nor an agent."""


def target_of(sshd: Sshd, **more: Any) -> SshTarget:
    """The target of an sshd, with other parameters of a provider block."""
    secrets = {"sshKey": more.pop("sshKey")} if "sshKey" in more else {}
    given = sshd.parameters(**more)
    return SshTarget.from_parameters({k: v for k, v in given.items() if v is not None}, secrets)


def host_of(target: SshTarget, means: Means = FILES, **settings: Any) -> SshHost:
    """A host with short pauses."""
    settings.setdefault("retry", Retry(2, 0.05))
    return SshHost(target, means, **{"connect_seconds": 5.0, "lasting_seconds": 0.05, **settings})


def using(target: SshTarget, act: Callable[[SshHost], Awaitable[T]], **settings: Any) -> T:
    """What comes of using a host, which is closed afterwards."""

    async def main() -> T:
        host = host_of(target, **settings)
        try:
            async with asyncio.timeout(60):
                return await act(host)
        finally:
            await host.close()

    return asyncio.run(main())


def failure(target: SshTarget, **settings: Any) -> ProviderError:
    """How a command fails that cannot even be started."""
    seconds = settings.pop("seconds", 20)
    with pytest.raises(ProviderError) as caught:
        using(target, lambda host: host.run(["true"], seconds=seconds), **settings)
    return caught.value


async def until(true: Callable[[], object], what: str, seconds: float = 20) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come"
        await asyncio.sleep(0.01)


def words(path: Path) -> str:
    """A file's text; empty if it is not there."""
    return path.read_text() if path.exists() else ""
