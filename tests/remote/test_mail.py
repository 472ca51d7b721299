"""Records over an attendant: none is lost and none comes twice, whatever is cut or killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from pathlib import Path

import pytest

from providers.base import NotTaken, OutcomeUnknown, ProviderError, ProviderUnreachable, RecordBatch
from tests.providers.harness import until
from tests.remote.harness import (
    FILES,
    JOB,
    SWARM,
    Controller,
    append,
    attendant,
    folder,
    gone,
    on_lab,
    outbox,
    raises_soon,
)


async def begun(one: Controller, job: str = JOB) -> None:
    """A job's folder, followed from the beginning of its outbox."""
    await one.host.make_job(SWARM, job, FILES)
    one.host.follow(SWARM, job, 0, 0)


def test_records_arrive_as_they_are_written(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        await begun(one)
        append(outbox(tmp_path), b'{"seq": 1}')
        await one.hears([b'{"seq": 1}'])
        with outbox(tmp_path).open("ab") as file:
            file.write(b'{"seq": 2}\n{"se')
        await one.hears([b'{"seq": 1}', b'{"seq": 2}'])
        append(outbox(tmp_path), b'q": 3}')
        await one.host.flush(JOB)
        assert one.heard.lines[JOB][2:] == [b'{"seq": 3}']
        assert one.heard.ends[JOB] == outbox(tmp_path).stat().st_size

    on_lab(tmp_path, scenario)


def test_fifty_outboxes_are_followed_through_cuts_and_kills(tmp_path: Path) -> None:
    jobs = [f"team-{n}-1" for n in range(50)]
    count = 120

    async def scenario(one: Controller) -> None:
        await asyncio.gather(*(begun(one, job) for job in jobs))

        async def write() -> None:
            for number in range(count):
                for job in jobs:
                    append(outbox(tmp_path, job), b"%d " % number + b"x" * random.randrange(2000))
                await asyncio.sleep(0.01)

        writing = asyncio.create_task(write())
        for turn in range(6):
            await asyncio.sleep(0.2)
            if turn % 2:
                one.shell.cut()
            elif one.host.connected:
                os.kill(await attendant(one), signal.SIGKILL)
        await writing
        for job in jobs:
            await one.hears(outbox(tmp_path, job).read_bytes().splitlines(), job)

    on_lab(tmp_path, scenario)


def test_a_sink_that_cannot_keep_records_gets_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.followings.AGAIN_SECONDS", 0.05)

    async def scenario(one: Controller) -> None:
        refusals = 3

        def sink(batch: RecordBatch) -> None:
            nonlocal refusals
            if refusals:
                refusals -= 1
                raise NotTaken
            one.heard(batch)

        one.host._followings.sink = sink
        await begun(one)
        append(outbox(tmp_path), b"1", b"2")
        await one.hears([b"1", b"2"])

    on_lab(tmp_path, scenario)


def test_a_host_that_stands_still_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.remote.PING_SECONDS", 0.1)
    monkeypatch.setattr("providers.remote.SILENCE_SECONDS", 0.5)

    async def scenario(one: Controller) -> None:
        await begun(one)
        pid = await attendant(one)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(OutcomeUnknown, match="lost before it answered"):
                await one.host.deliver(SWARM, JOB, 0, {"type": "control"})
            append(outbox(tmp_path), b"1")
            await one.hears([b"1"])
        finally:
            os.kill(pid, signal.SIGKILL)

    on_lab(tmp_path, scenario)


def test_an_attendant_ends_when_nobody_is_there_any_more(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        pid = await attendant(one)
        one.shell.cut()
        await gone(pid)
        assert await attendant(one) != pid

    on_lab(tmp_path, scenario)


def test_a_host_that_nobody_needs_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.remote.PING_SECONDS", 0.05)
    monkeypatch.setattr("providers.remote.IDLE_SECONDS", 0.4)

    async def scenario(one: Controller) -> None:
        await begun(one)
        pid = await attendant(one)
        await asyncio.sleep(1.0)
        assert await attendant(one) == pid, "what is followed needs it"
        one.host.unfollow(JOB)
        await gone(pid)
        assert not one.host.connected and len(one.shell.channels) == 1
        await asyncio.sleep(0.3)
        assert len(one.shell.channels) == 1, "it is not connected to again"
        assert await attendant(one) != pid
        await asyncio.gather(*(one.host.jobs(SWARM) for _ in range(5)))
        one.shell.away = True
        one.shell.cut()
        await raises_soon(lambda: one.host.jobs(SWARM), ProviderUnreachable)
        one.shell.away = False
        await one.host.prepare()
        assert len(one.shell.channels) == 1

    on_lab(tmp_path, scenario)


def test_two_controllers_at_once_hear_the_same(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        async with Controller(one.shell, str(tmp_path / "work")) as other:
            await begun(one)
            await begun(other)
            append(outbox(tmp_path), b"1", b"2")
            await one.hears([b"1", b"2"])
            await other.hears([b"1", b"2"])
            assert await attendant(one) != await attendant(other)

    on_lab(tmp_path, scenario)


def test_what_is_not_followed_any_more_is_not_sent(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        await begun(one)
        await begun(one, "team-1-1")
        one.host.unfollow(JOB)
        append(outbox(tmp_path), b"1")
        append(outbox(tmp_path, "team-1-1"), b"1")
        await one.hears([b"1"], "team-1-1")
        await one.host.flush(JOB)
        assert not one.heard.lines[JOB]

    on_lab(tmp_path, scenario)


def test_an_outbox_of_an_evil_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    append(tmp_path / "work" / "secret", b"hidden")

    async def scenario(one: Controller) -> None:
        one.host._followings.follow("../x", {"swarm": ["..", "x"], "index": 0}, 0)
        one.host._followings.follow("a", {"swarm": ["a/b", "x"], "index": 0}, 0)
        one.host._followings.follow("b", {"swarm": ["a"], "index": -1}, 0)
        await begun(one)
        append(outbox(tmp_path), b"1")
        await one.hears([b"1"])
        assert set(one.heard.lines) == {JOB}

    on_lab(tmp_path, scenario)


# --- inboxes ---------------------------------------------------------------------------------


def test_a_delivery_can_be_repeated(tmp_path: Path) -> None:
    record = {"type": "user", "injection_id": "u.1", "content": "née\n"}

    async def scenario(one: Controller) -> None:
        await begun(one)
        for _ in range(2):
            await one.host.deliver(SWARM, JOB, 0, record, secrets={"token": "hidden"})
        lines = (folder(tmp_path) / "mailbox" / "inbox" / f"{JOB}_00.jsonl").read_text()
        assert [json.loads(line) for line in lines.splitlines()] == [
            {**record, "secrets": "u.1.json"}
        ] * 2
        secret = folder(tmp_path) / "secrets" / "u.1.json"
        assert json.loads(secret.read_text()) == {"token": "hidden"}
        assert secret.stat().st_mode & 0o777 == 0o600
        assert "hidden" not in lines

    on_lab(tmp_path, scenario)


def test_a_record_for_a_worker_that_is_gone(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        with pytest.raises(ProviderError) as refused:
            await one.host.deliver(SWARM, JOB, 0, {"type": "control"})
        assert refused.value.reason == "WorkerGone"

    on_lab(tmp_path, scenario)


def test_a_cut_in_the_middle_of_a_call_leaves_it_in_doubt(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        await one.host.known()
        marker = tmp_path / "begun"
        command = ["sh", "-c", f"touch {marker}; sleep 1; touch {tmp_path}/done"]
        running = asyncio.create_task(one.host.run(command, effect=True, detached=True))

        async def is_begun() -> bool:
            return marker.exists()

        await until(is_begun, "the command")
        one.shell.cut()
        with pytest.raises(OutcomeUnknown) as doubt:
            await running
        assert doubt.value.reason == "ConnectionLost"

        async def is_done() -> bool:
            return (tmp_path / "done").exists()

        await until(is_done, "the end of what was begun")

    on_lab(tmp_path, scenario)
