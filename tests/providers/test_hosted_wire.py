"""Frames: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import JobState, JobStatus, OutcomeUnknown, ProviderError, ProviderUnreachable
from providers.host_values import HostArguments, status_value, statuses_of
from worker import wire
from worker.wire import (
    MAX_BODY,
    MAX_HEAD,
    Frame,
    FrameTooLarge,
    WireError,
    encode,
    frame,
    frames,
    read,
    read_blocking,
)
from worker.wire_values import error_frame, error_of


def reader_of(data: bytes, *, ended: bool = True) -> asyncio.StreamReader:
    """A stream that holds these bytes."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    if ended:
        reader.feed_eof()
    return reader


def read_all(data: bytes) -> list[Frame]:
    """Every frame of a stream."""

    async def scenario() -> list[Frame]:
        return [message async for message in frames(reader_of(data))]

    return asyncio.run(scenario())


def read_all_blocking(data: bytes) -> list[Frame]:
    """The same, as a process reads that does nothing else."""
    return list(iter(functools.partial(read_blocking, io.BytesIO(data)), None))


def raw(head: bytes, body: bytes = b"") -> bytes:
    """A frame as bytes, whatever it holds."""
    return struct.pack(">II", len(head), len(body)) + head + body


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_bodies_are_bytes_as_they_are(bodies: list[bytes]) -> None:
    data = b"".join(encode(frame("records", body, end=n)) for n, body in enumerate(bodies))
    for messages in (read_all(data), read_all_blocking(data)):
        assert [(m.body, m.number("end")) for m in messages] == [
            (body, n) for n, body in enumerate(bodies)
        ]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"\xff" * 64,
        b"\0" * 8,
        b"\0\0",
        raw(b"[]"),
        raw(b"nonsense"),
        raw(b'{"type": "\xff"}'),
        raw(b"[" * 60000),
        raw(b'{"type": "hello"}')[:-1],
        raw(b'{"type": "call"}', b"body")[:-1],
        struct.pack(">II", MAX_HEAD + 1, 0),
        struct.pack(">II", 2, MAX_BODY + 1) + b"{}",
    ],
)
def test_what_is_no_frame_is_not_read(data: bytes) -> None:
    for reads in (read_all, read_all_blocking):
        with pytest.raises(WireError):
            reads(data)


@pytest.mark.parametrize("size", [1, 7, 9, 12])
def test_half_a_frame_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(wire, "FRAME_SECONDS", 0.05)

    async def scenario() -> None:
        data = encode(frame("hello", protocol=1))
        with pytest.raises(WireError, match="half a frame"):
            await read(reader_of(data[:size], ended=False))

    asyncio.run(scenario())


def test_what_is_too_large_is_not_sent() -> None:
    with pytest.raises(FrameTooLarge):
        encode(frame("records", bytes(MAX_BODY + 1)))
    with pytest.raises(FrameTooLarge):
        encode(frame("records", job="j" * MAX_HEAD))
    assert len(encode(frame("records", bytes(MAX_BODY)))) > MAX_BODY


@pytest.mark.parametrize("value", [None, -1, 1.5, "1", True, [1]])
def test_a_number_is_a_number(value: object) -> None:
    with pytest.raises(WireError):
        Frame({"type": "taken", "stream": value}).number("stream")


@pytest.mark.parametrize("kind", [ProviderError, ProviderUnreachable, OutcomeUnknown])
def test_errors_arrive_as_what_they_are(kind: type[ProviderError]) -> None:
    sent = error_frame("failed", kind("LaunchFailed", "there is no \udcff"), id=3)
    (message,) = read_all(encode(sent))
    error = error_of(message)
    assert (type(error), error.reason, str(error)) == (kind, "LaunchFailed", "there is no ?")


@pytest.mark.parametrize(
    "head",
    [
        {"class": "SystemExit", "reason": "A", "message": ""},
        {"class": "ProviderError", "reason": "no reason", "message": ""},
        {"class": "ProviderError", "reason": "R" * 100, "message": ""},
        {"class": "ProviderError", "reason": "A"},
    ],
)
def test_an_error_that_no_condition_could_tell_is_none(head: dict[str, object]) -> None:
    with pytest.raises(WireError):
        error_of(Frame(head))


def test_observed_jobs_arrive() -> None:
    seen = [
        JobStatus("a-1", JobState.RUNNING, "", 12.5, "pid 1"),
        JobStatus("a-2", JobState.ENDED, "exit 1"),
    ]
    told = json.loads(json.dumps([status_value(status) for status in seen]))
    assert statuses_of(told) == seen
    agents = ["../a b", "Running", "", None, ""]
    assert statuses_of([*told, agents]) == seen


@pytest.mark.parametrize(
    "value", [None, 1, [1], [["a"]], [["a", "Flying", "", None, ""]],
              [["a", "Running", 1, None, ""]], [["a", "Running", "", "now", ""]]],
)  # fmt: skip
def test_jobs_that_cannot_be_are_not_believed(value: object) -> None:
    with pytest.raises(WireError):
        statuses_of(value)


@pytest.mark.parametrize(
    ("value", "take"),
    [
        ([], "of"),
        ({"job": 1}, "text"),
        ({"index": "1"}, "number"),
        ({"index": True}, "number"),
        ({"jobs": "a"}, "texts"),
        ({"jobs": [1]}, "texts"),
        ({"force": 1}, "flag"),
        ({"env": {"A": 1}}, "strings"),
        ({"swarm": {"namespace": "n"}}, "swarm"),
        ({}, "launch"),
    ],
)
def test_arguments_are_looked_at(value: object, take: str) -> None:
    names = {"text": "job", "number": "index", "texts": "jobs", "flag": "force", "strings": "env"}
    with pytest.raises(ProviderError) as refused:
        arguments = HostArguments.of(value)
        if take != "of":
            getattr(arguments, take)(*([names[take]] if take in names else []))
    assert refused.value.reason == "BadRequest"
