"""Who may speak to a worker host, what it does with noise, and which controller it obeys."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.base import JobState, ProviderError, ProviderUnreachable
from providers.host_epoch import EpochFile
from providers.host_socket import listening
from providers.hosted import HostedProvider
from tests.providers.harness import Session, new_swarm, request, run, session, until
from tests.providers.hosting import HostedHarness, hosted
from worker.wire import MAX_BODY, Frame, encode, frame, read
from worker.wire_values import error_of

ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[HostedHarness]:
    """A host that runs the stand-in."""
    with hosted(tmp_path) as harness:
        yield harness


class Raw:
    """A connection that says what it likes."""

    def __init__(self, harness: HostedHarness) -> None:
        self._path = harness.socket
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Raw:
        self.reader, self.writer = await asyncio.open_unix_connection(str(self._path))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def say(self, *data: bytes) -> None:
        """Send bytes."""
        self.writer.write(b"".join(data))
        await self.writer.drain()

    async def hear(self) -> Frame | None:
        """The next frame, or None where the host has ended the connection."""
        async with asyncio.timeout(20):
            try:
                return await read(self.reader)
            except OSError:
                return None

    async def greet(self, epoch: int) -> Frame | None:
        """Begin as a controller does."""
        await self.say(encode(frame("hello", protocol=1, epoch=epoch)))
        return await self.hear()


NOISE = {
    "text": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "bytes": bytes(range(255, -1, -1)) * 64,
    "huge": struct.pack(">II", 0xFFFFFFFF, 0xFFFFFFFF) + b"{" * 100_000,
    "deep": struct.pack(">II", 60_000, 0) + b"[" * 60_000,
    "no greeting": encode(frame("call", b"{}", id=1, verb="observe")),
    "greeting without epoch": encode(frame("hello", protocol=1)),
    "greeting of a boundless epoch": encode(frame("hello", protocol=1, epoch=10**30)),
}


@pytest.mark.parametrize("noise", NOISE.values(), ids=list(NOISE))
def test_noise_ends_its_own_connection_and_nothing_else(
    harness: HostedHarness, noise: bytes
) -> None:
    async def scenario() -> None:
        swarm = new_swarm(harness)
        async with session(harness) as one:
            assert await one.provider.observe(swarm) == []
            async with Raw(harness) as other:
                await other.say(noise)
                assert await other.hear() is None
            assert await one.provider.observe(swarm) == []
        assert "Traceback" not in harness.log.read_text()

    run(scenario)


@pytest.mark.parametrize("noise", ["half", "huge", "verb", "arguments", "types"])
def test_a_controller_that_speaks_nonsense_harms_only_itself(
    harness: HostedHarness, noise: str
) -> None:
    huge = struct.pack(">II", 2, MAX_BODY + 1) + b"{}"
    data = {
        "half": encode(frame("call", b"{}", id=1, verb="observe"))[:-1],
        "huge": huge,
        "verb": encode(frame("call", b"{}", id=1, verb="__class__")),
        "arguments": encode(frame("call", b'{"swarm": [1]}', id=1, verb="observe")),
        "types": encode(frame("follow", b"[]", job="../x", stream=1)) + huge,
    }[noise]

    async def scenario() -> None:
        async with Raw(harness) as bad:
            welcome = await bad.greet(next(harness.epochs))
            assert welcome is not None
            assert welcome.type == "welcome"
            await bad.say(data)
            if noise in ("verb", "arguments"):
                answer = await bad.hear()
                assert answer is not None
                assert error_of(answer).reason == "BadRequest"
            elif noise != "half":
                assert await bad.hear() is None
            async with session(harness) as good:
                assert await good.provider.observe(new_swarm(harness)) == []
        assert "Traceback" not in harness.log.read_text()

    run(scenario)


# --- users ---------------------------------------------------------------------------------------


def test_another_user_is_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        with hosted(tmp_path, uids=[os.getuid() + 1]) as harness:
            async with session(harness) as one:
                with pytest.raises(ProviderUnreachable, match=f"user {os.getuid()} may not use"):
                    await one.provider.observe(new_swarm(harness))

    run(scenario)


@ROOT_ONLY
@pytest.mark.parametrize(
    ("uid", "group", "answer"),
    [(10001, True, b"welcome"), (10002, True, b"turned-away"), (10001, False, b"no way in")],
)
def test_the_kernel_says_who_speaks(tmp_path: Path, uid: int, group: bool, answer: bytes) -> None:
    with hosted(tmp_path, uids=[10001], begun=False) as harness:
        os.chown(harness.folder, 0, 10000)
        harness.folder.chmod(0o2751)  # as the folder of a pod with fsGroup is
        harness.begin()
        mode = harness.socket.stat()
        assert (stat.S_IMODE(mode.st_mode), mode.st_gid) == (0o660, 10000)
        assert answer in as_user(uid, 10000 if group else uid, harness.socket)


def as_user(uid: int, gid: int, path: Path) -> bytes:
    """What a host answers to a greeting from another user's process."""
    ours, theirs = os.pipe()
    child = os.fork()  # not exec: another user may not be able to read this interpreter
    if child == 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(20)
                connection.connect(str(path))
                connection.sendall(encode(frame("hello", protocol=1, epoch=1)))
                os.write(theirs, connection.recv(4096))
        except PermissionError:
            os.write(theirs, b"no way in")
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as said:
        answer = said.read()
    os.waitpid(child, 0)
    return answer


# --- the socket ----------------------------------------------------------------------------------


def test_what_a_dead_host_left_is_replaced(tmp_path: Path) -> None:
    with hosted(tmp_path, begun=False) as harness:
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(harness.socket))
        left.close()
        harness.begin()
        first = harness.socket.stat()
        assert stat.S_IMODE(first.st_mode) == 0o660
        harness.kill()
        harness.begin()
        assert harness.socket.stat().st_ino != first.st_ino


@pytest.mark.parametrize("taken", ["socket", "root"])
def test_one_socket_and_one_root_have_one_host(harness: HostedHarness, taken: str) -> None:
    other = HostedHarness(harness.root, harness.command, harness.folder, harness.archives)
    if taken == "socket":
        other.root = harness.root.with_name("other")
    else:
        other.folder = harness.root
    host = other.begin(ready=False)
    assert host.wait(20) == 5
    assert "stop it first" in other.log.read_text()

    async def scenario() -> None:
        async with session(harness) as one:
            assert await one.provider.observe(new_swarm(harness)) == []

    run(scenario)


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "host.sock"
    path.write_text("mine")
    with pytest.raises(ProviderError, match="is no socket"), listening(path):
        pass
    assert path.read_text() == "mine"
    with pytest.raises(ProviderError, match="at most"), listening(tmp_path / ("s" * 108)):
        pass
    with pytest.raises(ProviderError, match="cannot be made"), listening(tmp_path / "a" / "b"):
        pass


# --- epochs --------------------------------------------------------------------------------------


def test_a_newer_controller_takes_over_for_good(harness: HostedHarness) -> None:
    async def scenario() -> None:
        swarm, other = new_swarm(harness), new_swarm(harness)
        job, late = request(swarm).job, request(other).job
        async with session(harness) as old:
            await old.provider.launch([request(swarm)])
            old.provider.follow(swarm, job, 0, 0)
            await old.ready(job)
            async with session(harness) as new:
                new.provider.follow(swarm, job, 0, 0)
                await new.ready(job)
                await until(is_fenced(old), "the older one to notice")
                assert not await is_fenced(new)()
                for call in (
                    old.provider.launch([request(other)]),
                    old.provider.stop(swarm, [job], force=True),
                    old.provider.observe(swarm),
                    old.prompt(swarm, job, "u.1"),
                    old.provider.flush(job),
                ):
                    with pytest.raises(ProviderError) as refused:
                        await call
                    assert refused.value.reason == "Fenced"
                assert (await new.status(swarm, job)).state is JobState.RUNNING
                assert (await new.status(other, late)).state is JobState.ABSENT
                await new.prompt(swarm, job, "u.2")
                await new.said(job, "turn_complete", "u.2")
                assert old.events(job, "u.2") == []
                connections = harness.log.read_text().count("is connected")
                assert connections == 2, "a fenced controller comes again and again"

    run(scenario)


def is_fenced(one: Session):  # type: ignore[no-untyped-def]
    """A condition: it was told that a newer one has taken over."""

    async def fenced() -> bool:
        assert isinstance(one.provider, HostedProvider)
        return one.provider.fenced

    return fenced


def test_a_restarted_host_knows_the_newest_controller(harness: HostedHarness) -> None:
    async def scenario() -> None:
        late = harness.provider()
        async with session(harness) as new:
            assert await new.provider.observe(new_swarm(harness)) == []
        harness.kill()
        harness.begin()
        late.start(lambda batch: None)
        try:
            with pytest.raises(ProviderError) as refused:
                await late.observe(new_swarm(harness))
            assert refused.value.reason == "Fenced"
            assert "epoch 2 has taken over from epoch 1" in str(refused.value)
        finally:
            await late.close()

    run(scenario)


def test_the_same_controller_may_come_again(harness: HostedHarness) -> None:
    async def scenario() -> None:
        async with Raw(harness) as first, Raw(harness) as second:
            assert (await first.greet(7) or frame("")).type == "welcome"
            assert (await second.greet(7) or frame("")).type == "welcome"
            assert (await first.hear() or frame("")).type == "fenced"
            assert await first.hear() is None
            async with Raw(harness) as older:
                answer = await older.greet(6)
                assert answer is not None
                assert error_of(answer).reason == "Fenced"

    run(scenario)


def test_another_protocol_is_told_so(harness: HostedHarness) -> None:
    async def scenario() -> None:
        async with Raw(harness) as other:
            await other.say(encode(frame("hello", protocol=9, epoch=99)))
            answer = await other.hear()
            assert answer is not None
            assert error_of(answer).reason == "ProtocolMismatch"
        async with session(harness) as one:
            assert await one.provider.observe(new_swarm(harness)) == []

    run(scenario)


def test_epochs_on_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = EpochFile(tmp_path)
    one.acquire()
    assert one.highest == 0
    with pytest.raises(ProviderError, match="another worker host runs"):
        EpochFile(tmp_path).acquire()
    for epoch in (3, 3, 12):
        one.admit(epoch)
    with pytest.raises(ProviderError, match="epoch 12 has taken over from epoch 11"):
        one.admit(11)
    one.release()
    two = EpochFile(tmp_path)
    two.acquire()
    assert two.highest == 12
    two.release()
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"\xffrubbish")
    two.acquire()
    assert two.highest == 0
    assert "holds no number" in caplog.text
    two.release()
