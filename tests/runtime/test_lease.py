"""The Lease: one holder at a time, an epoch that only rises, hands off in time."""

from __future__ import annotations

import asyncio
import copy
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from controller.runtime import lease as module
from controller.runtime.lease import EPOCH, Fenced, Identity, Lease
from controller.store.base import AlreadyExists, Conflict, Forbidden, NotFound, StoreUnavailable
from controller.store.kube_api import Api


class OneLease:
    """An API server that knows one Lease."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.away = False
        self.lose_answers = 0
        self.writes = 0
        self.namespace_uid = ""
        self._version = 0

    async def request(self, method: str, path: str, body: Any = None, **_: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("away")
        if path == "/api/v1/namespaces/here":
            if not self.namespace_uid:
                raise Forbidden("may not")
            return {"metadata": {"uid": self.namespace_uid}}
        if method == "GET":
            if self.stored is None:
                raise NotFound("no lease")
            return copy.deepcopy(self.stored)
        if method == "POST":
            if self.stored is not None:
                raise AlreadyExists("there is one")
            self.stored = copy.deepcopy(body)
            self.stored["metadata"]["uid"] = f"uid-{self._version}"
        else:
            if self.stored is None:
                raise NotFound("no lease")
            meta = dict(body["metadata"])
            if meta.pop("resourceVersion") != self.stored["metadata"]["resourceVersion"]:
                raise Conflict("changed")
            self.stored["metadata"].update(meta)
            self.stored["spec"].update(body["spec"])
        self._version += 1
        self.writes += 1
        self.stored["metadata"]["resourceVersion"] = str(self._version)
        if self.lose_answers:
            self.lose_answers -= 1
            raise StoreUnavailable("the answer was lost")
        return copy.deepcopy(self.stored)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All times a twentieth."""
    for name in ("DURATION", "RENEW", "MARGIN", "POLL", "RETRY"):
        known = getattr(module, f"{name}_SECONDS")
        monkeypatch.setattr(module, f"{name}_SECONDS", known / 20)


def drive(test: Callable[[OneLease], Awaitable[None]]) -> None:
    """Run a test; the server writes durations in whole seconds, which are none here."""
    asyncio.run(asyncio.wait_for(cast(Any, test(OneLease())), 30))


def lease(server: OneLease, who: str) -> Lease:
    return Lease(cast(Api, server), "here", Identity(who))


def test_its_uid_is_known_whoever_made_it() -> None:
    async def test(server: OneLease) -> None:
        one, two = lease(server, "one"), lease(server, "two")
        await one.acquire()
        await one.release()
        await two.acquire()
        assert one.uid == two.uid == "uid-0"
        assert await two.identities() == ("uid-0",)
        server.namespace_uid = "space"
        assert await two.identities() == ("space", "uid-0")

    drive(test)


def test_a_free_lease_is_taken_at_once() -> None:
    async def test(server: OneLease) -> None:
        one = lease(server, "one")
        before = int(time.time())
        assert await one.acquire() >= before, "an epoch that outlives a deleted Lease"
        one.check()
        await one.release()
        with pytest.raises(Fenced):
            one.check()
        other = lease(server, "other")
        assert await other.acquire() > one.epoch

    drive(test)


def test_the_second_waits_until_the_first_does_not_renew() -> None:
    async def test(server: OneLease) -> None:
        one, other = lease(server, "one"), lease(server, "other")
        await one.acquire()
        holding = asyncio.ensure_future(one.hold())
        waiting = asyncio.ensure_future(other.acquire())
        await asyncio.sleep(2 * module.DURATION_SECONDS)
        assert not waiting.done() and other.waits_for == "one" and not other.held
        holding.cancel()
        await waiting
        assert other.epoch > one.epoch
        assert not one.held, "the first stopped before the second began"
        assert other.held

    drive(test)


def test_who_comes_back_learns_that_it_lost() -> None:
    async def test(server: OneLease) -> None:
        one, other = lease(server, "one"), lease(server, "other")
        await one.acquire()
        await other.acquire()
        with pytest.raises(Fenced):
            await one.hold()
        assert other.held

    drive(test)


def test_a_lost_answer_is_no_lost_lease() -> None:
    async def test(server: OneLease) -> None:
        one = lease(server, "one")
        await one.acquire()
        holding = asyncio.ensure_future(one.hold())
        server.lose_answers = 1
        await asyncio.sleep(2 * module.DURATION_SECONDS)
        assert not holding.done() and one.held
        holding.cancel()

    drive(test)


def test_without_the_server_it_ends_before_anybody_else_may_begin() -> None:
    async def test(server: OneLease) -> None:
        one = lease(server, "one")
        await one.acquire()
        server.away = True
        began = time.monotonic()
        with pytest.raises(Fenced):
            await one.hold()
        assert time.monotonic() - began < module.DURATION_SECONDS

    drive(test)


def test_a_deleted_lease_is_lost_and_the_epoch_rises_all_the_same() -> None:
    async def test(server: OneLease) -> None:
        one = lease(server, "one")
        await one.acquire()
        server.stored = None
        with pytest.raises(Fenced, match="deleted"):
            await one.hold()
        await asyncio.sleep(1.0)
        assert await lease(server, "other").acquire() > one.epoch

    drive(test)


def test_two_that_ask_at_once_do_not_both_get_it() -> None:
    async def test(server: OneLease) -> None:
        many = [lease(server, f"n{number}") for number in range(5)]
        asking = [asyncio.ensure_future(one.acquire()) for one in many]
        await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert sum(one.held for one in many) == 1
        for task in asking:
            task.cancel()

    drive(test)


def test_a_stranger_s_epoch_is_read_with_care() -> None:
    async def test(server: OneLease) -> None:
        one = lease(server, "one")
        await one.acquire()
        await one.release()
        assert server.stored is not None
        server.stored["metadata"]["annotations"] = {EPOCH: "9" * 30}
        assert await lease(server, "other").acquire() < 10**14

    drive(test)


def test_a_process_that_is_gone_need_not_be_waited_for() -> None:
    mine = Identity.of_this_process()
    assert not mine.outlives(mine.text), "it runs"
    host, boot, pid, start = mine.text.rsplit("_", 3)
    assert pid == str(os.getpid())
    assert mine.outlives("_".join([host, boot, pid, f"{start}1"])), "another one had this pid"
    assert mine.outlives("_".join([host, boot, "4194303", start]))
    assert not mine.outlives("_".join([host, "another-boot", "4194303", start]))
    assert not mine.outlives("_".join(["elsewhere", boot, "4194303", start]))
    assert not mine.outlives("")
    assert not mine.outlives("some_x_y_z")


def test_a_pod_outlives_its_former_container_only() -> None:
    pod = Identity("codeswarm-7d", "codeswarm-7d")
    assert pod.outlives("codeswarm-7d")
    assert not pod.outlives("codeswarm-8e")
