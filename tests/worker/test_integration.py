"""Integrations: merges in order, verification, and the agent where it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.worker.harness import Repository, Worker, block, git, head

VERIFY_MERGED = ["test -e one", "test -e two"]


def branch(remote: Repository, name: str, files: dict[str, str | None]) -> dict[str, str]:
    ref = f"refs/codeswarm/uid-{name}/1"
    return head(name, remote.commit(ref, files, remote.base), ref)


def two(remote: Repository) -> list[dict[str, str]]:
    return [branch(remote, "one", {"one": "1\n"}), branch(remote, "two", {"two": "2\n"})]


def conflicting(remote: Repository) -> list[dict[str, str]]:
    return [
        branch(remote, "one", {"README.md": "one\n", "one": "1\n"}),
        branch(remote, "two", {"README.md": "two\n", "two": "2\n"}),
    ]


def integrate(
    worker: Worker,
    remote: Repository,
    merges: Sequence[dict[str, str]],
    verify: list[str] | None,
    content: str = "Integrate.",
    **more: Any,
) -> dict[str, Any]:
    work = {"merges": list(merges), "verify": verify}
    worker.write(
        remote.work(
            "u.i", content, kind="integration", name="integration", integration=work, **more
        )
    )
    return worker.outcome("u.i")


def report(worker: Worker) -> dict[str, Any]:
    found: dict[str, Any] = worker.wait("task_complete")["data"]
    return found


def completed(worker: Worker, source: str) -> list[dict[str, Any]]:
    return [e["data"] for e in worker.events("command_completed") if e["data"]["source"] == source]


def write(path: str, content: str = "both\n") -> dict[str, Any]:
    return {"write": {"path": path, "content": content}}


def test_heads_are_merged_in_order_verified_and_pushed(worker: Worker, remote: Repository) -> None:
    merges = two(remote)
    done = integrate(worker, remote, merges, VERIFY_MERGED)
    assert done["status"] == "completed", done
    told = report(worker)
    assert told["merges"] == [
        {"task": m["task"], "commit": m["commit"], "state": "merged"} for m in merges
    ]
    assert told["files_changed"] == ["one", "two"] and told["base_commit"] == remote.base
    second = told["head_commit"]
    assert remote.refs()["refs/heads/codeswarm/greeter/integration"] == second
    first, last = remote.parents(second)
    assert last == merges[1]["commit"]
    assert remote.parents(first) == [remote.base, merges[0]["commit"]]
    assert git("log", "-1", "--format=%s", second, cwd=remote.path) == "Merge two"
    states = [(d["task"], d["commit"], d["state"]) for d in completed(worker, "merge")]
    assert states == [(m["task"], m["commit"], "merged") for m in merges]
    assert [d["command"] for d in completed(worker, "verify")] == VERIFY_MERGED
    assert worker.count("assistant") == 0
    assert '"status": "done"' in done["answer"] and second in done["answer"]


def test_a_head_that_is_in_already_is_said_so(worker: Worker, remote: Repository) -> None:
    merges = [head("base", remote.base, "refs/heads/main"), *two(remote)]
    merges.append({**merges[1], "task": "again"})
    assert integrate(worker, remote, merges, [])["status"] == "completed"
    states = [m["state"] for m in report(worker)["merges"]]
    assert states == ["already", "merged", "merged", "already"]
    assert completed(worker, "verify") == []


def test_what_verification_leaves_behind_is_not_committed(
    worker: Worker, remote: Repository
) -> None:
    verify = ["echo x > junk; echo x > README.md", "test -e junk"]
    assert integrate(worker, remote, two(remote), verify)["status"] == "completed"
    assert report(worker)["files_changed"] == ["one", "two"]


def test_a_conflict_is_resolved_by_the_agent(worker: Worker, remote: Repository) -> None:
    script = block({"run": "git status --porcelain; cat .git/MERGE_HEAD"}, write("README.md"))
    merges = conflicting(remote)
    done = integrate(worker, remote, merges, VERIFY_MERGED, script)
    assert done["status"] == "completed", done
    output = completed(worker, "agent")[0]["output"]
    assert "AA README.md" in output or "UU README.md" in output
    assert merges[1]["commit"] in output
    commit = report(worker)["head_commit"]
    assert remote.show(commit, "README.md") == "both"
    assert remote.parents(commit)[1] == merges[1]["commit"]
    assert [m["state"] for m in report(worker)["merges"]] == ["merged", "resolved"]
    states = [(d["task"], d["state"]) for d in completed(worker, "merge")]
    assert states == [("one", "merged"), ("two", "conflict"), ("two", "resolved")]
    assert completed(worker, "merge")[1]["output"] == "conflict in README.md"


def test_the_agent_may_conclude_the_merge_itself(worker: Worker, remote: Repository) -> None:
    script = block(write("README.md"), {"run": "git commit -qam 'my merge'"})
    merges = conflicting(remote)
    done = integrate(worker, remote, merges, VERIFY_MERGED, script)
    assert done["status"] == "completed", done
    commit = report(worker)["head_commit"]
    assert git("log", "-1", "--format=%s", commit, cwd=remote.path) == "my merge"
    assert remote.parents(commit)[1] == merges[1]["commit"]


def test_an_aborted_merge_is_concluded_all_the_same(worker: Worker, remote: Repository) -> None:
    script = block({"run": "git merge --abort; echo both > README.md; echo 2 > two"})
    merges = conflicting(remote)
    assert integrate(worker, remote, merges, VERIFY_MERGED, script)["status"] == "completed"
    assert remote.parents(report(worker)["head_commit"])[1] == merges[1]["commit"]


def test_a_conflict_that_nobody_resolves_fails_the_task(worker: Worker, remote: Repository) -> None:
    done = integrate(worker, remote, conflicting(remote), [])
    assert done["error"] == {
        "class": "task",
        "message": "merge conflict in README.md while merging two",
    }
    assert "refs/heads/codeswarm/greeter/integration" not in remote.refs()


@pytest.mark.parametrize(
    ("step", "resolved"),
    [
        ({"say": "hm"}, False),
        ({"run": "git rm -q README.md"}, True),
        ({"run": "git add README.md"}, True),
        ({"run": "rm README.md"}, True),
        ({"run": "echo more >> README.md"}, True),
        ({"run": "echo nonsense > .git/index"}, False),
    ],
)
def test_a_conflict_without_markers_must_be_decided(
    worker: Worker, remote: Repository, step: dict[str, Any], resolved: bool
) -> None:
    merges = [
        branch(remote, "one", {"README.md": None}),
        branch(remote, "two", {"README.md": "changed\n"}),
    ]
    done = integrate(worker, remote, merges, [], block(step))
    assert done["status"] == ("completed" if resolved else "failed"), done
    if not resolved:
        assert done["error"]["class"] == "task"


def test_a_failing_verification_is_repaired_by_the_agent(
    worker: Worker, remote: Repository
) -> None:
    verify = ["echo junk > junk; test -e one", "echo seen >&2; test -e repaired"]
    done = integrate(worker, remote, two(remote), verify, block(write("repaired")))
    assert done["status"] == "completed", done
    assert report(worker)["files_changed"] == ["one", "repaired", "two"]
    codes = [(d["command"], d["exit_code"]) for d in completed(worker, "verify")]
    assert codes == [(verify[0], 0), (verify[1], 1), (verify[0], 0), (verify[1], 0)]
    message = git("log", "-1", "--format=%B", report(worker)["head_commit"], cwd=remote.path)
    assert message == "Repair the integration\n\nCodeswarm-Task: uid-integration"


def test_a_verification_that_stays_broken_fails_the_task(
    worker: Worker, remote: Repository
) -> None:
    done = integrate(worker, remote, two(remote), ["echo it is broken; exit 7", "true"])
    assert done["error"]["class"] == "task"
    message = done["error"]["message"]
    assert "`echo it is broken; exit 7` ended with exit code 7" in message
    assert message.endswith("it is broken")
    assert len(completed(worker, "verify")) == 3
    assert worker.count("task_complete") == 0


def test_without_verify_the_agent_is_asked_for_it(worker: Worker, remote: Repository) -> None:
    done = integrate(worker, remote, two(remote), None, block({"run": "cat one two"}))
    assert done["status"] == "completed" and '"verification": [' in done["answer"]
    assert report(worker)["files_changed"] == ["one", "two"]
    assert completed(worker, "agent")[0]["output"] == "1\n2\n"


def test_without_verify_and_script_the_mock_reports_success(
    worker: Worker, remote: Repository
) -> None:
    done = integrate(worker, remote, two(remote), None)
    assert done["status"] == "completed" and '"status": "done"' in done["answer"]
    assert report(worker)["files_changed"] == ["one", "two"]


def test_nothing_to_merge_is_an_integration_too(worker: Worker, remote: Repository) -> None:
    assert integrate(worker, remote, [], [])["status"] == "completed"
    assert report(worker)["head_commit"] == remote.base


def test_unrelated_history_is_the_tasks_own_failure(worker: Worker, remote: Repository) -> None:
    tree = git("rev-parse", f"{remote.base}^{{tree}}", cwd=remote.path)
    lone = git("commit-tree", "-m", "lone", tree, cwd=remote.path)
    git("update-ref", "refs/codeswarm/lone", lone, cwd=remote.path)
    done = integrate(worker, remote, [head("lone", lone, "refs/codeswarm/lone")], [])
    assert done["error"]["class"] == "task" and "unrelated histories" in done["error"]["message"]


def test_verification_gets_no_repository_variables_and_leaves_no_process(
    worker: Worker, remote: Repository
) -> None:
    verify = ['test -z "$GIT_DIR$GIT_INDEX_FILE"; sleep 1000 & echo $! > ../pid', "git log -1"]
    assert integrate(worker, remote, two(remote), verify)["status"] == "completed"
    pid = (worker.base / "pid").read_text().strip()
    with pytest.raises(FileNotFoundError):
        open(f"/proc/{pid}/stat").close()
