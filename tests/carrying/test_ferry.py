"""Sending commits to the workers' side, over a way that fails in every way."""

from __future__ import annotations

import asyncio

import pytest

from controller.reconcile import carriages, ferry
from controller.reconcile.carriages import Carriages, NotYet
from controller.reconcile.ferry import Ferry
from controller.repository.problems import RepositoryProblem
from controller.repository.service import Repositories
from controller.store.base import Key
from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable
from tests.carrying.graphs import objects
from tests.carrying.trip import HANDLE, TASKS


async def becomes(condition):
    """Wait for a condition."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (a list fills)
            await asyncio.sleep(0.01)


def test_fifty_who_need_the_same_send_it_once(trip):
    async def all_of_them():
        paths = await asyncio.gather(*(trip.send(0, asker=task) for task in TASKS))
        assert set(paths) == {str(trip.there)}

    asyncio.run(all_of_them())
    assert trip.stores.calls == ["locate", "lacking", "tips", "put"]


def test_what_is_there_is_not_sent_again_by_the_next_controller(trip):
    async def twice():
        await trip.send(0, 1)
        trip.ferry = trip.another()
        trip.stores.calls.clear()
        await trip.send(1)
        assert trip.stores.calls == ["locate", "lacking"]
        sent = trip.stores.sent
        await trip.send(2)
        assert trip.stores.sent - sent < sent  # less what is there

    asyncio.run(twice())
    assert objects(trip.there, trip.commits[2])


def test_it_is_looked_at_again_when_a_worker_missed_something(trip):
    async def doubted():
        await trip.send(0)
        trip.stores.calls.clear()
        await trip.send(0)
        assert trip.stores.calls == []
        trip.ferry.doubt(trip.route.place, "p-uid.git")
        await trip.send(0)
        assert trip.stores.calls == ["locate", "lacking"]

    asyncio.run(doubted())


def test_a_store_that_was_removed_there_is_filled_again(trip, monkeypatch):
    monkeypatch.setattr(ferry, "PRESENT_SECONDS", 0.0)

    async def removed():
        await trip.send(0)
        await trip.stores.discard(HANDLE, "p-uid.git")
        await trip.send(0)

    asyncio.run(removed())
    assert objects(trip.there, trip.commits[0])


@pytest.mark.parametrize("error", [ProviderUnreachable, OutcomeUnknown])
def test_a_cut_is_asked_again_and_harms_nothing(trip, monkeypatch, error):
    monkeypatch.setattr(carriages, "FAILED_SECONDS", 0.05)
    put, cuts = trip.stores.put, []

    async def cut(*args):
        await put(*args)  # it took effect, and the answer was lost
        if not cuts:
            cuts.append(1)
            raise error("ConnectionLost", "cut")

    trip.stores.put = cut

    async def twice():
        with pytest.raises(error):
            await trip.send(0)
        with pytest.raises(error):
            await trip.send(0)  # at once: nothing is tried
        assert trip.stores.calls.count("put") == 1
        await asyncio.sleep(0.06)
        await trip.send(0)
        assert trip.stores.calls.count("put") == 1

    asyncio.run(twice())


def test_a_place_that_takes_nothing_in_fails_the_attempt_not_the_swarm(trip):
    async def refuse(*_):
        raise ProviderError("StoreNotWritable", "the disk is full")

    trip.stores.put = refuse

    async def once():
        with pytest.raises(RepositoryProblem) as caught:
            await trip.send(0)
        assert caught.value.reason == "StoreNotWritable"
        assert "ada@lab-login" in caught.value.message

    asyncio.run(once())


@pytest.mark.parametrize("call", ["locate", "lacking"])
def test_a_place_where_git_does_not_work_fails_the_attempt_too(trip, call):
    async def refuse(*_):
        raise ProviderError("GitNotFound", "git is not on the PATH of the login host")

    setattr(trip.stores, call, refuse)

    async def once():
        with pytest.raises(RepositoryProblem) as caught:
            await trip.send(0)
        assert caught.value.reason == "GitNotFound"

    asyncio.run(once())


def test_a_machine_without_room_is_said(trip):
    trip.ferry = Ferry(Repositories(), trip.user / "HEAD", trip.woken.append, lambda *_: None)

    async def once():
        with pytest.raises(RepositoryProblem, match="cannot be written"):
            await trip.send(0)

    asyncio.run(once())


def test_a_place_that_has_less_than_it_says_gets_all(trip):
    async def tips(*_):
        return frozenset(trip.commits[:2])

    trip.stores.tips = tips
    asyncio.run(trip.send(2))
    assert objects(trip.there, trip.commits[2])


def test_what_would_only_be_of_use_may_be_missing(trip):
    offered = {"f" * 40: "refs/codeswarm/gone/1", trip.commits[2]: "refs/heads/c2"}

    async def both():
        await trip.send(0, offered={"f" * 40: "refs/codeswarm/gone/1"})
        trip.ferry.doubt(trip.route.place, "p-uid.git")
        await trip.send(1, offered={trip.commits[2]: offered[trip.commits[2]]})

    asyncio.run(both())
    assert objects(trip.there, trip.commits[2])


def test_what_takes_long_is_told_of_and_holds_up_nobody(trip, monkeypatch):
    monkeypatch.setattr(carriages, "SLOW_SECONDS", 0.1)
    monkeypatch.setattr(carriages, "BRIEF_SECONDS", 0.01)
    put, go = trip.stores.put, asyncio.Event()

    async def slow(*args):
        await go.wait()
        await put(*args)

    trip.stores.put = slow

    async def asked():
        loop = asyncio.get_running_loop()
        with pytest.raises(NotYet) as first:
            await trip.ferry.send(trip.route, trip.load(0), TASKS[0])
        assert first.value.message == ""
        end = loop.time() + 0.15
        while loop.time() < end:
            began = loop.time()
            with pytest.raises(NotYet) as later:
                await trip.ferry.send(trip.route, trip.load(0), TASKS[1])
            assert loop.time() - began < 0.1
        assert later.value.message == "carrying the repository to ada@lab-login:/shared/codeswarm"
        go.set()
        await becomes(lambda: len(trip.woken) == 2)
        assert await trip.ferry.send(trip.route, trip.load(0), TASKS[0])

    asyncio.run(asked())
    assert set(trip.woken) == set(TASKS[:2])
    assert sorted(told.split(":")[0] for told in trip.told) == [
        "t0 RepositoryCarried",
        "t1 RepositoryCarried",
    ]


def test_discarding_ends_what_is_under_way(trip):
    began = asyncio.Event()

    async def hang(*_):
        began.set()
        await asyncio.sleep(3600)

    trip.stores.put = hang

    async def discarded():
        with pytest.raises(NotYet):
            await trip.ferry.send(trip.route, trip.load(0), TASKS[0])
        await began.wait()
        await trip.ferry.discard(trip.stores, HANDLE, "p-uid.git")
        assert not list(trip.ours.parent.glob(".carried-*"))
        await trip.ferry.close()

    asyncio.run(discarded())


def test_what_is_under_way_for_a_project_is_left_off_wherever_it_goes(trip):
    began = asyncio.Event()

    async def hang(*_):
        began.set()
        await asyncio.sleep(3600)

    trip.stores.put = hang

    async def left():
        with pytest.raises(NotYet):
            await trip.ferry.send(trip.route, trip.load(0), TASKS[0])
        await began.wait()
        await trip.ferry.leave_off("other.git")
        assert list(trip.ours.parent.glob(".carried-*"))
        await trip.ferry.leave_off("p-uid.git")
        assert not list(trip.ours.parent.glob(".carried-*"))
        await trip.ferry.close()

    asyncio.run(left())


def test_what_a_killed_controller_left_is_removed(trip):
    left = trip.ours.parent / ".carried-old"
    left.mkdir(parents=True)
    (left / "bundle").write_text("half")
    asyncio.run(trip.send(0))
    assert not list(trip.ours.parent.glob(".carried-*"))


def test_a_result_waits_for_those_who_asked_for_it(monkeypatch):
    monkeypatch.setattr(carriages, "BRIEF_SECONDS", 0.01)

    async def asked():
        woken: list[Key] = []
        runs: list[int] = []
        go = asyncio.Event()
        many = Carriages(woken.append, lambda *_: None)

        async def work() -> str:
            runs.append(1)
            await go.wait()
            return str(len(runs))

        for task in TASKS[:3]:
            with pytest.raises(NotYet):
                await many.result("name", "it", work, task)
        go.set()
        await becomes(lambda: len(woken) == 3)
        assert [await many.result("name", "it", work, task) for task in TASKS[:3]] == ["1"] * 3
        assert await many.result("name", "it", work, TASKS[0]) == "2"  # who asks anew

    asyncio.run(asked())
