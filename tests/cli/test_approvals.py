"""``approve``, ``deny``, ``approvals``, and what other verbs show of questions."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
from typing import Any

import pytest
from click.shell_completion import BashComplete

from cli import render
from cli.main import cli
from controller.runtime.home import Home
from controller.store.base import Key
from controller.store.database import Database
from tests.cli.conftest import Run
from tests.cli.samples import attempt, manifest, prompt, seed, set_status, swarm, swarm_status

NEVER = "2999-01-02T03:04:05.000000Z"


def question(db: Database, name: str, status: dict[str, Any] | None = None, **more: Any) -> None:
    request = {
        "id": "u.1/1", "task": "ask", "taskUid": "u", "attempt": 1, "injectionId": "u.1",
        "swarm": "builders", "worker": 0, "job": "j", "kind": "command", "command": "rm -rf x",
        "reason": "not needed", "directory": "/w/repo", "decisions": ["approve", "deny"],
        "defaultDecision": "deny", "expiresAt": NEVER, **more,
    }  # fmt: skip
    seed(db, manifest("Approval", name, {"request": request}), status or {"phase": "Pending"})


def decision(db: Database, name: str) -> dict[str, Any]:
    obj = db.get(Key("Approval", "default", name))
    assert obj is not None
    found: dict[str, Any] = obj["spec"].get("decision") or {}
    return found


def test_several_are_approved(run: Run, db: Database, started: list[str]) -> None:
    question(db, "ask.1.a")
    question(db, "ask.1.b")
    result = run("approve", "ask.1.a", "approval/ask.1.b", "--reason", "it is mine")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "approval.codeswarm.dev/ask.1.a approved",
        "approval.codeswarm.dev/ask.1.b approved",
    ]
    expected = {"value": "approve", "by": getpass.getuser(), "reason": "it is mine"}
    assert decision(db, "ask.1.a") == decision(db, "ask.1.b") == expected
    assert len(started) == 1


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["approve", "--always"], "approve-always"),
        (["approve", "--session"], "approve-session"),
        (["deny"], "deny"),
        (["deny", "--cancel"], "cancel"),
    ],
)
def test_each_decision_has_its_words(run: Run, db: Database, words: list[str], value: str) -> None:
    every = ["approve", "approve-session", "approve-always", "deny", "cancel"]
    question(db, "q", decisions=every)
    result = run(words[0], "q", *words[1:])
    assert result.exit_code == 0, result.stderr
    assert decision(db, "q")["value"] == value
    assert ("denied" in result.stdout) == (words[0] == "deny")


def test_what_cannot_be_decided_says_why_and_decides_nothing(run: Run, db: Database) -> None:
    question(db, "open")
    question(db, "late", {"phase": "Denied", "outcome": "deny", "message": "deny by the deadline"})
    question(db, "gone", {"phase": "Expired", "outcome": "expired"})
    question(db, "done")
    assert run("deny", "done").exit_code == 0

    def refused(*words: str) -> str:
        result = run(*words)
        assert result.exit_code == 1
        return result.stderr.strip().removeprefix("error: ")

    assert refused("approve", "open", "opn") == (
        'approval "opn" not found in namespace "default"; did you mean "open"?'
    )
    assert refused("approve", "open", "--always") == (
        'approval "open" does not offer approve-always; it offers approve, deny'
    )
    assert refused("deny", "open", "--cancel") == (
        'approval "open" does not offer cancel; it offers approve, deny'
    )
    late = 'approval "late" is answered already: deny by the deadline'
    assert refused("approve", "open", "late") == late
    assert "its agent does not wait for it any more" in refused("deny", "gone")
    user = getpass.getuser()
    assert refused("approve", "done") == f'approval "done" is answered already: deny by {user}'
    assert refused("approve", "task/open") == '"task/open" is no approval'
    assert "4096 are allowed" in refused("approve", "open", "--reason", "x" * 4097)
    assert decision(db, "open") == {}
    assert run("approve", "open", "--always", "--session").exit_code == 2


def test_a_decision_by_apply_comes_too_late(run: Run, db: Database) -> None:
    question(db, "late", {"phase": "Denied", "outcome": "deny"})
    stored = db.get(Key("Approval", "default", "late"))
    assert stored is not None
    late = manifest("Approval", "late", {**stored["spec"], "decision": {"value": "approve"}})
    result = run("apply", "-f", "-", input=json.dumps(late))
    assert result.exit_code == 1
    assert "the question is settled already" in result.stderr


def test_the_list(run: Run, db: Database) -> None:
    assert run("approvals").stderr == "No agent waits for an answer in default namespace.\n"
    question(db, "ask.1.a", expiresAt="2020-01-01T00:00:00Z")
    question(db, "ask.1.b", command="", kind="file-change", paths=["a.py", "b.py"])
    question(db, "ask.1.c", {"phase": "Approved", "outcome": "approve"})
    lines = run("approvals").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "ask.1.a", "ask.1.b"]
    assert "builders/0" in lines[1] and "rm -rf x" in lines[1] and "in 0s" in lines[1]
    assert "change a.py, b.py" in lines[2]
    assert run("approvals", "-A").stdout.startswith("NAMESPACE")
    assert "ask.1.c" in run("get", "approvals").stdout


def test_what_an_agent_wrote_does_not_reach_the_terminal(run: Run, db: Database) -> None:
    question(db, "q", command="ls \x1b[2J", reason="\x1b]0;x\x07", diff="+\x1b[1m", truncated=True)
    for words in (["approvals"], ["describe", "approval", "q"], ["status"], ["get", "approvals"]):
        assert "\x1b" not in run(*words).stdout, words


def test_what_an_agent_wrote_does_not_look_like_ours(run: Run, db: Database) -> None:
    ours = "answer with one of approve:"
    question(
        db, "q", command=f"ls\n{ours}", reason=f"why\n{ours}", directory=f"/w\n{ours}",
        tool=f"t\n{ours}", paths=[f"a\n{ours}"], amendments=[f"x\n{ours}"],
    )  # fmt: skip
    question(db, "r", command="ls \u202ecod\u2066")
    told = run("describe", "approval", "q").stdout.splitlines()
    assert [line for line in told if line.startswith((ours, f"  {ours}"))] == []
    assert f"    {ours}" in told, "a command's second line is set in"
    told = run("describe", "approval", "r").stdout.splitlines()
    assert "  $ ls \ufffdcod\ufffd" in told


def test_describe(run: Run, db: Database) -> None:
    diff = "\n".join(f"+line {n}" for n in range(500))
    question(
        db, "q",
        {"phase": "Denied", "outcome": "deny", "source": "person", "by": "ada", "delivered": True,
         "byVerified": False, "decidedAt": NEVER},
        diff=diff, kind="file-change", paths=["a.py"], tool="Edit", argumentsDigest="0123456789abc",
        amendments=["allow git"],
    )  # fmt: skip
    out = run("describe", "approval", "q").stdout
    for text in ("ada (as the client says)", "$ rm -rf x", "changes a.py", "in /w/repo",
                 "because: not needed", "+line 0", "... and 100 more lines",
                 "tool Edit, arguments 0123456789ab", "would allow: allow git"):  # fmt: skip
        assert text in out, text
    assert out.count("+line 0") == 1


def test_status_and_explain_show_the_question(run: Run, db: Database) -> None:
    seed(db, swarm(), swarm_status())
    task = prompt("ask")
    seed(db, task, {"phase": "Running", "attempts": [attempt()]})
    question(db, "ask.1.a", decisions=["approve", "approve-always", "deny", "cancel"])
    assert "approval/ask.1.a task/ask asks (rm -rf x)" in run("status").stdout
    out = run("explain", "ask").stdout
    for line in ("codeswarm approve ask.1.a\n", "codeswarm approve ask.1.a --always\n",
                 "codeswarm deny ask.1.a\n", "codeswarm deny ask.1.a --cancel\n"):  # fmt: skip
        assert line in out
    assert run("deny", "ask.1.a").exit_code == 0
    set_status(db, {**task, "metadata": {**task["metadata"], "namespace": "default"}})
    assert "asks for approval" not in run("explain", "ask").stdout


def test_names_are_completed(run: Run, db: Database) -> None:
    question(db, "ask.1.a")
    question(db, "ask.1.b")
    question(db, "ask.1.c", {"phase": "Approved", "outcome": "approve"})
    shell = BashComplete(cli, {}, "codeswarm", "_CODESWARM_COMPLETE")
    for verb in ("approve", "deny"):
        found = [item.value for item in shell.get_completions([verb, "ask.1.b"], "ask")]
        assert found == ["ask.1.a"]


def test_watching_shows_questions_and_answers_as_they_come(home: Home, db: Database) -> None:
    question(db, "first")
    command = [sys.executable, "-m", "cli.main", "approvals", "-w"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None

        def block() -> list[str]:
            lines = []
            while (line := process.stdout.readline().rstrip("\n")) or not lines:  # type: ignore[union-attr]
                lines.append(line)
            return lines

        try:
            assert block()[0].startswith("approval/first: task/ask on builders/0 asks, ")
            question(db, "second", diff="+a\n+b", reason="so it is")
            lines = block()
            assert lines[0].startswith("approval/second: ")
            for line in ("  $ rm -rf x", "  in /w/repo", "  because: so it is", "  +b",
                         "    codeswarm approve second", "    codeswarm deny second",
                         f"  without an answer by {NEVER} it is deny"):  # fmt: skip
                assert line in lines
            obj = db.get(Key("Approval", "default", "first"))
            assert obj is not None
            set_status(db, obj, phase="Denied", outcome="deny", message="deny by ada")
            assert block() == ["approval/first Denied: deny by ada"]
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({"command": "/bin/bash -lc 'rm x\nls'"}, "asks for approval: $ rm x"),
        ({"kind": "file-change", "paths": ["a", "b\x1b"]}, "asks for approval: a, b\ufffd"),
        ({"kind": "tool", "tool": "web"}, "asks for approval: web"),
        ({"command": 1, "paths": 2}, "asks for approval: "),
    ],
)
def test_a_question_in_the_log(told: dict[str, Any], line: str) -> None:
    assert render.lines({"event": "exec_approval_required", "data": told})[0].startswith(line)
