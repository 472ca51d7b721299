"""The attendant as a process: whom it talks to, and when it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.worker.harness import ROOT, until
from worker.wire import MAGIC, PROTOCOL, Frame, encode, frame, read_blocking

SILENT = """
import os, sys
from worker.attendant import main
main.SILENCE_SECONDS, main.SETTLE_SECONDS = float(sys.argv[1]), 0.2
code = main.main("attendant", sys.argv[2])
import gc
gc.collect()
os._exit(code)
"""


@contextmanager
def attendant(path: Path, silence: float = 60.0) -> Iterator[subprocess.Popen[bytes]]:
    """One that has said that frames follow."""
    process = subprocess.Popen(
        [sys.executable, "-c", SILENT, str(silence), str(path / "work")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"\n", MAGIC + b"\n"]
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def say(process: subprocess.Popen[bytes], *messages: Frame) -> None:
    """Send frames."""
    assert process.stdin is not None
    process.stdin.write(b"".join(encode(message) for message in messages))
    process.stdin.flush()


def hear(process: subprocess.Popen[bytes]) -> Frame | None:
    """The next frame; None at the end."""
    assert process.stdout is not None
    return read_blocking(process.stdout)


HELLO = frame("hello", protocol=PROTOCOL, epoch=0)


def test_it_greets_and_answers_and_ends_with_its_input(tmp_path: Path) -> None:
    with attendant(tmp_path) as process:
        say(process, HELLO, frame("ping"), frame("news of a later version"))
        welcome = hear(process)
        assert welcome is not None and welcome.type == "welcome"
        assert welcome.json()["root"] == str(tmp_path / "work")
        assert welcome.json()["pid"] == process.pid
        answer = hear(process)
        assert answer is not None and answer.type == "pong"
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0


def test_it_ends_when_nobody_is_heard(tmp_path: Path) -> None:
    with attendant(tmp_path, 0.5) as process:
        say(process, HELLO)
        begun = time.monotonic()
        while time.monotonic() < begun + 1.0:
            say(process, frame("ping"))
            time.sleep(0.05)
        assert process.poll() is None
        assert process.wait(20) == 0
        assert process.stderr is not None and b"nothing was heard" in process.stderr.read()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 100,
        encode(frame("call", b"{}", id=1, verb="jobs")),
        encode(frame("hello", protocol="one")),
        encode(HELLO) + encode(frame("call", b"nonsense", id=1, verb="jobs")),
        encode(HELLO) + encode(frame("call", id="one", verb="jobs")),
        encode(HELLO) + encode(frame("follow", b"{}", job="a", stream=-1)),
    ],
)
def test_nonsense_ends_it(tmp_path: Path, data: bytes) -> None:
    with attendant(tmp_path) as process:
        assert process.stdin is not None
        process.stdin.write(data)
        process.stdin.flush()
        assert process.wait(20) == 0


def test_another_protocol_is_told(tmp_path: Path) -> None:
    with attendant(tmp_path) as process:
        say(process, frame("hello", protocol=PROTOCOL + 1, epoch=0))
        answer = hear(process)
        assert answer is not None and answer.type == "turned-away"
        assert answer.text("reason") == "ProtocolMismatch"


def test_what_prints_does_not_get_among_the_frames(tmp_path: Path) -> None:
    with attendant(tmp_path) as process:
        told = {"argv": ["sh", "-c", "cat; echo loud >&2; echo quiet"], "seconds": 20}
        say(process, HELLO, frame("call", json.dumps(told).encode(), id=7, verb="run"))
        answers = [hear(process), hear(process)]
        assert [answer.type for answer in answers if answer] == ["welcome", "done"]
        assert answers[1] is not None and answers[1].json()["out"] == "quiet\n"


def test_a_command_that_may_outlive_it_does(tmp_path: Path) -> None:
    """A submission that is under way is not broken off."""
    script = f"touch {tmp_path}/begun; sleep 1.5; touch {tmp_path}/done"
    told = {"argv": ["sh", "-c", script], "seconds": 60, "detached": True}
    with attendant(tmp_path) as process:
        say(process, HELLO, frame("call", json.dumps(told).encode(), id=1, verb="run"))
        until((tmp_path / "begun").exists)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)
        assert not (tmp_path / "done").exists(), "it is the attendant that ended first"
    until((tmp_path / "done").exists)


def test_no_worker_folder_is_called_so(tmp_path: Path) -> None:
    """One argument is a worker's folder, whatever its name."""
    (tmp_path / "attendant").mkdir()
    command = [sys.executable, "-P", "-m", "worker", "attendant"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, check=False, cwd=tmp_path, env=env, capture_output=True, timeout=30
    )
    assert done.returncode == 2 and b"worker.json" in done.stderr
