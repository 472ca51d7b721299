"""The work queue: each key once, never two passes of one key, delays and backoff."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from controller.reconcile.queue import LEISURELY, WorkQueue
from controller.store.base import Key
from tests.reconcile.loop import run

A, B, C = (Key("Task", "default", name) for name in "abc")


class Passes:
    """Runs a queue and notes every pass with its time."""

    def __init__(self, answer=lambda key: None, seconds=0.0, limit=8):
        self.queue = WorkQueue()
        self.begun = []
        self.running = set()
        self.most = 0
        self._answer, self._seconds, self._limit = answer, seconds, limit

    async def handler(self, key):
        assert key not in self.running
        self.running.add(key)
        self.most = max(self.most, len(self.running))
        self.begun.append((key, asyncio.get_running_loop().time()))
        try:
            await asyncio.sleep(self._seconds)
            return self._answer(key)
        finally:
            self.running.discard(key)

    @property
    def keys(self):
        return [key for key, _ in self.begun]

    def times(self, key):
        found = [at for k, at in self.begun if k == key]
        return [round(at - found[0], 3) for at in found]


def play(passes, script):
    async def main():
        task = asyncio.get_running_loop().create_task(
            passes.queue.run(passes.handler, passes._limit)
        )
        await script(passes.queue)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        passes.queue.close()

    run(main())
    return passes


def test_a_key_that_is_asked_for_often_is_passed_once():
    async def script(queue):
        for _ in range(50):
            queue.add(A)
        queue.add(B)
        await asyncio.sleep(1)

    assert play(Passes(), script).keys == [A, B]


def test_a_key_asked_for_during_its_pass_gets_one_more():
    async def script(queue):
        queue.add(A)
        await asyncio.sleep(0.5)
        for _ in range(5):
            queue.add(A)
        await asyncio.sleep(10)

    assert play(Passes(seconds=1), script).times(A) == [0, 1]


def test_the_earlier_wish_wins():
    async def script(queue):
        queue.add(A)
        await asyncio.sleep(0.1)
        queue.add(A, after=5)
        queue.add(A, after=2)
        queue.add(A, after=9)
        await asyncio.sleep(20)

    assert play(Passes(), script).times(A) == [0, 2.1]


def test_now_is_earlier_than_later():
    async def script(queue):
        queue.add(A, after=5)
        await asyncio.sleep(1)
        queue.add(A)
        await asyncio.sleep(20)

    assert play(Passes(), script).times(A) == [0]


def test_a_pass_says_when_it_wants_the_next():
    async def script(queue):
        queue.add(A)
        await asyncio.sleep(7)

    assert play(Passes(answer=lambda key: 2.0), script).times(A) == [0, 2, 4, 6]


def test_a_pass_that_wants_another_at_once_lets_others_have_theirs():
    async def script(queue):
        queue.add(A)
        queue.add(B)
        await asyncio.sleep(0.01)

    keys = play(Passes(answer=lambda key: 0.0 if key == A else None), script).keys
    assert keys[:2] == [A, B]
    assert len(keys) < 20


def test_failures_back_off_and_success_forgets_them():
    failing = [True]

    def answer(key):
        if failing[0]:
            raise RuntimeError("no")

    async def script(queue):
        queue.add(A)
        await asyncio.sleep(1.55)
        failing[0] = False
        await asyncio.sleep(60)
        failing[0] = True
        queue.add(A)
        await asyncio.sleep(0.15)

    times = play(Passes(answer=answer), script).times(A)
    assert [round(b - a, 2) for a, b in itertools.pairwise(times)][:4] == [
        0.1, 0.2, 0.4, 0.8]  # fmt: skip
    assert round(times[-1] - times[-2], 2) == 0.1


def test_a_key_that_always_fails_is_tried_once_a_minute():
    def answer(key):
        raise RuntimeError("no")

    async def script(queue):
        queue.add(A)
        await asyncio.sleep(3600)

    assert 60 <= len(play(Passes(answer=answer), script).keys) <= 75


def test_no_more_passes_than_allowed_at_a_time():
    async def script(queue):
        for number in range(30):
            queue.add(Key("Task", "default", f"t{number}"))
        await asyncio.sleep(100)

    passes = play(Passes(seconds=1, limit=4), script)
    assert passes.most == 4
    assert len(passes.keys) == 30


def test_passes_that_wait_do_not_keep_others_waiting():
    async def script(queue):
        for number in range(7):
            queue.add(Key("Project", "default", f"p{number}"))
        queue.add(A)
        await asyncio.sleep(1)

    assert A in play(Passes(seconds=500), script).keys


def test_keys_are_taken_in_the_order_of_asking():
    async def script(queue):
        for key in (C, A, B):
            queue.add(key)
        await asyncio.sleep(1)

    assert play(Passes(limit=1), script).keys == [C, A, B]


@pytest.mark.parametrize("seconds", [0, 1])
def test_what_is_cancelled_leaves_no_pass_behind(seconds):
    async def script(queue):
        queue.add(A)
        await asyncio.sleep(0.5)

    assert not play(Passes(seconds=seconds), script).running


def test_what_has_no_hurry_waits_for_what_has():
    async def script(queue):
        queue.add(A, leisurely=True)
        queue.add(B)
        queue.add(C)
        await asyncio.sleep(5)

    assert play(Passes(seconds=1, limit=1), script).keys == [B, C, A]


def test_few_passes_without_hurry_at_a_time_and_the_last_one_first():
    keys = [Key("Task", "default", f"t{number}") for number in range(6)]

    async def script(queue):
        for key in keys:
            queue.add(key, after=1, leisurely=True)
        await asyncio.sleep(20)

    passes = play(Passes(seconds=1), script)
    assert passes.most == LEISURELY
    assert passes.keys == keys[::-1]


def test_hurry_overtakes_leisure():
    keys = [Key("Task", "default", f"t{number}") for number in range(9)]

    async def script(queue):
        for key in keys:
            queue.add(key, leisurely=True)
        await asyncio.sleep(0.5)
        queue.add(keys[0])
        queue.add(keys[1], leisurely=True)
        await asyncio.sleep(20)

    passes = play(Passes(seconds=1), script)
    assert passes.keys[: LEISURELY + 1] == [*keys[::-1][:LEISURELY], keys[0]]
    assert sorted(passes.keys) == keys, "each once"


def test_a_time_is_kept_while_there_is_no_hurry():
    others = [Key("Task", "default", f"t{number}") for number in range(100)]

    async def script(queue):
        queue.add(A, leisurely=True)
        for key in others:
            queue.add(key, leisurely=True)
        await asyncio.sleep(0.5)
        queue.add(A, after=2)
        await asyncio.sleep(3)

    assert A in play(Passes(seconds=1), script).keys
