"""The client of a Codex app server, against one that answers badly, late or never."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.worker.codex_config import config
from worker.errors import RuntimeUnusable
from worker.runtimes import codex, codex_client
from worker.runtimes.codex_client import AppServer, RequestRefused, ServerGone, ServerSilent


class Peer:
    """A scripted process in Codex's place."""

    def __init__(self, script: str) -> None:
        self.messages: list[Any] = []
        self.ends: list[bool] = []
        self.server = AppServer(
            lambda message, size: self.messages.append(message),
            lambda direction, line: None,
            lambda: self.ends.append(True),
        )
        self.server.start([sys.executable, "-c", script], Path("/"), {})

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.close(timeout=0.5)
        assert self.server.pid is None
        assert self.ends == [True]


ECHO = """
import sys, json
{first}
for line in sys.stdin:
    number = json.loads(line)["id"]
    print(json.dumps({{"id": number, {answer}}}), flush=True)
"""


def test_noise_between_answers_is_passed_over() -> None:
    first = r"""
print("no json"); print("[1]"); print("{"); print('{"id": 77, "result": 1}'); print('{"id": []}')
print("[" * 100000); print('{"method": 3}'); sys.stdout.buffer.write(b"\xff\xfe\n"); print()
print('{"method": "hello"}')
"""
    with Peer(ECHO.format(first=first, answer='"result": 5')) as peer:
        assert peer.server.request("x", {}, 10) == 5
        assert peer.messages == [{"method": "hello"}]


def test_an_error_is_told() -> None:
    answer = '"error": {"code": -32600, "message": "not now"}'
    with Peer(ECHO.format(first="", answer=answer)) as peer:
        with pytest.raises(RequestRefused, match="not now") as refused:
            peer.server.request("x", {}, 10)
        assert refused.value.code == -32600


@pytest.mark.parametrize("error", ["3", "[]", "{}", '"x"'])
def test_a_malformed_error_is_one_too(error: str) -> None:
    script = ECHO.format(first="", answer=f'"error": {error}')
    with Peer(script) as peer, pytest.raises(RequestRefused):
        peer.server.request("x", {}, 10)


def test_nobody_waits_for_a_process_that_ended() -> None:
    with Peer("import sys; sys.stderr.write('it hurts'); sys.exit(3)") as peer:
        with pytest.raises(ServerGone, match="exit code 3"):
            peer.server.request("x", {}, 10)
        assert peer.server.errors == "it hurts"
        with pytest.raises(ServerGone):
            peer.server.request("x", {}, 10)


def test_a_silent_process_is_not_waited_for_for_ever() -> None:
    with Peer("import time; time.sleep(300)") as peer, pytest.raises(ServerSilent):
        peer.server.request("x", {}, 0.05)


def test_a_line_without_an_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codex_client, "MAX_LINE_BYTES", 1 << 16)
    long = """print('{"method":"item/completed","params":"' + "x" * (1 << 20) + '"}')"""
    with Peer(ECHO.format(first=long, answer='"result": 5')) as peer:
        assert peer.server.request("x", {}, 10) == 5
        assert peer.messages == []


def test_one_that_must_not_be_missed_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codex_client, "MAX_LINE_BYTES", 1 << 16)
    long = """print('{"method":"turn/completed","params":"' + "x" * (1 << 20) + '"}')"""
    script = ECHO.format(first=long, answer='"result": 5')
    with Peer(script) as peer, pytest.raises(ServerGone, match="more than"):
        peer.server.request("x", {}, 10)


def test_a_mute_agent_is_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codex, "READY_SECONDS", 0.2)
    program = tmp_path / "mute"
    program.write_text("#!/bin/sh\nexec sleep 300\n")
    program.chmod(0o755)
    settings = config(tmp_path, codex={"path": str(program)})
    env = {"PATH": "/usr/bin:/bin", "OPENAI_API_KEY": "k"}
    runtime = codex.CodexRuntime(settings, env)
    with pytest.raises(RuntimeUnusable, match="does not answer") as unusable:
        runtime.start()
    assert unusable.value.reason == "AgentUnresponsive"
    assert not runtime.processes()
