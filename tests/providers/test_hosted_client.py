"""What a controller makes of a worker host that lies, since agents live beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable, SwarmHandle
from providers.hosted import HostedProvider
from tests.providers.harness import Session, run, until
from worker.wire import Frame, encode, frame, frames

SWARM = SwarmHandle("default", "team", "0123456789abcdef", {"workspaceRoot": "/x", "secret": "s"})
Answer = Callable[[Frame], list[bytes]]


@asynccontextmanager
async def liar(answer: Answer) -> AsyncIterator[tuple[Session, list[Frame]]]:
    """A host that answers as a test wants, a controller of it, and what that one has said."""
    heard: list[Frame] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async for message in frames(reader):
                heard.append(message)
                for data in answer(message):
                    writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    with TemporaryDirectory(prefix="host-") as folder:
        path = Path(folder) / "s"
        server = await asyncio.start_unix_server(serve, path)
        provider = HostedProvider(path, 1, archives=Path("/archives"), seconds={"observe": 5.0})
        session = Session(provider)
        provider.start(session.sink)
        try:
            yield session, heard
        finally:
            await provider.close()
            server.close()


def welcoming(answer: Answer) -> Answer:
    """The same, once it has greeted back."""

    def answers(message: Frame) -> list[bytes]:
        return [encode(frame("welcome"))] if message.type == "hello" else answer(message)

    return answers


def lying(answer: Answer, scenario: Callable[[Session, list[Frame]], Coroutine[Any, Any, None]]):  # type: ignore[no-untyped-def]
    """Run a scenario against such a host."""

    async def whole() -> None:
        async with liar(answer) as (session, heard):
            await scenario(session, heard)

    run(whole)


@pytest.mark.parametrize(
    "body", [b"nonsense", b'{"a": 1}', b"1", b'[["a", "Flying", "", null, ""]]', b"[[[]]]"]
)
def test_an_answer_that_cannot_be_is_no_answer(body: bytes) -> None:
    def answer(message: Frame) -> list[bytes]:
        return [encode(frame("done", body, id=message.number("id")))]

    async def scenario(one: Session, _: list[Frame]) -> None:
        with pytest.raises(ProviderUnreachable):
            await one.provider.observe(SWARM)
        with pytest.raises(ProviderError):
            await one.provider.archive(SWARM, Path("/archives"))

    lying(welcoming(answer), scenario)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 100,
        encode(frame("done", b"[]", id="1")),
        encode(frame("failed", id=1)),
        encode(Frame({"type": "failed", "id": 1, "class": "os", "reason": "A", "message": ""})),
        encode(frame("records", job=1, stream=1, end=1)),
        encode(frame("records", b"x", job="a", stream=1, end=-5)),
        encode(Frame({})),
    ],
)
def test_noise_ends_the_connection_and_the_next_one_is_made(data: bytes) -> None:
    calls: list[Frame] = []

    def answer(message: Frame) -> list[bytes]:
        calls.append(message)
        if len(calls) == 1:
            return [data]
        return [encode(frame("done", b"[]", id=message.number("id")))]

    async def scenario(one: Session, _: list[Frame]) -> None:
        with pytest.raises(ProviderUnreachable):
            await one.provider.observe(SWARM)
        assert await one.provider.observe(SWARM) == []

    lying(welcoming(answer), scenario)


@pytest.mark.parametrize(
    "greeting", [[b"rubbish!" * 10], [encode(frame("done", id=1))], [encode(frame("fenced"))]]
)
def test_a_host_that_does_not_greet_is_not_reached(
    greeting: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.link.PATIENCE_SECONDS", 0.2)

    async def scenario(one: Session, _: list[Frame]) -> None:
        with pytest.raises(ProviderUnreachable):
            await one.provider.launch([])
            await one.provider.observe(SWARM)

    lying(lambda message: greeting, scenario)


def test_records_that_nobody_asked_for_are_dropped() -> None:
    def answer(message: Frame) -> list[bytes]:
        if message.type != "follow":
            return [encode(frame("done", id=message.number("id")))] if "id" in message.head else []
        stream = message.number("stream")
        return [
            encode(frame("records", b"other", job="other", stream=stream, end=5)),
            encode(frame("records", b"stale", job="a", stream=stream + 7, end=5)),
            encode(frame("news", b"of a later version")),
            encode(frame("ended", job="other")),
            encode(frame("records", b"one\ntwo", job="a", stream=stream, end=8)),
        ]

    async def scenario(one: Session, heard: list[Frame]) -> None:
        one.provider.follow(SWARM, "a", 0, 0)
        await one.provider.flush("a")
        assert [batch.lines for batch in one.batches["a"]] == [[b"one", b"two"]]
        assert not one.batches["other"]

        async def answered() -> bool:
            said = {m.type: m.head.get("stream") for m in heard}
            return "taken" in said and said["taken"] == said["follow"]

        await until(answered, "the batch to be noted as taken")

    lying(welcoming(answer), scenario)


@pytest.mark.parametrize(
    ("body", "end"), [(b"one", 10**15), (b"x" * ((8 << 20) + 1), 9_000_000)], ids=["gap", "line"]
)
def test_records_that_cannot_be_are_not_taken(body: bytes, end: int) -> None:
    """An offset far ahead would make a transcript of as many bytes."""

    def answer(message: Frame) -> list[bytes]:
        if message.type == "follow":
            stream = message.number("stream")
            return [encode(frame("records", body, job="a", stream=stream, end=end))]
        return (
            [encode(frame("done", b"[]", id=message.number("id")))] if "id" in message.head else []
        )

    async def scenario(one: Session, heard: list[Frame]) -> None:
        one.provider.follow(SWARM, "a", 0, 0)
        assert await one.provider.observe(SWARM) == []
        assert not one.batches["a"]
        await one.provider.observe(SWARM)
        assert [m.type for m in heard].count("unfollow") == 1

    lying(welcoming(answer), scenario)


def test_no_more_is_told_than_a_host_needs() -> None:
    def answer(message: Frame) -> list[bytes]:
        return [encode(frame("done", b"[]", id=message.number("id")))]

    async def scenario(one: Session, heard: list[Frame]) -> None:
        await one.provider.observe(SWARM)
        told = json.loads(heard[-1].body)
        assert told["swarm"]["parameters"] == {"workspaceRoot": "/x"}

    lying(welcoming(answer), scenario)


def test_a_host_that_does_not_read_is_not_sent_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.link._MAX_WAITING", 1 << 20)

    async def scenario() -> None:
        with TemporaryDirectory(prefix="host-") as folder:
            path = Path(folder) / "s"
            stuck = asyncio.Event()

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(encode(frame("welcome")))
                reader._transport.pause_reading()  # type: ignore[attr-defined]
                await stuck.wait()
                writer.close()

            server = await asyncio.start_unix_server(serve, path)
            provider = HostedProvider(path, 1, archives=Path("/archives"), seconds={"deliver": 0.2})
            provider.start(lambda batch: None)
            try:
                record = {"type": "user", "content": "x" * (2 << 20)}
                with pytest.raises(OutcomeUnknown):
                    await provider.deliver(SWARM, "a", 0, record)
                with pytest.raises(ProviderUnreachable, match="does not read"):
                    await provider.deliver(SWARM, "a", 0, record)
            finally:
                stuck.set()
                await provider.close()
                server.close()

    run(scenario)


def test_closed_is_closed() -> None:
    async def scenario(one: Session, _: list[Frame]) -> None:
        waiting = asyncio.create_task(one.provider.observe(SWARM))
        await asyncio.sleep(0)
        await one.provider.close()
        with pytest.raises(ProviderUnreachable):
            await waiting
        with pytest.raises(ProviderUnreachable):
            await one.provider.observe(SWARM)

    lying(welcoming(lambda message: []), scenario)
