"""What the real Claude Code may do under each sandbox mode and policy, confined or not."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.agents.anthropic_server import AnthropicServer
from tests.agents.drivers import ClaudeWorker
from tests.agents.installed import missing
from tests.agents.script import Reply, prompt
from worker.runtimes import claude_sandbox

Make = Callable[..., ClaudeWorker]


def unconfined(worker: ClaudeWorker, folder: Path) -> ClaudeWorker:
    """Start it where there is no bubblewrap."""
    tools = folder / "tools"
    tools.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for tool in Path(place).glob("*"):
            if tool.name not in ("bwrap", "socat") and not (tools / tool.name).exists():
                (tools / tool.name).symlink_to(tool)
    worker.env = {**worker.env, "PATH": str(tools)}
    worker.start()
    assert "not confined" in worker.log()
    return worker


@pytest.fixture
def confined(make_claude: Make) -> Callable[..., ClaudeWorker]:
    """Makes running workers whose commands are confined."""
    hindrance = claude_sandbox.hindrance(os.environ)
    if hindrance:
        missing(f"Claude Code's sandbox cannot be tested: {hindrance}")

    def make(name: str = "a0", **agent: Any) -> ClaudeWorker:
        worker = make_claude(name, **agent)
        worker.start()
        return worker

    return make


def run(worker: ClaudeWorker, *replies: Reply) -> list[Mapping[str, Any]]:
    """Carry out a prompt; what became of its commands and file changes."""
    injection = worker.prompt(prompt(*replies, {"say": "done"}))
    done = worker.outcome(injection)
    assert done == {"status": "completed", "answer": "done"}
    events = ("command_completed", "filechange_completed")
    return [e["data"] for e in worker.events(None, injection) if e["event"] in events]


def write(path: str) -> Reply:
    return {"write": {"path": path, "content": "x\n"}}


def test_read_only_refuses_what_may_write(make_claude: Make, tmp_path: Path) -> None:
    worker = unconfined(make_claude(sandboxMode="read-only"), tmp_path)
    change, touch, listing = run(worker, write("a.txt"), {"run": "touch b.txt"}, {"run": "ls -A"})
    assert change["status"] == "declined" and touch["exit_code"] == -1
    assert "read-only" in touch["output"] and listing["exit_code"] == 0
    assert list(worker.repo.iterdir()) == []


def test_workspace_write_keeps_edits_to_the_checkout(make_claude: Make, tmp_path: Path) -> None:
    worker = unconfined(make_claude(sandboxMode="workspace-write"), tmp_path)
    outside = tmp_path / "out.txt"
    fetch = {
        "tool": {"name": "WebFetch", "arguments": {"url": "http://127.0.0.1:9/", "prompt": "x"}}
    }
    inner, outer, command, fetched = run(
        worker, write("in.txt"), write(str(outside)), {"run": "echo hi > c.txt"}, fetch
    )
    assert (inner["status"], outer["status"]) == ("completed", "declined")
    assert command["exit_code"] == 0 and not outside.exists()
    assert (worker.repo / "in.txt").exists() and (worker.repo / "c.txt").exists()
    assert fetched["exit_code"] != 0


def test_confined_commands_stay_in_the_checkout_and_off_the_network(
    confined: Callable[..., ClaudeWorker], tmp_path: Path
) -> None:
    worker = confined(sandboxMode="workspace-write")
    outside = tmp_path / "out.txt"
    commit = "git init -q . && git -c user.name=a -c user.email=b commit -q --allow-empty -m x"
    inner, outer, key, git, net = run(
        worker,
        {"run": "echo hi > in.txt"},
        {"run": f"echo hi > {outside}", "escalate": "because"},
        {"run": 'echo "[$ANTHROPIC_API_KEY]"'},
        {"run": commit},
        {"run": "python3 -c \"import socket; socket.create_connection(('127.0.0.1', 9))\""},
    )
    assert inner["exit_code"] == 0 and (worker.repo / "in.txt").exists()
    assert outer["exit_code"] != 0 and not outside.exists()
    assert key["output"] == "[]" and git["exit_code"] == 0
    assert net["exit_code"] != 0


def test_confined_and_read_only_nothing_is_written(confined: Callable[..., ClaudeWorker]) -> None:
    worker = confined(sandboxMode="read-only")
    touch, change, reading = run(
        worker, {"run": "touch a.txt"}, write("b.txt"), {"run": "python3 -c 'print(6 * 7)'"}
    )
    assert touch["exit_code"] != 0 and change["status"] == "declined"
    assert reading["output"] == "42" and not list(worker.repo.glob("*.txt"))


def test_confined_on_request_asks_to_go_beyond(
    confined: Callable[..., ClaudeWorker], tmp_path: Path
) -> None:
    worker = confined(sandboxMode="workspace-write", approvalPolicy="on-request")
    outside = tmp_path / "out.txt"
    beyond = {"run": f"touch {outside}", "escalate": "a file is needed there"}
    injection = worker.prompt(prompt({"run": "touch in.txt"}, beyond, {"say": "done"}))
    asked = worker.wait("exec_approval_required", injection)["data"]
    assert asked["command"] == f"touch {outside}" and "outside the sandbox" in asked["reason"]
    assert (worker.repo / "in.txt").exists() and not outside.exists()
    worker.control("approval", request_id=asked["request_id"], decision="approve")
    assert worker.outcome(injection)["answer"] == "done"
    assert outside.exists()


def test_a_permission_mode_leaves_out_questions_and_nothing_else(
    make_claude: Make, tmp_path: Path
) -> None:
    settings = {"sandboxMode": "workspace-write", "approvalPolicy": "untrusted"}
    worker = make_claude(**settings, claude={"permissionMode": "acceptEdits"})
    change, command = run(unconfined(worker, tmp_path), write("a.txt"), {"run": "ls"})
    assert change["status"] == "completed" and command["exit_code"] == 0
    settings["approvalPolicy"] = "on-request"
    worker = make_claude("a1", **settings, claude={"permissionMode": "dontAsk"})
    worker.env = {**worker.env, "PATH": str(tmp_path / "tools")}
    inner, outer, command = run(
        worker.start(), write("a.txt"), write(str(tmp_path / "b.txt")), {"run": "touch c.txt"}
    )
    assert (inner["status"], outer["status"]) == ("completed", "declined")
    assert command["exit_code"] != 0 and not (worker.repo / "c.txt").exists()


# --- questions ------------------------------------------------------------------------------------


def test_a_file_change_is_asked_with_its_diff_and_once_for_the_session(
    shared_claude: ClaudeWorker,
) -> None:
    worker = shared_claude
    injection = worker.prompt(prompt(write("a.txt"), write("b.txt"), {"say": "done"}))
    asked = worker.wait("exec_approval_required", injection)["data"]
    assert (asked["kind"], asked["paths"], asked["tool"]) == ("file-change", ["a.txt"], "Write")
    assert asked["diff"].endswith("+++ b/a.txt\n@@ -0,0 +1 @@\n+x\n")
    assert asked["decisions"] == ["approve", "approve-session", "deny", "cancel"]
    worker.control("approval", request_id=asked["request_id"], decision="approve-session")
    assert worker.outcome(injection)["answer"] == "done"
    assert (worker.repo / "b.txt").read_text() == "x\n"
    assert len(worker.events("exec_approval_required", injection)) == 1


def test_cancel_ends_the_turn(shared_claude: ClaudeWorker) -> None:
    worker = shared_claude
    injection = worker.prompt(prompt({"run": "touch c.txt"}, {"say": "never said"}))
    asked = worker.wait("exec_approval_required", injection)["data"]
    worker.control("approval", request_id=asked["request_id"], decision="cancel", by="ada")
    done = worker.outcome(injection)
    assert (done["status"], done["reason"]) == ("interrupted", "Refused")
    (told,) = worker.events("exec_approval_resolved", injection)
    assert told["data"]["decision"] == "cancel" and not (worker.repo / "c.txt").exists()
    assert worker.ask(prompt({"say": "next"}))["answer"] == "next"


def test_a_refusal_and_its_reason_reach_the_model(
    shared_claude: ClaudeWorker, anthropic: AnthropicServer
) -> None:
    worker = shared_claude
    injection = worker.prompt(prompt({"run": "touch c.txt"}, {"say": "done"}))
    asked = worker.wait("exec_approval_required", injection)["data"]
    worker.control(
        "approval",
        request_id=asked["request_id"],
        decision="deny",
        by="ada",
        reason="no gooseberry",
    )
    assert worker.outcome(injection)["answer"] == "done"
    assert "Refused by ada: no gooseberry" in str(anthropic.asked()[-1].body["messages"])
    (ended,) = worker.events("command_completed", injection)
    assert ended["data"]["exit_code"] == -1
