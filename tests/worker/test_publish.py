"""Pushing: the attempt's ref, the branch under its lease, and what can be in the way."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.worker.harness import Repository, Worker, block, git, until
from worker.publish import MAX_LOOSE_REFS, parse_porcelain

BRANCH = "refs/heads/codeswarm/greeter/library"
SCRIPT = block({"write": {"path": "a", "content": "a\n"}})


def outcome(worker: Worker, record: dict[str, Any]) -> dict[str, Any]:
    worker.write(record)
    return worker.outcome(record["injection_id"])


def test_the_next_attempt_moves_its_branch_and_keeps_the_earlier_one(
    worker: Worker, remote: Repository
) -> None:
    for attempt in (1, 2):
        script = block({"write": {"path": f"a{attempt}", "content": ""}})
        record = remote.work(f"u.{attempt}", script, attempt=attempt)
        assert outcome(worker, record)["status"] == "completed"
    refs = remote.refs()
    assert refs[BRANCH] == refs["refs/codeswarm/uid-library/2"]
    assert remote.files(refs["refs/codeswarm/uid-library/1"]) == ["README.md", "a1"]
    assert remote.files(refs["refs/codeswarm/uid-library/2"]) == ["README.md", "a2"]


def test_a_branch_that_somebody_moved_is_left_alone(worker: Worker, remote: Repository) -> None:
    theirs = remote.commit("codeswarm/greeter/library", {"theirs": "t\n"}, remote.base)
    done = outcome(worker, remote.work("u.1", SCRIPT, expected=""))
    assert done["status"] == "failed" and done["error"]["class"] == "branch_conflict"
    assert "codeswarm/greeter/library was moved" in done["error"]["message"]
    refs = remote.refs()
    assert refs[BRANCH] == theirs
    told = worker.wait("task_complete")["data"]
    assert told["pushed"] is True and "branch" not in told
    assert refs["refs/codeswarm/uid-library/1"] == told["head_commit"]


def test_a_branch_that_went_while_it_worked_is_a_conflict_too(
    worker: Worker, remote: Repository
) -> None:
    done = outcome(worker, remote.work("u.1", SCRIPT, expected=remote.base))
    assert done["error"]["class"] == "branch_conflict"
    assert BRANCH not in remote.refs()


def test_a_push_that_was_cut_after_it_arrived_is_repeated_safely(
    worker: Worker, remote: Repository
) -> None:
    """The remote takes everything, but the first client is told that it failed."""
    hook = remote.path / "hooks" / "post-receive"
    hook.write_text(
        "#!/bin/sh\ntest -e tried && exit 0\ntouch tried\n"
        "kill -9 $(ps -o ppid= -p $PPID) $PPID 2>/dev/null\nsleep 0.1\n"
    )
    hook.chmod(0o755)
    done = outcome(worker, remote.work("u.1", SCRIPT))
    assert done["status"] == "completed", done
    assert (remote.path / "tried").exists()
    refs = remote.refs()
    assert refs[BRANCH] == refs["refs/codeswarm/uid-library/1"]


def test_a_refusing_remote_is_tried_again(worker: Worker, remote: Repository) -> None:
    hook = remote.path / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho busy >&2\ntest -e second || { touch second; exit 1; }\n")
    hook.chmod(0o755)
    assert outcome(worker, remote.work("u.1", SCRIPT))["status"] == "completed"


def test_a_remote_that_stays_away_is_an_infrastructure_failure(
    worker: Worker, remote: Repository
) -> None:
    away = remote.path.with_name("away.git")
    script = block({"write": {"path": "a", "content": ""}}, {"run": f"mv {remote.path} {away}"})
    injection = remote.work("u.1", script)
    worker.write(injection)
    done = worker.outcome("u.1")
    assert done["error"]["class"] == "infrastructure"
    assert str(remote.path) in done["error"]["message"]
    assert worker.count("task_complete") == 0


def test_an_interruption_ends_the_waiting_for_a_remote(worker: Worker, remote: Repository) -> None:
    hook = remote.path / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\ntouch tried\nexit 1\n")
    hook.chmod(0o755)
    worker.write(remote.work("u.1", SCRIPT))
    until((remote.path / "tried").exists, "for the first try")
    worker.control("interrupt", reason="Cancelled")
    assert worker.outcome("u.1")["status"] == "interrupted"


def test_work_that_is_paid_for_is_pushed_whatever_the_budget(
    worker: Worker, remote: Repository
) -> None:
    hook = remote.path / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\ntouch tried\nwhile ! test -e go; do sleep 0.02; done\n")
    hook.chmod(0o755)
    worker.write(remote.work("u.1", SCRIPT))
    until((remote.path / "tried").exists)
    worker.control("interrupt", injection_id="u.1", reason="BudgetExceeded")
    worker.control("steer", injection_id="nobody", content="that the former was read")
    worker.wait("agent_error")
    (remote.path / "go").touch()
    assert worker.outcome("u.1")["status"] == "completed"
    assert BRANCH in remote.refs()


def test_many_refs_in_files_of_their_own_are_packed(worker: Worker, remote: Repository) -> None:
    for n in range(MAX_LOOSE_REFS + 1):
        folder = remote.path / "refs" / "codeswarm" / f"old-{n}"
        folder.mkdir(parents=True)
        (folder / "1").write_text(remote.base + "\n")
    assert outcome(worker, remote.work("u.1", SCRIPT))["status"] == "completed"
    left = list((remote.path / "refs").rglob("*"))
    assert [path for path in left if stat.S_ISREG(os.lstat(path).st_mode)] == []
    assert len(remote.refs()) == MAX_LOOSE_REFS + 4


def test_the_receiver_is_shown_what_the_work_is_made_of(worker: Worker, remote: Repository) -> None:
    """What it has is not sent again, and a branch's name is never a command."""
    branch = "a$(touch${IFS}owned)'b;c"
    base = remote.commit(branch, {"large": "x" * 100_000}, remote.base)
    made = remote.commit("refs/codeswarm/uid-first/1", {"also": "y" * 100_000}, base)
    record = remote.work("u.1", SCRIPT)
    record["repository"].update(
        base_branch=branch,
        base_commit=base,
        dependencies=[{"task": "first", "commit": made, "ref": "refs/codeswarm/uid-first/1"}],
    )
    hook = remote.path / "hooks" / "pre-receive"
    hook.write_text(
        "#!/bin/sh\nfind objects/tmp* objects/incoming* -type f 2>/dev/null >sent\nexit 0\n"
    )
    hook.chmod(0o755)
    done = outcome(worker, record)
    assert done["status"] == "completed", done
    assert remote.files(remote.refs()[BRANCH]) == ["README.md", "a", "also", "large"]
    sent = (remote.path / "sent").read_text().splitlines()
    assert len([line for line in sent if "/pack/" not in line]) == 3, "commit, tree and one file"
    assert not list(remote.path.parent.rglob("owned"))


def test_the_porcelain_of_git_is_understood() -> None:
    output = (
        b"To /srv/r.git\n"
        b"*\tabc:refs/codeswarm/u/1\t[new reference]\n"
        b"!\tabc:refs/heads/x\t[rejected] (stale info)\n"
        b"=\tabc:refs/heads/y\t[up to date]\n"
        b" \tabc:refs/heads/z\ta..b\n"
        b"Done\n"
    )
    assert parse_porcelain(output) == {
        "refs/codeswarm/u/1": ("*", "[new reference]"),
        "refs/heads/x": ("!", "[rejected] (stale info)"),
        "refs/heads/y": ("=", "[up to date]"),
        "refs/heads/z": (" ", "a..b"),
    }


@given(st.binary(max_size=200))
def test_no_output_breaks_the_parser(output: bytes) -> None:
    for flag, said in parse_porcelain(output).values():
        assert len(flag) >= 1 and "\n" not in said


def test_the_users_repository_keeps_what_is_checked_out(
    worker: Worker, remote: Repository, tmp_path: Path
) -> None:
    ordinary = tmp_path / "ordinary"
    git("clone", "-q", str(remote.path), str(ordinary), cwd=tmp_path)
    record = remote.work("u.1", SCRIPT)
    record["repository"]["url"] = str(ordinary)
    assert outcome(worker, record)["status"] == "completed"
    assert git("status", "--porcelain", cwd=ordinary) == ""
    assert git("rev-parse", "HEAD", cwd=ordinary) == remote.base
