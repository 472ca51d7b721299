"""A project's work and plan tasks on a real repository: checkout, commit, push, report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worker.harness import Repository, Worker, block, git, head, until

Make = Callable[..., Worker]


OWN = "git -c user.name=a -c user.email=b commit -qm own"


def work(worker: Worker, remote: Repository, content: str, **more: Any) -> dict[str, Any]:
    """Run a task to its end; the data of its ``turn_complete``."""
    injection = more.pop("injection", f"u.{more.get('name', 'library')}.{more.get('attempt', 1)}")
    worker.write(remote.work(injection, content, **more))
    return worker.outcome(injection)


def report(worker: Worker) -> dict[str, Any]:
    """What git said of the last finished task."""
    found: dict[str, Any] = worker.wait("task_complete")["data"]
    return found


def write(path: str, content: str = "x\n") -> dict[str, Any]:
    return {"write": {"path": path, "content": content}}


def test_what_the_agent_left_is_committed_pushed_and_reported(
    worker: Worker, remote: Repository
) -> None:
    done = work(worker, remote, block(write("src/a.py", "x = 1\n"), write("README.md", "new\n")))
    assert done["status"] == "completed"
    told, refs = report(worker), remote.refs()
    assert told == {
        "base_commit": remote.base,
        "head_commit": refs["refs/codeswarm/uid-library/1"],
        "attempt_ref": "refs/codeswarm/uid-library/1",
        "branch": "codeswarm/greeter/library",
        "pushed": True,
        "files_changed": ["README.md", "src/a.py"],
        "files_changed_count": 2,
    }
    assert refs["refs/heads/codeswarm/greeter/library"] == told["head_commit"]
    assert refs["refs/heads/main"] == remote.base
    assert remote.parents(told["head_commit"]) == [remote.base]
    assert remote.show(told["head_commit"], "src/a.py") == "x = 1"
    message = git("log", "-1", "--format=%an <%ae>%n%B", told["head_commit"], cwd=remote.path)
    assert message.splitlines() == [
        f"Codeswarm {worker.job} <{worker.job}@codeswarm.invalid>",
        "The library",
        "",
        "Codeswarm-Task: uid-library",
    ]
    assert [e["event"] for e in worker.events(injection="u.library.1")][:2] == [
        "turn_started",
        "task_started",
    ]
    assert worker.wait("task_started")["data"] == {"base_commit": remote.base}
    assert '"task_id": "library"' in done["answer"] and '"status": "done"' in done["answer"]


def test_without_a_script_a_visible_marker_file_is_written(
    worker: Worker, remote: Repository
) -> None:
    done = work(worker, remote, "Do something.")
    assert report(worker)["files_changed"] == ["codeswarm-mock/library.txt"]
    assert "TASK_RESULT" in done["answer"]


def test_no_change_at_all_is_still_pushed(worker: Worker, remote: Repository) -> None:
    done = work(worker, remote, block({"say": "nothing to do"}))
    assert done["status"] == "completed"
    assert report(worker)["head_commit"] == remote.base
    assert report(worker)["files_changed"] == []
    assert remote.refs()["refs/heads/codeswarm/greeter/library"] == remote.base


@pytest.mark.parametrize(
    ("step", "status"), [({"result": {"status": "blocked", "notes": "a key"}}, "blocked")]
)
def test_what_the_agent_reports_is_in_its_block(
    worker: Worker, remote: Repository, step: dict[str, Any], status: str
) -> None:
    done = work(worker, remote, block(write("a"), step))
    assert f'"status": "{status}"' in done["answer"] and '"notes": "a key"' in done["answer"]
    assert report(worker)["pushed"] is True


def test_a_malformed_report_has_no_block(worker: Worker, remote: Repository) -> None:
    done = work(worker, remote, block(write("a"), {"malformed": True}))
    assert done["status"] == "completed" and "TASK_RESULT" not in done["answer"]


def test_the_users_own_name_is_used_where_git_knows_it(
    make_worker: Make, remote: Repository, tmp_path: Path
) -> None:
    config = tmp_path / "gitconfig"
    config.write_text(
        '[user]\n\tname = "Ada \\"L\\" B"\n\temail = ada@example.org\n'
        "[merge]\n\tff = only\n[commit]\n\tgpgSign = true\n"
    )
    worker = make_worker()
    worker.env = {**worker.env, "GIT_CONFIG_GLOBAL": str(config)}
    worker.start()
    work(worker, remote, block({"run": "echo y > y; git add y; git commit -qm own"}, write("z")))
    commit = report(worker)["head_commit"]
    for name in (commit, f"{commit}~1"):
        said = git("log", "-1", "--format=%an %ce", name, cwd=remote.path)
        assert said == 'Ada "L" B ada@example.org'


def test_each_attempt_starts_clean(worker: Worker, remote: Repository) -> None:
    remote.base = remote.commit("main", {".gitignore": "*.log\n", "d/f": "1\n"}, remote.base)
    mess = (
        "echo x > untracked; echo x > a.log; rm README.md; chmod -x d/f; rm -r d; echo x > d; "
        "mkdir -p deep/er; echo x > deep/er/f; git init -q nested; echo y > nested/f; "
        "mkdir -m 0 locked; exit 1"
    )
    assert work(worker, remote, block({"run": mess}))["status"] == "failed"
    look = "git status --porcelain --ignored; git log -1 --format=%H; ls -A; cat d/f"
    assert work(worker, remote, block({"run": look}), attempt=2)["status"] == "completed"
    output = worker.events("command_completed")[-1]["data"]["output"]
    assert output.split() == [remote.base, ".git", ".gitignore", "README.md", "d", "1"]


def test_the_checkout_of_another_base_is_followed(worker: Worker, remote: Repository) -> None:
    work(worker, remote, block(write("a")))
    second = remote.commit("main", {"new": "n\n", "README.md": None}, remote.base)
    work(
        worker,
        remote,
        block({"run": "cat new; test ! -e README.md; ! test -e a"}),
        base=second,
        attempt=2,
    )
    assert report(worker)["head_commit"] == second


def test_odd_names_are_committed_and_told(worker: Worker, remote: Repository) -> None:
    script = r"""touch -- "a b" "-n" 'q"uote' "tab	tab" "new
line" "$(printf 'caf\303\251')" "$(printf 'latin\351')" ':(top)x'; ln -s /etc/passwd link"""
    work(worker, remote, block({"run": script}))
    assert sorted(report(worker)["files_changed"]) == sorted(
        [
            "a b",
            "-n",
            'q"uote',
            "tab\ttab",
            "new\nline",
            "caf\u00e9",
            "latin\\xe9",
            ":(top)x",
            "link",
        ]
    )
    assert worker.outcome("u.library.1")["status"] == "completed"


def test_many_files_are_counted_and_the_first_named(worker: Worker, remote: Repository) -> None:
    work(worker, remote, block({"run": "for i in $(seq 1 250); do echo $i > f$i; done"}))
    assert len(report(worker)["files_changed"]) == 200
    assert report(worker)["files_changed_count"] == 250


def test_what_running_leaves_behind_is_not_committed(worker: Worker, remote: Repository) -> None:
    mess = {
        "run": "mkdir -p a/__pycache__ .pytest_cache; touch a/__pycache__/m.pyc .pytest_cache/x"
    }
    assert work(worker, remote, block(write("m.py"), mess))["status"] == "completed"
    assert report(worker)["files_changed"] == ["m.py"]


# --- the agent's own git ----------------------------------------------------------------------


def test_the_agents_own_commits_are_kept_and_the_rest_added(
    worker: Worker, remote: Repository
) -> None:
    remote.base = remote.commit("main", {".gitignore": "*.log\n"}, remote.base)
    own = "echo 1 > a; echo l > forced.log; git add a; git add -f forced.log; git commit -qm own"
    script = f"{own}; echo 2 > b"
    work(worker, remote, block({"run": script}))
    commit = report(worker)["head_commit"]
    assert report(worker)["files_changed"] == ["a", "b", "forced.log"]
    (parent,) = remote.parents(commit)
    assert remote.parents(parent) == [remote.base]
    assert remote.files(parent) == [".gitignore", "README.md", "a", "forced.log"]
    assert remote.files(commit) == [".gitignore", "README.md", "a", "b", "forced.log"]


def test_a_branch_of_the_agents_is_followed(worker: Worker, remote: Repository) -> None:
    script = (
        "git checkout -qb mine/x; echo 1 > a; git add a; git commit -qm own; git pack-refs --all"
    )
    work(worker, remote, block({"run": script}))
    assert remote.parents(report(worker)["head_commit"]) == [remote.base]
    assert git("log", "-1", "--format=%s", report(worker)["head_commit"], cwd=remote.path) == "own"


@pytest.mark.parametrize(
    "script",
    [
        f"git checkout -q --orphan new; git rm -rqf --cached .; echo 1 > a; git add a; {OWN}",
        f"git reset -q --hard HEAD~1; echo 1 > a; git add -A; {OWN}; echo hello > README.md",
        f"echo 1 > a; rm -rf .git; git init -q; git add -A; {OWN}",
        "echo 1 > a; echo nonsense > .git/HEAD",
    ],
)
def test_history_that_does_not_continue_the_base_is_not_followed(
    worker: Worker, remote: Repository, script: str
) -> None:
    remote.base = remote.commit("main", {"second": "s\n"}, remote.base)
    done = work(worker, remote, block({"run": script + "; echo s > second"}))
    assert done["status"] == "completed", done
    assert remote.parents(report(worker)["head_commit"]) == [remote.base]
    assert report(worker)["files_changed"] == ["a"]


def test_a_repository_inside_the_checkout_is_not_lost_silently(
    worker: Worker, remote: Repository
) -> None:
    script = f"git init -q sub; cd sub; echo 1 > a; git add a; {OWN}"
    done = work(worker, remote, block({"run": script}))
    assert done["error"]["class"] == "task"
    assert "sub is a git repository of its own" in done["error"]["message"]
    assert not [ref for ref in remote.refs() if "codeswarm" in ref]


# --- dependencies -----------------------------------------------------------------------------


def finished(remote: Repository, name: str, files: dict[str, str | None]) -> dict[str, str]:
    ref = f"refs/codeswarm/uid-{name}/1"
    return head(name, remote.commit(ref, files, remote.base), ref)


def test_one_dependency_is_simply_built_on(worker: Worker, remote: Repository) -> None:
    library = finished(remote, "library", {"lib": "l\n"})
    done = work(
        worker, remote, block({"run": "cat lib"}, write("app")), name="app", dependencies=[library]
    )
    assert done["status"] == "completed"
    assert remote.parents(report(worker)["head_commit"]) == [library["commit"]]
    assert report(worker)["files_changed"] == ["app"]
    assert report(worker)["base_commit"] == remote.base


def test_several_dependencies_are_merged(worker: Worker, remote: Repository) -> None:
    heads = [finished(remote, name, {name: "x\n"}) for name in ("one", "two", "three")]
    heads.append(heads[0])
    work(worker, remote, block(write("app")), name="app", dependencies=heads)
    commit = report(worker)["head_commit"]
    assert remote.files(commit) == ["README.md", "app", "one", "three", "two"]
    for found in heads:
        git("merge-base", "--is-ancestor", found["commit"], commit, cwd=remote.path)


CONFLICT = {"library": {"README.md": "library\n"}, "other": {"README.md": "other\n"}}


def test_conflicting_dependencies_are_for_the_agent(worker: Worker, remote: Repository) -> None:
    heads = [finished(remote, name, dict(files)) for name, files in CONFLICT.items()]
    heads.append(finished(remote, "third", {"third": "3\n"}))
    look = {"run": "grep -q '<<<<<<<' README.md && cat third && git status --porcelain"}
    done = work(
        worker,
        remote,
        block(look, write("README.md", "both\n")),
        name="app",
        dependencies=heads,
    )
    assert done["status"] == "completed", done
    assert worker.wait("task_started")["data"]["conflicts"] == ["README.md"]
    commit = report(worker)["head_commit"]
    assert remote.show(commit, "README.md") == "both"
    for found in heads:
        git("merge-base", "--is-ancestor", found["commit"], commit, cwd=remote.path)


def test_conflict_markers_that_are_left_fail_the_task(worker: Worker, remote: Repository) -> None:
    heads = [finished(remote, name, dict(files)) for name, files in CONFLICT.items()]
    done = work(worker, remote, block(write("app")), name="app", dependencies=heads)
    assert done["error"]["class"] == "task"
    assert "conflict markers are left in README.md" in done["error"]["message"]


def test_a_dependency_that_is_nowhere_is_an_infrastructure_failure(
    worker: Worker, remote: Repository
) -> None:
    absent = head("library", "1" * 40, "refs/codeswarm/uid-library/1")
    done = work(worker, remote, block(write("a")), name="app", dependencies=[absent])
    assert done["error"]["class"] == "infrastructure"
    assert "refs/codeswarm/uid-library/1" in done["error"]["message"]


def test_a_base_commit_that_is_nowhere_is_an_infrastructure_failure(
    worker: Worker, remote: Repository
) -> None:
    done = work(worker, remote, block(write("a")), base="1" * 40)
    assert done["error"]["class"] == "infrastructure"


def test_a_base_that_left_its_branch_is_found_by_its_name(
    worker: Worker, remote: Repository
) -> None:
    old = remote.base
    moved = remote.commit("elsewhere", {"x": "x\n"})
    git("update-ref", "refs/heads/main", moved, cwd=remote.path)
    git("update-ref", "refs/codeswarm/keep", old, cwd=remote.path)
    assert work(worker, remote, block(write("a")), base=old)["status"] == "completed"


# --- plans, prompts, the store ----------------------------------------------------------------


def test_a_planner_works_in_a_checkout_and_pushes_nothing(
    worker: Worker, remote: Repository
) -> None:
    before = remote.refs()
    steps = [{"run": "cat README.md"}, write("junk"), {"plan": {"tasks": []}}]
    done = work(worker, remote, block(*steps), kind="plan", name="plan", push=False)
    assert done["status"] == "completed" and "TASK_GRAPH_JSON" in done["answer"]
    assert "TASK_RESULT" not in done["answer"]
    assert remote.refs() == before and worker.count("task_complete") == 0


def test_a_prompt_after_a_project_has_an_empty_folder(worker: Worker, remote: Repository) -> None:
    work(worker, remote, block(write("a")))
    worker.ask(block({"run": "ls -A; echo kept > kept"}))
    worker.ask(block({"run": "ls -A"}))
    outputs = [e["data"]["output"] for e in worker.events("command_completed")]
    assert outputs == ["", "kept\n"]
    assert work(worker, remote, block(write("b")), attempt=2)["status"] == "completed"
    assert report(worker)["files_changed"] == ["b"]


def test_the_base_is_fetched_once_for_all_workers(
    make_worker: Make, remote: Repository, tmp_path: Path
) -> None:
    workers = [make_worker(f"w{n}", index=0, job=f"job-{n}").start() for n in range(3)]
    for n, worker in enumerate(workers):
        worker.write(remote.work(f"u.{n}", block(write(f"f{n}")), name=f"t{n}"))
    assert [w.outcome(f"u.{n}")["status"] for n, w in enumerate(workers)] == ["completed"] * 3
    (store,) = (tmp_path / "stores").glob("*.git")
    assert store.name == "p-1.git"
    assert [p.name for p in (store / "have").iterdir()] == [remote.base]
    before = sorted(p.name for p in store.rglob("*"))
    work(workers[0], remote, block(write("again")), attempt=2)
    assert sorted(p.name for p in store.rglob("*")) == before


def test_a_store_that_was_half_made_or_half_fetched_is_completed(
    worker: Worker, remote: Repository, tmp_path: Path
) -> None:
    part = tmp_path / "stores" / "p-1.git.part"
    (part / "objects").mkdir(parents=True)
    (tmp_path / "stores" / "p-1.git" / "refs").mkdir(parents=True)
    assert work(worker, remote, block(write("a")))["status"] == "completed"
    store = tmp_path / "stores" / "p-1.git"
    shutil.rmtree(store / "have")
    (store / "have").mkdir()
    blob = git("rev-parse", f"{remote.base}:README.md", cwd=remote.path)
    loose = store / "objects" / blob[:2] / blob[2:]
    if loose.exists():
        loose.unlink()
    (store / "refs" / "base" / remote.base).unlink()
    assert work(worker, remote, block(write("b")), attempt=2)["status"] == "completed"


def test_a_checkout_that_git_cannot_clean_is_made_anew(worker: Worker, remote: Repository) -> None:
    work(worker, remote, block(write("a")))
    (worker.base / "git" / "index").write_bytes(b"nonsense")
    assert work(worker, remote, block(write("b")), attempt=2)["status"] == "completed"
    assert report(worker)["files_changed"] == ["b"]


def test_an_interruption_during_a_fetch_ends_it(
    worker: Worker, remote: Repository, tmp_path: Path
) -> None:
    lock = tmp_path / "stores" / "p-1.git.lock"
    lock.parent.mkdir()
    import fcntl

    handle = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    worker.write(remote.work("u.1", block(write("a"))))
    worker.wait("turn_started", "u.1")
    worker.control("interrupt", injection_id="u.1", reason="Cancelled")
    assert worker.outcome("u.1")["status"] == "interrupted"
    os.close(handle)
    assert work(worker, remote, block(write("a")), attempt=2)["status"] == "completed"


def test_an_ordinary_repository_and_a_file_url_do_too(worker: Worker, remote: Repository) -> None:
    ordinary = remote.path.with_name("ordinary")
    git("clone", "-q", str(remote.path), str(ordinary), cwd=remote.path)
    for attempt, url in enumerate((str(ordinary), f"file://{ordinary}"), 1):
        record = remote.work(f"u.{attempt}", block(write("a")), attempt=attempt, name=f"t{attempt}")
        record["repository"]["url"] = url
        worker.write(record)
        assert worker.outcome(f"u.{attempt}")["status"] == "completed"
    assert "refs/codeswarm/uid-t2/2" in git("for-each-ref", cwd=ordinary)


def test_a_sha256_repository_works_alike(make_worker: Make, tmp_path: Path) -> None:
    path = tmp_path / "sha256.git"
    path.mkdir()
    git("init", "-q", "--bare", "--object-format=sha256", "-b", "main", cwd=path)
    tree = git("write-tree", cwd=path)
    base = git("commit-tree", "-m", "empty", tree, cwd=path)
    git("update-ref", "refs/heads/main", base, cwd=path)
    remote = Repository.__new__(Repository)
    remote.path, remote.base = path, base
    worker = make_worker().start()
    done = work(worker, remote, block(write("a")))
    assert done["status"] == "completed", done
    assert remote.refs()["refs/heads/codeswarm/greeter/library"] == report(worker)["head_commit"]


def test_without_git_the_failure_is_plain(
    make_worker: Make, remote: Repository, tmp_path: Path
) -> None:
    worker = make_worker()
    worker.env = {**worker.env, "PATH": str(tmp_path)}
    worker.start()
    done = work(worker, remote, block(write("a")))
    assert done["error"] == {
        "class": "infrastructure",
        "message": "git is not installed on this node",
    }
    until(lambda: worker.process is not None and worker.process.poll() is None)
