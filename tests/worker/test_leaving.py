"""A worker that is told to leave saves the work of its turn first: time limits and preemption."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.worker.harness import PATIENCE, Repository, Worker, block, until
from worker.children import children_of

Make = Callable[..., Worker]

ORDERS = {"TimeLimit": signal.SIGUSR1, "Stopped": signal.SIGTERM}


def begin(worker: Worker, remote: Repository, *steps: object, **more: Any) -> None:
    """Begin a task's turn; on once its first command runs."""
    worker.write(remote.work("u.1", block(*steps), **more))
    worker.wait("task_started", "u.1")


def wait_for(path: Path) -> None:
    until(path.exists, f"for {path}")


def left(worker: Worker) -> dict[str, Any]:
    """How the turn ended, once the process is gone."""
    assert worker.process is not None and worker.process.wait(PATIENCE) == 0, worker.log()
    return worker.outcome("u.1")


def statuses(worker: Worker) -> list[tuple[str, str]]:
    told = [e["data"] for e in worker.events("thread_status")]
    return [(d["status"], d.get("reason", "")) for d in told]


@pytest.mark.parametrize("reason", ORDERS)
def test_the_work_is_at_the_attempts_own_ref(
    worker: Worker, remote: Repository, reason: str
) -> None:
    script = "echo half > half.txt; touch ready; trap '' TERM USR1; sleep 1000"
    begin(worker, remote, {"write": {"path": "done.txt", "content": "done\n"}}, {"run": script})
    wait_for(worker.repo / "ready")
    began = time.monotonic()
    os.kill(worker.process.pid, ORDERS[reason])  # type: ignore[union-attr]
    done = left(worker)
    assert time.monotonic() - began < 8
    assert (done["status"], done["reason"]) == ("interrupted", reason)
    told = worker.wait("task_complete", "u.1")["data"]
    head = told["head_commit"]
    assert remote.refs() == {
        "refs/heads/main": remote.base,
        "refs/codeswarm/uid-library/1": head,
    }
    assert told["pushed"] and "branch" not in told
    assert head[:12] in done["error"]["message"]
    assert remote.show(head, "half.txt") == "half" and remote.show(head, "done.txt") == "done"
    assert "(unfinished)" in remote.log(head)
    assert statuses(worker)[-2:] == [("draining", reason), ("stopped", reason)]
    order = [e["event"] for e in worker.events()]
    assert order.index("task_complete") < order.index("turn_complete")


def test_the_agents_own_commits_are_kept_too(worker: Worker, remote: Repository) -> None:
    commit = "git add -A && git commit -qm mine"
    script = f"echo 1 > a; {commit}; echo 2 > b; touch ready; sleep 1000"
    begin(worker, remote, {"run": script})
    wait_for(worker.repo / "ready")
    os.kill(worker.process.pid, signal.SIGUSR1)  # type: ignore[union-attr]
    left(worker)
    head = remote.refs()["refs/codeswarm/uid-library/1"]
    assert remote.show(head, "b") == "2"
    assert "mine" in remote.log(f"{head}^")


def test_a_turn_that_changed_nothing_leaves_nothing(worker: Worker, remote: Repository) -> None:
    begin(worker, remote, {"hang": True})
    os.kill(worker.process.pid, signal.SIGUSR1)  # type: ignore[union-attr]
    assert left(worker)["reason"] == "TimeLimit"
    assert list(remote.refs()) == ["refs/heads/main"]
    assert not worker.events("task_complete")


def test_what_cannot_be_kept_is_said(worker: Worker, remote: Repository) -> None:
    script = "mkdir inner; cd inner; git init -q; git -c user.name=a -c user.email=b commit " + (
        "--allow-empty -qm x; cd ..; touch ready; sleep 1000"
    )
    begin(worker, remote, {"run": script})
    wait_for(worker.repo / "ready")
    os.kill(worker.process.pid, signal.SIGTERM)  # type: ignore[union-attr]
    done = left(worker)
    assert done["reason"] == "Stopped" and "could not be kept" in done["error"]["message"]


def hook(remote: Repository, script: str) -> None:
    """What the remote does with every push."""
    path = remote.path / "hooks" / "pre-receive"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_push_that_is_under_way_is_not_disturbed(
    worker: Worker, remote: Repository, tmp_path: Path
) -> None:
    go, there = tmp_path / "go", tmp_path / "there"
    hook(remote, f"touch {there}; until test -e {go}; do sleep 0.02; done")
    worker.write(remote.work("u.1", block({"write": {"path": "a", "content": "a\n"}})))
    wait_for(there)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        os.kill(worker.process.pid, number)  # type: ignore[union-attr]
    until(lambda: ("draining", "TimeLimit") in statuses(worker), "for the order to be taken")
    go.touch()
    assert left(worker)["status"] == "completed"
    assert remote.show(remote.refs()["refs/heads/codeswarm/greeter/library"], "a") == "a"


def test_a_second_order_shortens_the_time(
    make_worker: Make, remote: Repository, tmp_path: Path
) -> None:
    worker = make_worker(heartbeatSeconds=0.05).start()
    there = tmp_path / "there"
    begin(
        worker,
        remote,
        {"write": {"path": "a", "content": "a\n"}},
        {"run": "touch ready; sleep 1000"},
    )
    wait_for(worker.repo / "ready")
    hook(remote, f"touch {there}; sleep 1000")
    began = time.monotonic()
    os.kill(worker.process.pid, signal.SIGUSR1)  # type: ignore[union-attr]
    wait_for(there)
    first = (worker.base / "heartbeat").stat().st_mtime_ns
    os.kill(worker.process.pid, signal.SIGTERM)  # type: ignore[union-attr]
    done = left(worker)
    assert time.monotonic() - began < 12
    assert done["reason"] == "TimeLimit" and "no time" in done["error"]["message"]
    assert (worker.base / "heartbeat").stat().st_mtime_ns > first
    assert list(remote.refs()) == ["refs/heads/main"]


def test_an_idle_worker_leaves_at_once(worker: Worker) -> None:
    assert worker.end(signal.SIGUSR1) == 0
    assert statuses(worker)[-2:] == [("draining", "TimeLimit"), ("stopped", "TimeLimit")]


def test_one_that_leaves_takes_nothing_more(
    worker: Worker, remote: Repository, tmp_path: Path
) -> None:
    hook(remote, f"until test -e {tmp_path}/go; do sleep 0.02; done")
    begin(
        worker,
        remote,
        {"write": {"path": "a", "content": "a\n"}},
        {"run": "touch ready; sleep 1000"},
    )
    wait_for(worker.repo / "ready")
    os.kill(worker.process.pid, signal.SIGTERM)  # type: ignore[union-attr]
    until(lambda: ("draining", "Stopped") in statuses(worker), "for the order to be taken")
    late = worker.prompt("too late")
    (tmp_path / "go").touch()
    left(worker)
    assert not worker.events(injection=late)


def test_an_order_that_comes_while_it_starts_is_not_lost(make_worker: Make) -> None:
    worker = make_worker()
    process = worker.spawn()
    until((worker.base / "worker.lock").exists, "for its first step")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(PATIENCE) == 0
    assert statuses(worker)[-1] == ("stopped", "TimeLimit")


def test_the_next_attempt_finds_the_work(make_worker: Make, remote: Repository) -> None:
    first = make_worker("first").start()
    begin(
        first, remote, {"write": {"path": "half.txt", "content": "half\n"}}, {"run": "sleep 1000"}
    )
    wait_for(first.repo / "half.txt")
    os.kill(first.process.pid, signal.SIGUSR1)  # type: ignore[union-attr]
    left(first)
    ref = "refs/codeswarm/uid-library/1"
    commit = remote.refs()[ref]
    record = remote.work("u.2", block({"run": f"git cherry-pick --no-edit {commit}"}), attempt=2)
    record["repository"]["previous"] = {"task": "library", "commit": commit, "ref": ref}
    second = make_worker("second", stores=str(first.base.parent / "other")).start()
    second.write(record)
    assert second.outcome("u.2")["status"] == "completed"
    head = second.wait("task_complete", "u.2")["data"]["head_commit"]
    assert remote.show(head, "half.txt") == "half"


def test_earlier_work_that_is_gone_stops_nobody(worker: Worker, remote: Repository) -> None:
    record = remote.work("u.1", block({"write": {"path": "a", "content": "a\n"}}))
    gone = {"task": "library", "commit": "1" * 40, "ref": "refs/codeswarm/uid-library/0"}
    record["repository"]["previous"] = gone
    worker.write(record)
    assert worker.outcome("u.1")["status"] == "completed"


def test_a_half_done_integration_is_kept(worker: Worker, remote: Repository) -> None:
    one = remote.commit("one", {"one": "1\n"}, start=remote.base)
    work = {
        "merges": [{"task": "one", "commit": one, "ref": "refs/heads/one"}],
        "verify": ["touch ready; sleep 1000"],
    }
    worker.write(remote.work("u.1", "Integrate.", kind="integration", integration=work))
    wait_for(worker.repo / "ready")
    os.kill(worker.process.pid, signal.SIGUSR1)  # type: ignore[union-attr]
    left(worker)
    refs = remote.refs()
    assert remote.show(refs["refs/codeswarm/uid-library/1"], "one") == "1"
    assert "refs/heads/codeswarm/greeter/library" not in refs


# --- a batch system ends a job: each of its processes gets SIGTERM, in any order ------------------


def below(pid: int) -> list[int]:
    """The processes below one, parents first."""
    found, waiting = [], [pid]
    while waiting:
        children = children_of(waiting.pop())
        found += children
        waiting += children
    return found


def end_job(worker: Worker, *, pause: float = 0.05) -> None:
    """The agent's processes are hit first, and their ends are seen before the worker is told."""
    assert worker.process is not None
    for pid in below(worker.process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    time.sleep(pause)
    os.kill(worker.process.pid, signal.SIGTERM)


def test_an_agent_that_is_ended_beside_its_worker_has_not_failed(
    worker: Worker, remote: Repository
) -> None:
    begin(worker, remote, {"run": "echo half > half.txt; touch ready; sleep 1000"})
    wait_for(worker.repo / "ready")
    end_job(worker)
    done = left(worker)
    assert (done["status"], done["reason"]) == ("interrupted", "Stopped"), done
    head = remote.refs()["refs/codeswarm/uid-library/1"]
    assert remote.show(head, "half.txt") == "half"


def test_a_push_that_is_ended_beside_its_worker_is_repeated(
    worker: Worker, remote: Repository, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    hook(remote, f"test -e {there} || {{ touch {there}; sleep 1000; }}")
    worker.write(remote.work("u.1", block({"write": {"path": "a", "content": "a\n"}})))
    wait_for(there)
    end_job(worker)
    assert left(worker)["status"] == "completed"
    assert remote.show(remote.refs()["refs/heads/codeswarm/greeter/library"], "a") == "a"


def test_what_fails_by_itself_is_a_failure(worker: Worker, remote: Repository) -> None:
    worker.write(remote.work("u.1", block({"run": "kill -TERM $$"})))
    done = worker.outcome("u.1")
    assert (done["status"], done["error"]["class"]) == ("failed", "task")
