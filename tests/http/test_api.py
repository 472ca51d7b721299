"""``/api/v1`` over real HTTP: who may, byte ranges, and streams of live records."""

from __future__ import annotations

import asyncio
import json

import pytest

from controller.http import api as module
from controller.http import feed as feed_module
from controller.http.auth import AuthUnavailable, Forbidden, Identity, Unauthenticated
from controller.http.feed import Item
from controller.http.inputs import MAX_READ
from tests.http.harness import BEARER, TOKEN, handles, request, run, site, transcript, until

BASE = "/api/v1/namespaces/default"
ONE = f"{BASE}/transcripts/builders-1a2b3c4d/builders-1a2b3c4d-0-1"
TEXT = b'{"seq":1}\n{"seq":2}\n'


def asked(tmp_path, *requests, **given):
    """Answers to some requests, one after the other."""

    async def scenario():
        async with site(tmp_path, **given) as made:
            return [await made.ask(*each) for each in requests]

    return run(scenario())


# --- who may ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [f"{BASE}/transcripts", ONE, f"{BASE}/events"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"bearer  {TOKEN}x"},
        {"Authorization": "Bearer"},
        {"X-Codeswarm-Token": "wrong", **BEARER},
        {"X-Codeswarm-Token": "t\x80"},
        {"Cookie": f"token={TOKEN}"},
    ],
)
def test_without_the_token_there_is_nothing(tmp_path, path, headers):
    transcript(tmp_path, TEXT)
    answer, quiet = asked(tmp_path, (path, headers), (f"{path}?token={TOKEN}", headers))
    for refused in (answer, quiet):
        assert refused.status == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.json["reason"] == "Unauthenticated"
        assert b"seq" not in refused.body and TOKEN.encode() not in refused.body


@pytest.mark.parametrize(
    "headers", [BEARER, {"X-Codeswarm-Token": TOKEN}, {"authorization": f"bEARER {TOKEN}"}]
)
def test_the_token_comes_in_either_header(tmp_path, headers):
    transcript(tmp_path, TEXT)
    assert asked(tmp_path, (ONE, headers))[0].status == 200


class Ruled:
    """Answers as a test says."""

    def __init__(self) -> None:
        self.rule: Exception | None = None
        self.asked: list[tuple[str, str]] = []

    async def authorize(self, token, namespace):
        self.asked.append((token, namespace))
        if self.rule is not None:
            raise self.rule
        return Identity("somebody")


@pytest.mark.parametrize(
    ("rule", "status", "reason"),
    [
        (Unauthenticated("no"), 401, "Unauthenticated"),
        (Forbidden("not you"), 403, "Forbidden"),
        (AuthUnavailable("not now"), 503, "Unavailable"),
    ],
)
def test_what_the_authenticator_says_is_the_answer(tmp_path, rule, status, reason):
    ruled = Ruled()
    ruled.rule = rule
    answer = asked(tmp_path, (ONE, BEARER), authenticator=ruled)[0]
    assert (answer.status, answer.json["reason"]) == (status, reason)
    assert answer.json["message"] == str(rule)
    assert ruled.asked == [(TOKEN, "default")]


def test_who_may_not_read_does_not_learn_what_there_is(tmp_path):
    transcript(tmp_path, TEXT)
    missing = ONE.replace("-0-1", "-9-9")
    there, nothing = asked(tmp_path, (ONE, {}), (missing, {}))
    assert (there.status, there.body) == (nothing.status, nothing.body)


# --- transcripts -----------------------------------------------------------------------------


def test_transcripts_are_listed(tmp_path):
    transcript(tmp_path, TEXT)
    transcript(tmp_path, b"", job="builders-1a2b3c4d-1-2")
    transcript(tmp_path, namespace="other")
    every, some, none = asked(
        tmp_path,
        (f"{BASE}/transcripts", BEARER),
        (f"{BASE}/transcripts?swarm=builders&job=builders-1a2b3c4d-1-2&job=x-00000000-0-0", BEARER),
        (f"{BASE}/transcripts?swarm=none", BEARER),
    )
    first = {"swarm": "builders-1a2b3c4d", "job": "builders-1a2b3c4d-0-1", "size": len(TEXT)}
    second = {"swarm": "builders-1a2b3c4d", "job": "builders-1a2b3c4d-1-2", "size": 0}
    assert every.json == {"transcripts": [first, second]}
    assert some.json == {"transcripts": [second]}
    assert none.json == {"transcripts": []}


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", TEXT),
        ("?offset=10", TEXT[10:]),
        ("?offset=10&limit=3", TEXT[10:13]),
        ("?limit=1", TEXT[:1]),
        (f"?offset={len(TEXT)}", b""),
        ("?offset=999999", b""),
    ],
)
def test_a_part_is_given_byte_for_byte(tmp_path, query, body):
    transcript(tmp_path, TEXT)
    answer = asked(tmp_path, (ONE + query, BEARER))[0]
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["x-codeswarm-size"] == str(len(TEXT))
    assert answer.headers["content-type"] == "application/x-ndjson"


def test_a_large_part_comes_whole_and_a_larger_one_is_refused(tmp_path):
    text = bytes(range(256)) * 4 * 5000
    transcript(tmp_path, text)
    whole, more = asked(
        tmp_path,
        (f"{ONE}?offset=1&limit={MAX_READ}", BEARER),
        (f"{ONE}?limit={MAX_READ + 1}", BEARER),
    )
    assert whole.body == text[1 : MAX_READ + 1]
    assert (more.status, more.json["reason"]) == (400, "BadRequest")


def test_head_tells_the_size_and_sends_nothing(tmp_path):
    transcript(tmp_path, TEXT)

    async def scenario():
        async with site(tmp_path) as made:
            connection = await made.connect()
            await connection.send(request(ONE, BEARER, method="HEAD"))
            answer = await connection.answer("HEAD")
            assert answer.headers["x-codeswarm-size"] == str(len(TEXT))
            await connection.send(request(ONE, BEARER))  # the connection is still in step
            assert (await connection.answer()).body == TEXT
            await connection.send(request(f"{BASE}/events", BEARER, method="HEAD"))
            answer = await connection.answer("HEAD")
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert len(made.monitor.feed) == 0
            await connection.close()

    run(scenario())


@pytest.mark.parametrize(
    "path",
    [
        f"{BASE}/transcripts/..%2f..%2fetc/passwd",
        f"{BASE}/transcripts/builders-1a2b3c4d/..",
        f"{BASE}/transcripts/%2e%2e/builders-1a2b3c4d-0-1",
        "/api/v1/namespaces/%2e%2e/transcripts",
        f"{BASE}/transcripts/builders-1a2b3c4d/builders-1a2b3c4d-0-1.jsonl",
        f"{BASE}/transcripts/builders-1a2b3c4d/builders-1a2b3c4d-0-1%00",
        f"{BASE}/transcripts?swarm=..",
        f"{BASE}/transcripts?job=..%2F..%2Fx",
        f"{BASE}/transcripts?what=1",
        f"{BASE}/events?swarm=a&swarm=b",
        f"{BASE}/events?task=%0aX",
        f"{ONE}?offset=-1",
        f"{ONE}?limit=x",
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, path):
    transcript(tmp_path, TEXT)
    answer = asked(tmp_path, (path, BEARER))[0]
    assert answer.status in (400, 404)
    assert set(answer.json) == {"reason", "message"}


def test_a_transcript_that_is_not_there(tmp_path):
    answer = asked(tmp_path, (ONE, BEARER))[0]
    assert (answer.status, answer.json["reason"]) == (404, "NotFound")


def test_many_readers_leave_no_file_open(tmp_path):
    transcript(tmp_path, b"x" * 2**22)

    async def scenario():
        async with site(tmp_path) as made:
            await made.ask(ONE, BEARER)
            before = handles()
            gone = [await made.connect() for _ in range(20)]
            for connection in gone:
                await connection.send(request(f"{ONE}?limit={MAX_READ}", BEARER))
                await connection.head()
                await connection.close()
            await until(lambda: handles() <= before, "every file to be closed")

    run(scenario())


# --- live records ----------------------------------------------------------------------------


def item(text=b'{"n":1}', namespace="default", swarm="builders", task="demo.a"):
    return Item(namespace, swarm, task, text)


async def listening(made, query=""):
    """A connection that has begun to get events."""
    before = len(made.monitor.feed)
    connection = await made.connect()
    await connection.send(request(f"{BASE}/events{query}", BEARER))
    status, headers = await connection.head()
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    assert (await connection.chunk()).startswith(b": ")
    assert len(made.monitor.feed) == before + 1
    return connection


def test_records_reach_those_who_listen_as_they_come(tmp_path):
    async def scenario():
        async with site(tmp_path) as made:
            every = await listening(made)
            some = await listening(made, "?swarm=others&task=demo.b")
            made.monitor.feed.publish(item())
            assert await every.chunk() == b'event: record\ndata: {"n":1}\n\n'
            made.monitor.feed.publish(item(b"{}", swarm="others", task="demo.b"))
            assert await every.chunk() == b"event: record\ndata: {}\n\n"
            assert await some.chunk() == b"event: record\ndata: {}\n\n"
            await every.close()
            await until(lambda: len(made.monitor.feed) == 1, "the stream to be left")
            await some.close()

    run(scenario())


def test_silence_is_filled_with_heartbeats(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.02)

    async def scenario():
        async with site(tmp_path) as made:
            connection = await listening(made)
            assert await connection.chunk() == b": heartbeat\n\n"
            assert await connection.chunk() == b": heartbeat\n\n"
            await connection.close()

    run(scenario())


def test_a_slow_client_is_told_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(feed_module, "MAX_WAITING", 5)

    async def scenario():
        async with site(tmp_path) as made:
            connection = await listening(made)
            for number in range(8):
                made.monitor.feed.publish(item(b"%d" % number))
            data = await connection.chunk()
            assert json.loads(data.split(b"\n")[1].removeprefix(b"data: ")) == {"count": 3}
            assert data.startswith(b"event: missed\n")
            assert (await connection.chunk()).count(b"event: record") == 5
            made.monitor.feed.publish(item(b'"next"'))
            assert await connection.chunk() == b'event: record\ndata: "next"\n\n'
            await connection.close()

    run(scenario())


def test_a_client_that_reads_nothing_holds_up_nobody(tmp_path):
    async def scenario():
        async with site(tmp_path) as made:
            stuck, other = await listening(made), await listening(made)
            large = b'"' + b"x" * 100_000 + b'"'
            for _ in range(100):
                made.monitor.feed.publish(item(large))
                assert b"event: record" in await other.chunk()
            assert made.monitor.feed.missed > 0  # of the stuck one
            assert (await made.ask("/healthz")).status == 200
            await stuck.close()
            await other.close()

    run(scenario())


def test_so_many_streams_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(feed_module, "MAX_STREAMS", 2)

    async def scenario():
        async with site(tmp_path) as made:
            streams = [await listening(made), await listening(made)]
            refused = await made.ask(f"{BASE}/events", BEARER)
            assert (refused.status, refused.json["reason"]) == (503, "Busy")
            assert refused.headers["retry-after"] == "5"
            await streams[0].close()
            await until(lambda: len(made.monitor.feed) == 1, "a place to be free")
            streams.append(await listening(made))
            for stream in streams[1:]:
                await stream.close()

    run(scenario())


def test_the_right_is_asked_for_again_and_its_end_ends_the_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(module, "ASK_AGAIN_SECONDS", 0.1)
    ruled = Ruled()

    async def scenario():
        async with site(tmp_path, authenticator=ruled) as made:
            connection = await listening(made)
            ruled.rule = AuthUnavailable("the API server is away")
            count = len(ruled.asked)
            await until(lambda: len(ruled.asked) > count + 1, "it to be asked again")
            ruled.rule = Forbidden("not any more")
            while await connection.chunk():
                pass
            await until(lambda: len(made.monitor.feed) == 0, "the stream to be left")

    run(scenario())


def test_the_end_of_the_controller_ends_streams_at_once(tmp_path):
    async def scenario():
        loop = asyncio.get_running_loop()
        async with site(tmp_path) as made:
            connection = await listening(made)
            made.monitor.feed.publish(item(b'"last"'))
            begin = loop.time()
        assert loop.time() - begin < 1.5
        assert b'"last"' in await connection.rest()
        await connection.close()

    run(scenario())
