"""The watches' own part: lists that fail, kinds that nobody hears of, what is logged of kopf."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest

from controller.runtime import kube_watch as module
from controller.runtime.kopf_log import KopfLog, expected
from controller.runtime.kube_watch import Watches, WatchFailed
from controller.store.base import StoreUnavailable
from controller.store.kube import WATCHED
from controller.store.kube_rest import NotServed
from tests.store.helpers import until


class Store:
    """What ``Watches`` asks of a store."""

    def __init__(self) -> None:
        self.served: tuple[str, ...] = WATCHED
        self.there: tuple[str, ...] = WATCHED
        self.leaving = False
        self.fails = 0
        self.listed: list[str] = []

    async def sync(self, only: Sequence[str]) -> None:
        self.listed.extend(only)
        if self.fails:
            self.fails -= 1
            raise StoreUnavailable("away")
        if set(only) - set(self.there):
            raise NotServed("404")

    async def survey(self) -> tuple[str, ...]:
        return self.there

    def serve(self, served: tuple[str, ...]) -> None:
        self.served = served

    def leaves(self, served: Sequence[str]) -> bool:
        return self.leaving and bool(served)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGAIN", "DEAF", "RELISTED"):
        monkeypatch.setattr(module, f"{name}_SECONDS", 0.02)
    monkeypatch.setattr(module, "LEFT_SECONDS", 0.2)


def drive(test: Callable[[Store, Watches], Awaitable[None]]) -> None:
    async def run() -> None:
        store = Store()
        await test(store, Watches(cast(Any, None), cast(Any, store), None))

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_list_of_nothing_is_looked_after_too() -> None:
    """kopf tells of objects that it lists, so not of a list without any."""

    async def test(store: Store, watches: Watches) -> None:
        watches._answered("/apis/codeswarm.dev/v1alpha1/namespaces/a/tasks", watch=True)
        watches._answered("/apis/codeswarm.dev/v1alpha1", watch=False)
        await asyncio.sleep(0.1)
        assert store.listed == []
        watches._answered("/apis/codeswarm.dev/v1alpha1/namespaces/a/tasks", watch=False)
        await until(lambda: store.listed == ["Task"])

    drive(test)


def test_a_list_that_failed_is_read_again() -> None:
    async def test(store: Store, watches: Watches) -> None:
        store.fails = 2
        watches._list_soon("Task")
        await until(lambda: store.listed == ["Task"] * 3)
        await asyncio.sleep(0.1)
        assert store.listed == ["Task"] * 3

    drive(test)


def test_a_kind_that_kopf_leaves_out_is_found_out() -> None:
    async def test(store: Store, watches: Watches) -> None:
        listening = asyncio.ensure_future(watches._all_listed())
        await asyncio.sleep(0)
        for plural in ("tasks", "projects", "swarms", "swarmclasses"):
            watches._answered(f"/apis/codeswarm.dev/v1alpha1/{plural}", watch=False)
        with pytest.raises(WatchFailed, match="Approval"):
            await listening

    drive(test)


def test_a_kind_that_is_away_ends_the_watches_unless_something_waits_for_them() -> None:
    async def test(store: Store, watches: Watches) -> None:
        with pytest.raises(WatchFailed, match="for a moment"):
            await watches._go_on_without()
        store.there = ("Swarm", "Task")
        with pytest.raises(WatchFailed, match="does not serve swarmclasses, projects, approvals"):
            await watches._go_on_without()
        going = asyncio.ensure_future(watches._go_on_without())
        await asyncio.sleep(0.1)
        store.leaving = True  # a server marks what it deletes one kind after the other
        await going
        assert store.served == ("Swarm", "Task")
        store.there = ()
        with pytest.raises(WatchFailed):
            await watches._go_on_without()

    drive(test)


def test_a_kind_that_comes_back_ends_them_too() -> None:
    async def test(store: Store, watches: Watches) -> None:
        store.served = store.there = ("Swarm", "Task")
        waiting = asyncio.ensure_future(watches._all_served())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        store.there = WATCHED
        with pytest.raises(WatchFailed, match="again"):
            await waiting

    drive(test)


def test_requests_are_made_again_without_end() -> None:
    pauses = iter(module._Patience())
    first = [next(pauses) for _ in range(200)]
    assert first == sorted(first)
    assert sum(first[:5]) < 15 and first[-1] == module.LAST_BACKOFF


class Kopfs(Exception):
    """An error of kopf's."""


Kopfs.__module__ = "kopf._cogs.clients.errors"


def test_what_is_logged_of_kopf(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    logger = logging.Logger("kopf")
    logger.addHandler(KopfLog(lambda: now[0]))

    def fail(error: Exception) -> None:
        try:
            raise error
        except Exception:
            logger.exception("Watcher has failed")

    with caplog.at_level(logging.WARNING):
        fail(Kopfs("503"))
        fail(OSError("no route"))
        assert not caplog.records, "told by what ends the watches"
        for seconds in (0.0, 1.0, 70.0):
            now[0] = seconds
            logger.error("Request attempt #1 failed; will retry: GET http://x -> OSError()")
        assert len(caplog.records) == 2
        fail(ValueError("a fault of a program"))
        assert caplog.records[-1].exc_info
        logger.warning("Something else")
        assert caplog.records[-1].getMessage() == "Something else"
    assert not expected(None) and not expected(ValueError())
