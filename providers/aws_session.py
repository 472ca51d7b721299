"""boto3, called off the event loop: sessions, threads, limits, retries, and a count of requests.

Nothing of boto3 is imported before the first call.  Credentials are boto3's default chain of this
process.  When AWS does not take them, the session is made anew, so that files that were renewed
are read again, and the call is repeated if that found other ones.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from providers.aws_errors import FIELD, UNREACHABLE, Asked, NotSent, is_credentials, trouble
from providers.aws_threads import Threads
from providers.aws_values import Api
from providers.base import ProviderError, ProviderUnreachable

T = TypeVar("T")
Clients = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how often a request is tried."""

    connect: float = 4.0
    """Seconds until a connection must stand."""
    read: float = 20.0
    """Seconds until an answer must come."""
    read_once: float = 11.0
    """The same for one that must not be sent twice: with ``connect`` what it takes at most."""
    attempts: int = 4
    """Of requests that may be sent again; botocore's retry mode ``standard``."""
    total: float = 90.0
    """Seconds after which nothing is sent any more for one call."""
    threads: int = 4


LIMITS = Limits()


@dataclass(slots=True)
class _Call:
    """One call, in its thread."""

    effect: bool = False
    until: float = 0.0
    sent: int = 0
    forbidden: Exception | None = None


class AwsSession:
    """Calls of one region and endpoint.

    Args:
        api: which.
        limits: of each call.
        may: called in a thread just before a request that changes anything is sent; raises if that
            is not ours to do any more. What it raises comes out of the call as it is.
    """

    def __init__(
        self, api: Api, limits: Limits = LIMITS, may: Callable[[], None] = lambda: None
    ) -> None:
        self.api = api
        self.limits = limits
        self._may = may
        self.calls = 0
        self.by_action: Counter[str] = Counter()
        self._threads = Threads(limits.threads, "aws")
        self._made = threading.RLock()
        self._session: Any = None
        self._clients: dict[str, Any] = {}
        self._local = threading.local()
        self._closed = False

    async def ask(self, action: str, work: Callable[[Clients], T], *, effect: bool = False) -> T:
        """Do work with clients, in a thread; errors as the port to EC2 has them.

        Args:
            action: EC2's name of what is done, for messages.
            work: given a function that makes or finds the client of a service: ``ec2``,
                ``ec2 once`` (which sends nothing twice), ``sts``, ``service-quotas``.
            effect: whether it changes anything.
        """
        return await self._in_thread(lambda: self._done(action, work, effect))

    async def raw(self, work: Callable[[Clients], T]) -> T:
        """As ``ask``, with boto3's own errors."""
        return await self._in_thread(lambda: self._tried(work, _Call()))

    async def unknown_region(self, error: ProviderError) -> ProviderUnreachable | None:
        """What an error means, if it is that there is no such region."""
        return await self._in_thread(lambda: self._unknown_region(error))

    async def close(self) -> None:
        """End the threads; nothing is sent any more, and what is under way is left to itself."""
        self._closed = True
        self._threads.close()
        with self._made:
            clients, self._clients, self._session = list(self._clients.values()), {}, None
        for client in clients:
            with contextlib.suppress(Exception):
                client.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await self._threads.run(work)
        except RuntimeError as error:
            if not self._closed:
                raise
            ended = NotSent("this controller is closing")
            raise trouble(ended, Asked("a request", str(self.api))) from error

    # in a thread, from here on

    def _done(self, action: str, work: Callable[[Clients], T], effect: bool) -> T:
        call = _Call(effect)
        try:
            return self._tried(work, call)
        except Exception as error:
            if call.forbidden is not None:
                raise call.forbidden from None
            asked = Asked(action, str(self.api), effect=effect, sent=call.sent)
            known = trouble(error, asked)
            raise self._unknown_region(known) or known from error

    def _unknown_region(self, error: ProviderError) -> ProviderUnreachable | None:
        """What it means that nothing answers where botocore knows no region either."""
        if type(error) is not ProviderUnreachable or error.reason != UNREACHABLE:
            return None
        session = self._boto()
        if self.api.endpoint or any(
            self.api.region in session.get_available_regions("ec2", partition)
            for partition in session.get_available_partitions()
        ):
            return None
        return ProviderUnreachable(
            "RegionNotFound",
            f"{FIELD}.region: {self.api.region} is no region that is known, and nothing answers "
            f"there ({error}): give one of `aws ec2 describe-regions`",
        )

    def _tried(self, work: Callable[[Clients], T], call: _Call) -> T:
        call.until = time.monotonic() + self.limits.total
        self._local.call = call
        try:
            return work(self._client)
        except Exception as error:
            if not is_credentials(error) or not self._renewed():
                raise
            call.sent = 0
            return work(self._client)
        finally:
            self._local.call = None

    def _client(self, name: str) -> Any:
        with self._made:
            client = self._clients.get(name)
            if client is None:
                client = self._clients[name] = self._new_client(name)
            return client

    def _new_client(self, name: str) -> Any:
        from botocore.config import Config

        service, _, once = name.partition(" ")
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 1 if once else self.limits.attempts},
            connect_timeout=self.limits.connect,
            read_timeout=self.limits.read_once if once else self.limits.read,
            max_pool_connections=self.limits.threads,
            user_agent_extra="codeswarm",
        )
        client = self._boto().client(
            service, region_name=self.api.region, endpoint_url=self.api.endpoint, config=config
        )
        client.meta.events.register("before-send.*", self._sending)
        return client

    def _boto(self) -> Any:
        if self._session is None:
            import boto3
            import botocore.session

            core = botocore.session.Session()
            core.register_component("data_loader", _models())
            self._session = boto3.session.Session(botocore_session=core)
        return self._session

    def _sending(self, event_name: str, **_: Any) -> None:
        """A request is about to be sent: count it, or hold it back."""
        call: _Call | None = getattr(self._local, "call", None)
        if self._closed:
            raise NotSent("this controller is closing")
        if call is not None and time.monotonic() > call.until:
            raise NotSent(f"there was no answer within {self.limits.total:g} s")
        if call is not None and call.effect:
            try:
                self._may()
            except Exception as error:
                call.forbidden = error
                raise
        with self._made:
            self.calls += 1
            self.by_action[event_name.rpartition(".")[2]] += 1
        if call is not None:
            call.sent += 1

    def _renewed(self) -> bool:
        """Make the session anew; whether it found other credentials than the last one."""
        with self._made:
            before = _key_of(self._session)
            self._session, self._clients = None, {}
            after = _key_of(self._boto())
            return after is not None and after != before


@functools.cache
def _models() -> Any:
    """What reads the services' models, which are large; one for all sessions."""
    from botocore.loaders import create_loader

    return create_loader()


def _key_of(session: Any) -> tuple[str, str, str] | None:
    """What credentials a session has, to compare them."""
    with _silent():
        found = session.get_credentials() if session is not None else None
        frozen = found.get_frozen_credentials() if found is not None else None
        if frozen is not None:
            return (frozen.access_key or "", frozen.secret_key or "", frozen.token or "")
    return None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    try:
        yield
    except Exception:
        return
