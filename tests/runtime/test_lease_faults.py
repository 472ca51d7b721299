"""The Lease when somebody deletes it, its namespace is missing, or the server is away at once."""

from __future__ import annotations

import asyncio

import pytest

from controller.runtime import lease as module
from controller.runtime.lease import Fenced
from controller.store.base import NotFound, StoreUnavailable
from tests.runtime.test_lease import OneLease, drive, lease, quick  # noqa: F401
from tests.store.helpers import until


def test_a_deleted_lease_is_not_taken_while_its_holder_may_not_know() -> None:
    async def test(server: OneLease) -> None:
        one, other = lease(server, "one"), lease(server, "other")
        await one.acquire()
        waiting = asyncio.ensure_future(other.acquire())
        holding = asyncio.ensure_future(one.hold())
        await until(lambda: other.waits_for == "one")
        server.stored = None
        with pytest.raises(Fenced, match="deleted"):
            await holding
        assert not other.held
        await waiting
        assert other.epoch > one.epoch and not one.held

    drive(test)


def test_a_namespace_that_is_missing_is_looked_for_now_and_then() -> None:
    async def test(server: OneLease) -> None:
        one, tried = lease(server, "one"), [0]
        ask = server.request

        async def missing(method: str, path: str, **named: object) -> object:
            if method == "POST":
                tried[0] += 1
                if tried[0] < 3:
                    raise NotFound('namespaces "here" not found')
            return await ask(method, path, **named)

        server.request = missing  # type: ignore[assignment, method-assign]
        began = asyncio.get_running_loop().time()
        await one.acquire()
        assert asyncio.get_running_loop().time() - began >= 2 * module.POLL_SECONDS

    drive(test)


def test_a_conflict_and_no_answer_after_it_do_not_end_the_controller() -> None:
    async def test(server: OneLease) -> None:
        one = lease(server, "one")
        await one.acquire()
        holding = asyncio.ensure_future(one.hold())
        server.lose_answers = 1
        ask, failed = server.request, [0]

        async def broken(method: str, path: str, **named: object) -> object:
            if method == "GET" and failed[0] < 2:
                failed[0] += 1
                raise StoreUnavailable("away")
            return await ask(method, path, **named)

        server.request = broken  # type: ignore[assignment, method-assign]
        await asyncio.sleep(2 * module.DURATION_SECONDS)
        assert failed[0] == 2
        assert not holding.done() and one.held
        holding.cancel()

    drive(test)


def test_a_server_that_does_not_answer_is_not_waited_for_beyond_the_lease() -> None:
    async def test(server: OneLease) -> None:
        one = lease(server, "one")
        await one.acquire()

        async def silent(*_: object, **__: object) -> object:
            await asyncio.Event().wait()
            raise AssertionError

        server.request = silent  # type: ignore[assignment, method-assign]
        began = asyncio.get_running_loop().time()
        with pytest.raises(Fenced, match="in time"):
            await one.hold()
        assert asyncio.get_running_loop().time() - began < module.DURATION_SECONDS

    drive(test)
