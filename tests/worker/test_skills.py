"""A persona's skills: where agents look for them during a turn, and in no commit after it."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.harness import Repository, Worker, block, git
from worker.config import load
from worker.errors import ConfigError
from worker.skills import FOLDERS, Skills

Make = Callable[..., Worker]

SKILLS = {"review/SKILL.md": "# Review\n", "review/run me.sh": "echo [hi]\n"}
REVIEW, CLAUDES = (f"{folder}/review/SKILL.md" for folder in FOLDERS)
OWN = "git -c user.name=a -c user.email=b commit -qm own"


@pytest.fixture
def worker(make_worker: Make) -> Worker:
    persona = {"instructions": "Be kind.\n", "skills": SKILLS}
    return make_worker(persona=persona).start()


def run(worker: Worker, remote: Repository, *steps: Any, **more: Any) -> dict[str, Any]:
    """Carry out a task; what its worker told of it."""
    injection = f"u.{more.get('name', 'library')}.{more.get('attempt', 1)}"
    worker.write(remote.work(injection, block(*steps), **more))
    done = worker.outcome(injection)
    assert done["status"] == "completed", done
    found: dict[str, Any] = worker.events("task_complete", injection)[-1]["data"]
    return found


def outputs(worker: Worker) -> list[str]:
    return [e["data"]["output"] for e in worker.events("command_completed")]


def complaints(worker: Worker) -> list[str]:
    found = [e["data"] for e in worker.events("agent_error")]
    return [data["message"] for data in found if data["class"] == "persona"]


def test_they_are_there_in_each_turn_and_in_no_commit(worker: Worker, remote: Repository) -> None:
    look = {"run": f"cat {REVIEW} {CLAUDES} '.agents/skills/review/run me.sh'; git status -s"}
    for attempt in (1, 2):
        told = run(worker, remote, look, {"write": {"path": "a", "content": "x"}}, attempt=attempt)
        assert told["files_changed"] == ["a"]
        assert remote.files(told["head_commit"]) == ["README.md", "a"]
    assert outputs(worker) == ["# Review\n# Review\necho [hi]\n"] * 2
    assert not (worker.repo / ".agents").exists() and not (worker.repo / ".claude").exists()
    assert complaints(worker) == []


def test_they_are_there_for_prompts_without_a_repository(worker: Worker) -> None:
    for _ in range(2):
        assert worker.ask(block({"run": f"cat {REVIEW}; rm -r .agents"}))["status"] == "completed"
    assert outputs(worker) == ["# Review\n"] * 2 and complaints(worker) == []


@pytest.mark.parametrize(
    "script",
    [
        "git add -A -f && " + OWN,
        f"git add -f {REVIEW} && {OWN} && git rm -q -r --cached .agents && {OWN}",
        f"git add -f {REVIEW}",
        "printf '!.agents\\n!.claude\\n!*\\n' > .gitignore && git add -A && " + OWN,
        f"at=$(git rev-parse HEAD) && git checkout -qb side && git add -f {CLAUDES} && {OWN} "
        f"&& git checkout -q $at && echo y > y && git add y && {OWN} "
        "&& git -c user.name=a -c user.email=b merge -q side",
    ],
    ids=["all", "and taken back", "staged", "ignore rules", "merged"],
)
def test_what_the_agent_forces_into_its_commits_is_in_none_of_ours(
    worker: Worker, remote: Repository, script: str
) -> None:
    told = run(worker, remote, {"run": f"echo x > mine && {script}"})
    head = told["head_commit"]
    assert "mine" in remote.files(head)
    history = git(
        "log", "-m", "--name-only", "--format=", f"{remote.base}..{head}", cwd=remote.path
    )
    assert "skills" not in history and ".agents" not in history
    forced = OWN in script
    assert len(complaints(worker)) == forced
    assert not forced or "hold files of its persona" in complaints(worker)[0]


def test_an_agents_own_commits_without_them_are_kept(worker: Worker, remote: Repository) -> None:
    told = run(worker, remote, {"run": f"echo x > x && git add -A && {OWN}"})
    assert git("log", "-1", "--format=%s", told["head_commit"], cwd=remote.path) == "own"
    assert complaints(worker) == []


def test_a_skill_that_is_the_agents_work_is_committed(worker: Worker, remote: Repository) -> None:
    told = run(worker, remote, {"write": {"path": ".agents/skills/new/SKILL.md", "content": "n\n"}})
    assert told["files_changed"] == [".agents/skills/new/SKILL.md"]
    assert not (worker.repo / REVIEW).exists()


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({REVIEW: "ours\n"}, [REVIEW]),
        ({".agents": "a file\n"}, [REVIEW, ".agents/skills/review/run me.sh"]),
        ({REVIEW: "# Review\n"}, []),
    ],
    ids=["a file", "a folder's name", "the same"],
)
def test_the_repositorys_own_files_go_before(
    worker: Worker, remote: Repository, files: dict[str, str], left: list[str]
) -> None:
    base = remote.commit("main", {**files, "README.md": "hello\n"})
    path = next(iter(files))
    told = run(worker, remote, {"run": f"cat {path} && echo more >> {path}"}, base=base)
    assert outputs(worker) == [files[path]]
    assert remote.show(told["head_commit"], path) == files[path] + "more"
    if not left:
        assert complaints(worker) == []
        return
    (message,) = complaints(worker)
    assert all(name in message for name in left) and CLAUDES not in message


def test_an_agent_may_commit_its_change_of_the_repositorys_own_skill(
    worker: Worker, remote: Repository
) -> None:
    base = remote.commit("main", {REVIEW: "ours\n"})
    told = run(worker, remote, {"run": f"echo m >> {REVIEW}; git add -A && {OWN}"}, base=base)
    assert git("log", "-1", "--format=%s", told["head_commit"], cwd=remote.path) == "own"
    assert remote.show(told["head_commit"], REVIEW) == "ours\nm"


def test_nothing_is_written_or_removed_through_a_link(
    worker: Worker, remote: Repository, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "review").mkdir(parents=True)
    (outside / "review" / "SKILL.md").write_text("not ours\n")
    run(worker, remote, {"run": f"rm -r .agents/skills; ln -s {outside} .agents/skills"})
    assert (outside / "review" / "SKILL.md").read_text() == "not ours\n"
    links = "rm -r .agents .claude; mkdir d; touch d/kept; ln -s d .claude; ln -s nowhere .agents"
    told = run(worker, remote, {"run": links}, name="b")
    base = told["head_commit"]
    last = run(worker, remote, {"run": "find d"}, name="c", base=base)
    assert outputs(worker)[-1] == "d\nd/kept\n" and last["files_changed"] == []
    assert len(complaints(worker)) == 1 and CLAUDES in complaints(worker)[0]


def test_an_integration_has_them_only_while_it_asks(worker: Worker, remote: Repository) -> None:
    one = remote.commit("one", {"README.md": "one\n"}, remote.base)
    two = remote.commit("two", {"README.md": "two\n"}, remote.base)
    merges = [
        {"task": name, "commit": commit, "ref": f"refs/heads/{name}"}
        for name, commit in (("one", one), ("two", two))
    ]
    verify = ["test ! -e .agents", "test ! -e .claude"]
    fix = f"cat {REVIEW} && echo both > README.md && git add -f -A && {OWN}"
    told = run(
        worker, remote, {"run": fix}, kind="integration", name="integration",
        integration={"merges": merges, "verify": verify},
    )  # fmt: skip
    head = told["head_commit"]
    assert remote.show(head, "README.md") == "both" and remote.files(head) == ["README.md"]
    assert remote.parents(head)[1:] == [two]
    assert ".agents" not in git("log", "-m", "--name-only", "--format=", head, cwd=remote.path)


# --- parts -------------------------------------------------------------------------------------


@given(st.text(alphabet="ab*?[]!#\\ .", min_size=1, max_size=12))
def test_git_reads_the_exclusions_as_the_paths_that_they_are(name: str) -> None:
    import fnmatch

    line = Skills({f"x/{name}": ""}).excluded.splitlines()[0]
    plain, escaped = "", False
    for char in line[1:]:
        if char == "\\" and not escaped:
            escaped = True
            continue
        assert escaped or char not in "*?[ !#"
        plain, escaped = plain + char, False
    assert plain == f".agents/skills/x/{name}" and fnmatch.fnmatchcase(plain, "*")


def test_modes_and_what_was_there_before(tmp_path: Path) -> None:
    (tmp_path / ".claude").mkdir()
    skills = Skills({"a/SKILL.md": "x"})
    with skills.in_place(tmp_path) as taken:
        assert taken == []
        mode = stat.S_IMODE((tmp_path / ".agents/skills/a/SKILL.md").stat().st_mode)
        assert mode & 0o600 == 0o600 and not mode & 0o111
        (tmp_path / ".agents/skills/a/note").write_text("the agent's")
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == [
        ".agents", ".agents/skills", ".agents/skills/a", ".agents/skills/a/note", ".claude",
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "", "a//b", ".git/hooks/x", "a\nb"])
def test_a_path_that_leaves_is_refused_at_the_start(tmp_path: Path, path: str) -> None:
    told = {"job": "j-1", "runtime": "mock", "persona": {"skills": {path: "x"}}}
    (tmp_path / "worker.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="is no path below a skills folder"):
        load(tmp_path, {})


def test_a_persona_is_read_as_it_was_given(tmp_path: Path) -> None:
    told = {"job": "j-1", "runtime": "mock", "persona": {"instructions": "i", "skills": SKILLS}}
    (tmp_path / "worker.json").write_text(json.dumps(told))
    found = load(tmp_path, {})
    assert (found.persona.instructions, dict(found.persona.skills)) == ("i", SKILLS)
    (tmp_path / "worker.json").write_text(json.dumps({"job": "j-1", "runtime": "mock"}))
    assert load(tmp_path, {}).persona.instructions == ""
