"""Mailboxes hold lines that nobody should have written: torn, doubled, out of order, garbage."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.faults.support import (
    PRICED,
    USE,
    FaultLab,
    check_branches,
    check_turns,
    check_usage,
    check_workers,
    records,
    turns,
)
from tests.lab import project, prompt, script, swarm, work
from worker.mailbox import append_line

SEED = 20260716
GARBAGE = (
    b"garbage",
    b"\xff\xfe\x00\x01",
    b"null",
    b"[" * 100_000,
    b"{}",
    b'{"seq":1,"event":"turn_complete","injection_id":7,"data":{}}',
    b'{"seq":"x","event":"usage","injection_id":null,"data":[]}',
    b'{"seq":-1,"event":"no_such_event","injection_id":"x.1","data":{}}',
    b'{"type":"user"}',
    b'{"type":"control","epoch":1e99,"payload":{"action":"drain"}}',
    b'{"type":"control","epoch":"9","payload":{"action":"shutdown"}}',
    b'{"type":"user","epoch":99,"injection_id":"../../x","content":3}',
    b"",
)


class Noise:
    """Writes into the mailboxes of live workers what nobody should."""

    def __init__(self, lab: FaultLab, seed: int) -> None:
        self._lab = lab
        self._chosen = random.Random(seed)
        self.written = 0

    def make(self) -> None:
        """One bad line, in one mailbox."""
        boxes = sorted(self._lab.home.workspaces.glob("*/*/*/mailbox/*/*.jsonl"))
        if not boxes:
            return
        box = self._chosen.choice(boxes)
        kind = self._chosen.choice(["garbage", "torn", "doubled", "strange"])
        lines = box.read_bytes().splitlines()
        if kind == "garbage" or not lines:
            append_line(box, self._chosen.choice(GARBAGE))
        elif kind == "doubled":
            append_line(box, self._chosen.choice(lines))
        elif kind == "torn":
            line = self._chosen.choice(lines)
            with box.open("ab") as file:
                file.write(line[: self._chosen.randrange(len(line) + 1)])
        else:
            self._strange(box, boxes)
        self.written += 1

    def _strange(self, box: Path, boxes: list[Path]) -> None:
        """A line of another worker's box of the same kind."""
        other = self._chosen.choice([b for b in boxes if b.parent.name == box.parent.name])
        lines = other.read_bytes().splitlines()
        if lines and box.parent.name == "outbox":
            append_line(box, self._chosen.choice(lines))


@pytest.mark.parametrize(
    ("tasks", "seed"),
    [(20, SEED), *(pytest.param(150, SEED + n, marks=pytest.mark.soak) for n in range(1, 6))],
)
@pytest.mark.timeout(600)
def test_noise_while_a_project_runs(lab: FaultLab, tasks: int, seed: int) -> None:
    repository = lab.repository()
    names = [f"t{number}" for number in range(tasks)]
    listed = [work(name, USE, "sleep: 0.1", USE) for name in names]
    lab.start()
    lab.apply(swarm(replicas=3, agent=PRICED), project(tasks=listed), prompt("p", script(USE)))
    noise = Noise(lab, seed)
    restarts = iter((0.3, 0.6))
    at = next(restarts)

    def done() -> bool:
        nonlocal at
        noise.make()
        finished = sum(lab.phase_of("Task", f"demo.{n}") == "Succeeded" for n in names)
        if finished >= at * tasks:
            at = next(restarts, 2.0)
            lab.kill()
            lab.start()
        return lab.phase_of("Project", "demo") == "Completed"

    lab.wait(done, "the project, whatever is written", 120)
    lab.wait_phase("Task", "p", "Succeeded")
    assert noise.written > 2 * tasks
    for name in [*(f"demo.{n}" for n in names), "p"]:
        assert [a["state"] for a in lab.attempts(name)] == ["Succeeded"]
    for name in names:
        assert lab.task(f"demo.{name}")["usage"]["inputTokens"] == 2000
    assert all(turn.complete for turn in check_turns(lab).values())
    check_usage(lab, "demo")
    check_workers(lab)
    check_branches(lab, repository, "demo", names)
    lab.apply(*(prompt(f"still-{n}", target={"swarm": "builders", "workers": n}) for n in range(3)))
    for number in range(3):
        lab.wait_phase("Task", f"still-{number}", "Succeeded")


def test_mail_of_an_earlier_controller(lab: FaultLab) -> None:
    lab.start()
    lab.apply(swarm(replicas=1))
    lab.wait_phase("Swarm", "builders", "Running")
    lab.kill()
    lab.start()
    lab.apply(prompt("p", script(USE, "sleep: 1")))
    lab.wait(lambda: turns(lab), "the turn to begin")
    (attempt,) = lab.attempts("p")
    (inbox,) = lab.home.workspaces.glob("*/*/*/mailbox/inbox/*.jsonl")
    user = next(iter(records(inbox.read_bytes())))
    assert user["epoch"] == 2

    def send(**record: Any) -> None:
        append_line(inbox, json.dumps({**record, "epoch": 1}).encode())

    interrupt = {"action": "interrupt", "injection_id": attempt["injectionId"], "reason": "Old"}
    send(type="control", payload=interrupt)
    send(type="control", payload={"action": "drain"})
    send(type="control", payload={"action": "shutdown"})
    send(**{**user, "injection_id": "00000000-0000-4000-8000-000000000000.1"})
    lab.wait_phase("Task", "p", "Succeeded")
    lab.apply(prompt("q", script(USE)))
    lab.wait_phase("Task", "q", "Succeeded")
    assert {turn.injection for turn in check_turns(lab).values()} == {
        lab.attempts(name)[0]["injectionId"] for name in ("p", "q")
    }
    assert len(lab.jobs("builders")) == 1
    check_usage(lab)


def test_lines_of_old_turns_after_a_restart(lab: FaultLab) -> None:
    """What the beginning of an ended turn says again does not make its worker busy."""
    lab.start()
    lab.apply(swarm(replicas=1), prompt("kept", script(USE)), prompt("gone", script(USE)))
    lab.wait_phase("Task", "kept", "Succeeded")
    lab.wait_phase("Task", "gone", "Succeeded")
    lab.delete("Task", "gone")
    lab.wait(lambda: lab.is_gone("Task", "gone"), "the prompt to go")
    lab.stop()
    assert list(lab.home.transcripts.rglob("*.settled"))
    (outbox,) = lab.home.workspaces.glob("*/*/*/mailbox/outbox/*.jsonl")
    lines = outbox.read_bytes().splitlines()
    begun = [line for line in lines if b'"turn_started"' in line or b'"usage"' in line]
    assert len(begun) == 4
    for line in begun:
        append_line(outbox, line)
    lab.start()
    lab.apply(prompt("next", script(USE)))
    lab.wait_phase("Task", "next", "Succeeded")
    for line in begun:
        append_line(outbox, line)
    lab.apply(prompt("last", script(USE)))
    lab.wait_phase("Task", "last", "Succeeded")
    lab.wait(lambda: lab.swarm("builders")["usage"]["inputTokens"] == 4000, "the usage")


def test_torn_lines_take_nothing_with_them(lab: FaultLab) -> None:
    lab.start()
    lab.apply(swarm(replicas=1), prompt("p", script("sleep: 1", USE)))
    lab.wait(lambda: turns(lab), "the turn to begin")
    for box in lab.home.workspaces.glob("*/*/*/mailbox/*/*.jsonl"):
        with box.open("ab") as file:
            file.write(b'{"seq":3,"ts":17')
    lab.wait_phase("Task", "p", "Succeeded")
    assert lab.task("p")["usage"]["inputTokens"] == 1000
    lab.apply(prompt("q", script(USE)))
    lab.wait_phase("Task", "q", "Succeeded")
    check_turns(lab)


def test_lines_of_another_workers_turn(lab: FaultLab) -> None:
    """A turn is what its own worker says of it."""
    lab.start()
    lab.apply(swarm(replicas=2))
    target = {"swarm": "builders", "workers": 1}
    lab.apply(prompt("p", script(USE, 'say: "the answer"'), target=target))
    lab.wait_phase("Task", "p", "Succeeded")
    lab.apply(prompt("q", script("sleep: 1", USE, 'say: "another"'), target=target))
    lab.wait(lambda: len(turns(lab)) == 2, "the turn to begin")
    theirs, ours = sorted(lab.home.workspaces.glob("*/*/*/mailbox/outbox/*.jsonl"))
    (attempt,) = lab.attempts("q")
    before = lab.attempts("p")[0]["injectionId"].encode()
    for line in ours.read_bytes().splitlines():
        append_line(theirs, line.replace(before, attempt["injectionId"].encode()))
    lab.kill()
    lab.start()
    lab.wait_phase("Task", "q", "Succeeded")
    assert lab.task("q")["answer"] == "another"
    assert lab.task("q")["usage"]["inputTokens"] == 1000
    lab.apply(prompt("r", target={"swarm": "builders", "workers": 0}))
    lab.wait_phase("Task", "r", "Succeeded")


def everything(lab: FaultLab) -> dict[str, Any]:
    """Results and usage of all objects."""
    found = {}
    for kind in ("Task", "Project", "Swarm"):
        for obj in lab.db.list(kind):
            status = dict(obj["status"])
            for name in ("conditions", "workers"):
                status.pop(name, None)
            found[f"{kind}/{obj['metadata']['name']}"] = status
    return found


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_whole_outbox_is_read_again(lab: FaultLab, shuffled: bool) -> None:
    lab.repository()
    lab.start()
    tasks = [work(f"t{n}", USE, '{run: "exit 1", attempt: 1}', USE) for n in range(6)]
    lab.apply(swarm(), project(tasks=tasks), prompt("gone", script(USE)), prompt("p", script(USE)))
    lab.wait_phase("Project", "demo", "Completed")
    lab.wait_phase("Task", "gone", "Succeeded")
    lab.wait_phase("Task", "p", "Succeeded")
    lab.delete("Task", "gone")
    lab.wait(lambda: lab.is_gone("Task", "gone"), "the prompt to go")
    used = {"input": 6 * 3000 + 2000, "cached_input": 6 * 600 + 400, "output": 6 * 150 + 100}
    names = {"input": "inputTokens", "cached_input": "cachedInputTokens", "output": "outputTokens"}

    def counted() -> bool:
        usage = lab.swarm("builders").get("usage") or {}
        return {k: usage.get(n) for k, n in names.items()} == used

    lab.wait(counted, "the swarm's usage")

    def at_rest() -> bool:
        return all(
            w["phase"] == "Idle" and "task" not in w for w in lab.swarm("builders")["workers"]
        )

    lab.wait(at_rest, "the workers to be shown as idle")
    lab.stop()
    before = everything(lab)
    settled = list(lab.home.transcripts.rglob("*.settled"))
    assert settled
    for path in settled:
        path.unlink()
    if shuffled:
        for path in lab.home.workspaces.glob("*/*/*/mailbox/outbox/*.jsonl"):
            lines = path.read_bytes().splitlines(keepends=True)
            random.Random(SEED).shuffle(lines)
            path.write_bytes(b"".join(lines))
    lab.start()
    lab.apply(*(prompt(f"next-{n}", target={"swarm": "builders", "workers": n}) for n in range(2)))
    for number in range(2):
        lab.wait_phase("Task", f"next-{number}", "Succeeded")
        lab.delete("Task", f"next-{number}")
    lab.wait(lambda: all(lab.is_gone("Task", f"next-{n}") for n in range(2)), "the prompts to go")
    lab.wait(lambda: lab.swarm("builders")["idleReplicas"] == 2, "both workers to be idle")
    assert everything(lab) == before


def test_out_of_order_while_nobody_reads(lab: FaultLab) -> None:
    repository = lab.repository()
    lab.start()
    names = [f"t{n}" for n in range(4)]
    tasks = [work(name, USE, "sleep: 0.5", USE) for name in names]
    lab.apply(swarm(replicas=4, agent=PRICED), project(tasks=tasks))
    lab.wait(lambda: len(turns(lab)) == 4, "all turns to begin")
    lab.kill()
    lab.wait(lambda: all(turn.complete for turn in turns(lab).values()), "the turns to end")
    for path in lab.home.workspaces.glob("*/*/*/mailbox/outbox/*.jsonl"):
        lines = path.read_bytes().splitlines(keepends=True)
        random.Random(SEED).shuffle(lines)
        path.write_bytes(b"".join([*lines, *lines]))
    lab.start()
    lab.wait_phase("Project", "demo", "Completed")
    for name in names:
        assert [a["state"] for a in lab.attempts(f"demo.{name}")] == ["Succeeded"]
        assert lab.task(f"demo.{name}")["usage"]["inputTokens"] == 2000
    check_usage(lab, "demo")
    check_branches(lab, repository, "demo", names)
