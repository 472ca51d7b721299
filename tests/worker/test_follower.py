"""Following outboxes: lines, files that change under it, hints."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import RecordBatch
from tests.providers.harness import run, until
from tests.worker.collected import Collected, append
from worker.follower import CHUNK, Follower, LineBuffer

NEVER = 3600.0


def hint(path: Path, word: bytes) -> None:
    """Write to the hint FIFO as a worker does."""
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.write(descriptor, word)
    os.close(descriptor)


# --- cutting lines ---------------------------------------------------------------------------


@given(
    st.lists(st.binary(max_size=12), max_size=12),
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.integers(1, 10),
)
def test_lines_come_out_the_same_however_the_file_is_read(
    pieces: list[bytes], sizes: list[int], limit: int
) -> None:
    data = b"\n".join(pieces)
    buffer = LineBuffer(0, limit)
    found: list[bytes | int] = []
    turn = 0
    while buffer.position < len(data):
        size = sizes[turn % len(sizes)]
        turn += 1
        found += buffer.feed(data[buffer.position : buffer.position + size])
        # A restart from the offset finds the rest: it always stands at the start of a line.
        assert buffer.offset == 0 or data[buffer.offset - 1 : buffer.offset] == b"\n"
    whole = data.split(b"\n")[:-1]
    assert found == [line if len(line) <= limit else len(line) for line in whole if line]
    assert buffer.offset == (data.rfind(b"\n") + 1)
    assert len(buffer.tail) <= limit


@given(
    st.lists(st.binary(max_size=40), min_size=1, max_size=20),
    st.integers(0, 19),
)
def test_any_end_is_a_place_to_go_on_from(pieces: list[bytes], writes: int) -> None:
    data = b"".join(piece.replace(b"\n", b" ") + b"\n" for piece in pieces)
    cuts = [len(data) * step // (writes + 1) for step in range(writes + 2)]

    async def scenario() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "outbox"
            follower, got = Follower(Path(folder) / "wake", poll_seconds=NEVER), Collected()
            follower.start(got)
            follower.follow("job", path, 0)
            for begin, end in itertools.pairwise(cuts):
                append(path, data[begin:end])
                await follower.flush("job")
            everything = [line for line in data.split(b"\n") if line]
            assert got.lines() == everything
            for number, batch in enumerate(list(got.batches)):
                before = [line for one in got.batches[: number + 1] for line in one.lines]
                again = Collected()
                follower.start(again)
                follower.follow("job", path, batch.end)
                await follower.flush("job")
                assert before + again.lines() == everything
            follower.close()

    run(scenario)


# --- files -----------------------------------------------------------------------------------


def test_a_hint_is_enough(tmp_path: Path) -> None:
    async def scenario() -> None:
        path, fifo, got = tmp_path / "outbox", tmp_path / "wake", Collected()
        follower = Follower(fifo, poll_seconds=NEVER)
        follower.start(got)
        follower.follow("job", path, 0)
        await asyncio.sleep(0)
        append(path, b"one\n")
        hint(fifo, b"job\n")
        await got.has(b"one")
        append(path, b"two\n")
        hint(fifo, b"\xff\xfe\nother\n\n" + b"x" * 3000 + b"\nj")
        await asyncio.sleep(0.05)  # so that the name is read in two pieces
        hint(fifo, b"ob\n")
        await got.has(b"one", b"two")
        follower.close()

    run(scenario)


def test_no_hint_is_needed(tmp_path: Path) -> None:
    async def scenario() -> None:
        path, got = tmp_path / "outbox", Collected()
        follower = Follower(tmp_path / "wake", poll_seconds=0.02)
        follower.follow("job", path, 0)
        follower.start(got)
        await asyncio.sleep(0.05)
        append(path, b"one\n")
        await got.has(b"one")
        follower.close()

    run(scenario)


def test_a_torn_line_waits_for_its_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        path, got = tmp_path / "outbox", Collected()
        follower = Follower(tmp_path / "wake", poll_seconds=0.02)
        follower.start(got)
        follower.follow("job", path, 0)
        append(path, b'one\n{"half":')
        await got.has(b"one")
        assert got.batches[-1].end == 4
        append(path, b" 1}\n")
        await got.has(b"one", b'{"half": 1}')
        follower.close()

    run(scenario)


def test_a_line_beyond_the_limit_is_skipped_and_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        path, got = tmp_path / "outbox", Collected()
        follower = Follower(tmp_path / "wake", poll_seconds=NEVER, limit=3 * CHUNK)
        follower.start(got)
        follower.follow("job", path, 0)
        append(path, b"one\n" + b"x" * (5 * CHUNK))
        await follower.flush("job")
        assert got.batches[-1].end == 4
        append(path, b"x\ntwo\n")
        await follower.flush("job")
        first, error, second = got.lines()
        assert (first, second) == (b"one", b"two")
        record = json.loads(error)
        assert (record["event"], record["job_id"]) == ("agent_error", "job")
        assert str(5 * CHUNK + 1) in record["data"]["message"]
        assert got.batches[-1].end == path.stat().st_size
        follower.close()

    run(scenario)


@pytest.mark.parametrize("how", ["shrunk", "replaced", "gone"])
def test_another_file_under_the_name_is_read_from_its_beginning(tmp_path: Path, how: str) -> None:
    async def scenario() -> None:
        path, got = tmp_path / "outbox", Collected()
        follower = Follower(tmp_path / "wake", poll_seconds=0.02)
        follower.start(got)
        follower.follow("job", path, 0)
        append(path, b"first\nhal")
        await got.has(b"first")
        if how == "shrunk":
            path.write_bytes(b"new\n")
        elif how == "replaced":
            (tmp_path / "new").write_bytes(b"new\nand longer than before\n"[:4])
            (tmp_path / "new").replace(path)
        else:
            path.unlink()
            await asyncio.sleep(0.1)
            path.write_bytes(b"new\n")
        await got.has(b"first", b"new")
        follower.close()

    run(scenario)


@pytest.mark.parametrize("kind", ["symlink", "fifo", "folder"])
def test_what_is_no_plain_file_is_not_read(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        path, got = tmp_path / "outbox", Collected()
        (tmp_path / "secret").write_bytes(b"secret\n")
        if kind == "symlink":
            path.symlink_to(tmp_path / "secret")
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()
        follower = Follower(tmp_path / "wake", poll_seconds=NEVER)
        follower.start(got)
        follower.follow("job", path, 0)
        await asyncio.wait_for(follower.flush("job"), 10)
        assert got.batches == []
        follower.close()

    run(scenario)


def test_a_long_outbox_does_not_hold_up_a_short_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        line = b"x" * 1023 + b"\n"
        (tmp_path / "long").write_bytes(line * (20 * CHUNK // len(line)))
        (tmp_path / "short").write_bytes(b"short\n")
        follower, got = Follower(tmp_path / "wake", poll_seconds=NEVER), Collected()
        follower.follow("long", tmp_path / "long", 0)
        follower.follow("short", tmp_path / "short", 0)
        follower.start(got)

        async def all_read() -> bool:
            return got.batches[-1:] != [] and sum(b.job == "long" for b in got.batches) == 20

        await until(all_read, "the long outbox")
        assert [batch.job for batch in got.batches].index("short") == 1
        assert max(len(batch.lines) for batch in got.batches) <= CHUNK // len(line)
        follower.close()

    run(scenario)


def test_what_the_sink_did_not_take_comes_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        path, got = tmp_path / "outbox", Collected()
        reported: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context)
        )

        def fails_first(batch: RecordBatch) -> None:
            if not reported:
                raise RuntimeError("the store is full")
            got(batch)

        append(path, b"one\ntwo\nhal")
        follower = Follower(tmp_path / "wake", poll_seconds=0.02)
        follower.start(fails_first)
        follower.follow("job", path, 0)
        await got.has(b"one", b"two")
        append(path, b"f\n")
        await got.has(b"one", b"two", b"half")
        assert [str(context["exception"]) for context in reported] == ["the store is full"]
        follower.close()

    run(scenario)


def test_the_sink_may_unfollow_and_close(tmp_path: Path) -> None:
    async def scenario() -> None:
        line = b"x" * 1023 + b"\n"
        (tmp_path / "outbox").write_bytes(line * (3 * CHUNK // len(line)))
        follower, got = Follower(tmp_path / "wake", poll_seconds=NEVER), Collected()

        def leaves(batch: RecordBatch) -> None:
            got(batch)
            follower.unfollow("job")
            follower.close()

        follower.follow("job", tmp_path / "outbox", 0)
        follower.start(leaves)
        await until(lambda: _true(bool(got.batches)), "the first batch")
        await asyncio.sleep(0.05)
        assert len(got.batches) == 1

    run(scenario)


def test_an_idle_outbox_costs_one_look_a_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []
    opened: list[object] = []
    really_open = os.open

    def look(path: Path) -> os.stat_result:
        looks.append(path)
        return os.lstat(path)

    def counted_open(path: object, *args: object, **kwargs: object) -> int:
        opened.append(path)
        return really_open(path, *args, **kwargs)  # type: ignore[arg-type]

    async def scenario() -> None:
        follower, got = Follower(tmp_path / "wake", poll_seconds=0.02, stat_file=look), Collected()
        for number in range(100):
            (tmp_path / str(number)).write_bytes(b"one\n")
            follower.follow(str(number), tmp_path / str(number), 0)
        follower.start(got)
        await until(lambda: _true(len(got.batches) == 100), "all to be read")
        looks.clear()
        monkeypatch.setattr(os, "open", counted_open)
        await until(lambda: _true(len(looks) >= 300), "some polls")
        assert opened == []
        assert len(got.batches) == 100
        assert len(looks) % 100 == 0  # each file once in each poll
        follower.close()

    run(scenario)


def test_what_lies_in_the_fifos_place_is_replaced(tmp_path: Path) -> None:
    async def scenario() -> None:
        fifo, got = tmp_path / "wake", Collected()
        fifo.write_text("not a FIFO")
        follower = Follower(fifo, poll_seconds=NEVER)
        follower.start(got)
        assert fifo.is_fifo()
        follower.follow("job", tmp_path / "outbox", 0)
        append(tmp_path / "outbox", b"one\n")
        hint(fifo, b"job\n")
        await got.has(b"one")
        follower.close()
        follower.close()

    run(scenario)


async def _true(value: bool) -> bool:
    return value
