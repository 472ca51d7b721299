"""Shared calls: who gets whose result."""

import asyncio

import pytest

from controller.repository.flights import Flights


class Counter:
    """A call that can be held up, and tells how often it was made."""

    def __init__(self) -> None:
        self.made = 0
        self.go = asyncio.Event()

    async def __call__(self) -> int:
        self.made += 1
        mine = self.made
        await self.go.wait()
        return mine


def test_recent_joins_what_is_under_way_and_fresh_waits_for_the_next() -> None:
    async def run() -> None:
        flights: Flights[int] = Flights(max_age=60)
        call = Counter()
        early = [asyncio.create_task(flights.recent("k", call)) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        late = [asyncio.create_task(flights.fresh("k", call)) for _ in range(3)]
        await asyncio.sleep(0)
        assert call.made == 1
        call.go.set()
        assert await asyncio.gather(*early) == [1, 1, 1]
        assert await asyncio.gather(*late) == [2, 2, 2]
        assert await flights.recent("k", call) == 2
        assert await flights.recent("other", call) == 3

    asyncio.run(run())


def test_an_asker_that_gives_up_takes_nobody_with_it() -> None:
    async def run() -> None:
        flights: Flights[int] = Flights(max_age=60)
        call = Counter()
        first = asyncio.create_task(flights.recent("k", call))
        second = asyncio.create_task(flights.recent("k", call))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        call.go.set()
        assert await second == 1

    asyncio.run(run())


def test_failures_are_shared_and_a_forgotten_key_is_asked_again() -> None:
    async def run() -> None:
        flights: Flights[int] = Flights(max_age=60)
        calls = []

        async def fail() -> int:
            calls.append(1)
            raise OSError("no")

        results = await asyncio.gather(
            *(flights.recent("k", fail) for _ in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [OSError] * 3
        with pytest.raises(OSError, match="no"):
            await flights.recent("k", fail)
        assert len(calls) == 1
        flights.forget(lambda key: key == "k")
        with pytest.raises(OSError, match="no"):
            await flights.recent("k", fail)
        assert len(calls) == 2

    asyncio.run(run())


def test_what_was_under_way_when_forgotten_is_not_remembered() -> None:
    async def run() -> None:
        flights: Flights[int] = Flights(max_age=60)
        call = Counter()
        early = asyncio.create_task(flights.recent("k", call))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        flights.forget(lambda _: True)
        late = asyncio.create_task(flights.recent("k", call))
        call.go.set()
        assert (await early, await late) == (1, 2)
        assert await flights.recent("k", call) == 2

    asyncio.run(run())


def test_only_so_many_results_are_remembered() -> None:
    async def run() -> None:
        flights: Flights[int] = Flights(max_age=60, keys=2)
        call = Counter()
        call.go.set()
        assert [await flights.recent(key, call) for key in "abc"] == [1, 2, 3]
        assert await flights.recent("c", call) == 3
        assert await flights.recent("a", call) == 4

    asyncio.run(run())
