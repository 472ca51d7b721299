"""The feed: who wants what, and listeners that are too slow."""

from __future__ import annotations

import asyncio

from controller.http import feed as module
from controller.http.feed import Feed, Filter, Item, Taken
from tests.http.harness import run


def item(text=b"x", namespace="default", swarm="builders", task="t"):
    return Item(namespace, swarm, task, text)


def test_a_listener_gets_what_it_wants_and_nothing_else():
    async def scenario():
        feed = Feed()
        everything = feed.listen(Filter("default"))
        swarm = feed.listen(Filter("default", swarm="builders"))
        task = feed.listen(Filter("default", task="t"))
        for each in (
            item(b"1"),
            item(b"2", swarm="others"),
            item(b"3", task=""),
            item(b"4", namespace="elsewhere"),
        ):
            feed.publish(each)
        assert (await everything.take(1)).texts == (b"1", b"2", b"3")
        assert (await swarm.take(1)).texts == (b"1", b"3")
        assert (await task.take(1)).texts == (b"1", b"2")
        feed.leave(task)
        feed.publish(item())
        assert (await task.take(0.01)) == Taken()
        assert len(feed) == 2

    run(scenario())


def test_a_slow_listener_keeps_the_newest_and_is_told_what_it_missed(monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 3)

    async def scenario():
        feed = Feed()
        listener = feed.listen(Filter("default"))
        for number in range(5):
            feed.publish(item(b"%d" % number))
        taken = await listener.take(1)
        assert (taken.texts, taken.missed) == ((b"2", b"3", b"4"), 2)
        assert feed.missed == 2
        feed.publish(item(b"5"))
        assert await listener.take(1) == Taken((b"5",))

    run(scenario())


def test_what_waits_is_bounded_in_bytes_too(monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 100)

    async def scenario():
        feed = Feed()
        listener = feed.listen(Filter("default"))
        feed.publish(item(b"small"))
        feed.publish(item(b"x" * 101))
        feed.publish(item(b"after"))
        taken = await listener.take(1)
        assert (taken.texts, taken.missed) == ((b"after",), 2)

    run(scenario())


def test_a_closed_feed_ends_those_who_listen_and_those_who_come():
    async def scenario():
        feed = Feed()
        first = feed.listen(Filter("default"))
        waiting = asyncio.ensure_future(first.take(30))
        await asyncio.sleep(0)
        feed.publish(item(b"last"))
        feed.close()
        assert await waiting == Taken((b"last",), closed=True)
        assert (await feed.listen(Filter("default")).take(30)).closed

    run(scenario())


def test_so_many_may_listen(monkeypatch):
    monkeypatch.setattr(module, "MAX_STREAMS", 2)
    feed = Feed()
    listeners = [feed.listen(Filter("default")) for _ in range(2)]
    assert feed.full
    feed.leave(listeners[0])
    feed.leave(listeners[0])
    assert not feed.full
