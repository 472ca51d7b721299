"""Appending to mailbox files, the outbox, and the FIFO hints."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from worker.identity import FolderLock
from worker.locks import NO_LOCKS
from worker.mailbox import MAX_LINE_BYTES, append_line, open_wake, poke
from worker.outbox import Outbox


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines() if line.startswith(b"{")]


def test_an_appended_line_ends_in_a_newline_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "box"
    append_line(path, b'{"a":1}')
    append_line(path, b'{"b":2}', durable=True)
    assert path.read_bytes() == b'{"a":1}\n{"b":2}\n'
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", sorted(NO_LOCKS))
def test_lines_are_appended_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("worker.locks.fcntl.flock", flock)
    append_line(tmp_path / "box", b"{}")
    assert (tmp_path / "box").read_bytes() == b"{}\n"
    with FolderLock(tmp_path):
        pass


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "box"
    path.write_bytes(b'{"a":1}\n{"to')
    append_line(path, b'{"b":2}')
    assert path.read_bytes() == b'{"a":1}\n{"to\n{"b":2}\n'


@pytest.mark.parametrize("line", [b"a\nb", b"x" * (MAX_LINE_BYTES + 1)])
def test_what_no_reader_would_take_is_not_appended(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(ValueError, match="one line"):
        append_line(tmp_path / "box", line)
    assert not (tmp_path / "box").exists()


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("")
    (tmp_path / "box").symlink_to(tmp_path / "target")
    with pytest.raises(OSError):
        append_line(tmp_path / "box", b"{}")
    assert (tmp_path / "target").read_text() == ""


def test_outbox_records_have_the_envelope_and_rising_numbers(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "out", "job", "node")
    outbox.emit("turn_started", {"attempt": 1}, "u.1")
    outbox.emit("assistant", {"item": "i", "text": "gr\u00fc\u00dfe \ud800"}, "u.1")
    assert outbox.pending
    assert (tmp_path / "out").read_bytes() == b""
    outbox.close()
    first, second = records(tmp_path / "out")
    assert (first["seq"], second["seq"]) == (1, 2)
    assert first["job_id"] == "job" and first["node_id"] == "node"
    assert first["injection_id"] == "u.1" and first["event"] == "turn_started"
    assert second["data"] == {"item": "i", "text": "gr\u00fc\u00dfe \ud800"}


def test_a_second_process_goes_on_where_the_first_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "out"
    first = Outbox(path, "job", "node")
    first.emit("turn_started", {}, "u.1")
    first.emit("turn_started", {}, "u.2")
    first.emit("turn_complete", {"status": "completed"}, "u.1")
    told = {"class": "mailbox", "message": "?", "will_retry": False, "offset": 17}
    first.emit("agent_error", told)
    first.close()
    with path.open("ab") as file:
        file.write(b'{"seq":99,"ts":1')
    second = Outbox(path, "job", "node")
    assert second.history.started == {"u.1", "u.2"}
    assert second.history.completed == {"u.1"}
    assert second.history.faults == {17}
    second.emit("thread_status", {"status": "idle"})
    second.close()
    lines = path.read_bytes().split(b"\n")
    assert lines[-3] == b'{"seq":99,"ts":1'
    assert json.loads(lines[-2])["seq"] == 100
    assert lines[-1] == b""


def test_garbage_in_an_own_outbox_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b'\xff\xfe\n{"seq":7,"turn_started" \n[]\n{"seq":5,"event":"turn_started"}\n')
    outbox = Outbox(path, "job", "node")
    assert outbox.history.last_seq == 7
    assert outbox.history.started == set()
    outbox.close()


def test_what_cannot_be_written_waits(tmp_path: Path) -> None:
    path = tmp_path / "out"
    outbox = Outbox(path, "job", "node")
    real = os.dup(outbox._handle)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, outbox._handle)
    outbox.emit("turn_started", {}, "u.1")
    with pytest.raises(OSError, match="No space"):
        outbox.flush()
    assert outbox.pending
    os.dup2(real, outbox._handle)
    outbox.flush()
    assert [r["injection_id"] for r in records(path)] == ["u.1"]
    outbox.close()
    os.close(full)
    os.close(real)


def test_a_flush_pokes_the_hint_with_the_job(tmp_path: Path) -> None:
    hint = tmp_path / "hint"
    reader = open_wake(hint)
    outbox = Outbox(tmp_path / "out", "job", "node", hint)
    outbox.emit("turn_started", {}, "u.1")
    outbox.flush()
    outbox.flush()
    assert os.read(reader, 100) == b"job\n"
    outbox.close()
    os.close(reader)


def test_a_hint_without_reader_or_fifo_is_no_error(tmp_path: Path) -> None:
    assert not poke(tmp_path / "absent", b".")
    os.mkfifo(tmp_path / "fifo")
    assert not poke(tmp_path / "fifo", b".")
    (tmp_path / "file").write_text("keep")
    assert not poke(tmp_path / "file", b".")
    assert (tmp_path / "file").read_text() == "keep"


def test_a_full_fifo_never_makes_the_writer_wait(tmp_path: Path) -> None:
    reader = open_wake(tmp_path / "fifo")
    for _ in range(100):
        assert poke(tmp_path / "fifo", b"x" * 4096)
    os.close(reader)


def test_what_is_no_fifo_is_replaced_by_one(tmp_path: Path) -> None:
    (tmp_path / "wake").write_text("")
    reader = open_wake(tmp_path / "wake")
    assert poke(tmp_path / "wake", b".")
    os.close(reader)


def test_what_other_hosts_read_is_on_disk_before_a_flush_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    broken: list[OSError] = []

    def fdatasync(handle: int) -> None:
        if broken:
            raise broken.pop()
        synced.append(os.fstat(handle).st_size)

    monkeypatch.setattr("worker.outbox.os.fdatasync", fdatasync)
    alone = Outbox(tmp_path / "alone", "job", "node")
    alone.emit("usage", {})
    alone.flush()
    assert synced == []
    path = tmp_path / "out"
    outbox = Outbox(path, "job", "node", shared=True)
    outbox.flush()
    assert synced == []
    outbox.emit("usage", {})
    outbox.flush()
    outbox.flush()
    assert synced == [path.stat().st_size]
    broken.append(OSError(errno.EDQUOT, "quota"))
    outbox.emit("usage", {})
    with pytest.raises(OSError, match="quota"):
        outbox.flush()
    assert outbox.pending, "it is not known to be there"
    outbox.flush()
    assert synced[1:] == [path.stat().st_size] and not outbox.pending
    broken.append(OSError(errno.EINVAL, "no such thing here"))
    outbox.emit("usage", {})
    outbox.flush()
    assert not outbox.pending
    for one in (alone, outbox):
        one.close()
