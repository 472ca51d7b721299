"""Looking at remotes: what is there, what is missing, and which of the two."""

import asyncio
import os
import stat
from pathlib import Path

import pytest

from controller.repository.git import Git
from controller.repository.problems import RepositoryProblem, RepositoryReason, from_git
from controller.repository.service import Repositories
from tests.repository.helpers import commit, filled_bare, git, make_bare, make_ordinary


def inspect(url: Path | str, base: str | None = None, repositories: Repositories | None = None):  # type: ignore[no-untyped-def]
    """One look, in an event loop of its own."""
    return asyncio.run((repositories or Repositories()).inspect(str(url), base, "p"))


def problem(url: Path | str, base: str | None = None) -> RepositoryProblem:
    """The problem that a look finds."""
    with pytest.raises(RepositoryProblem) as caught:
        inspect(url, base)
    return caught.value


@pytest.mark.parametrize("base", [None, "main"])
def test_a_bare_repository(tmp_path: Path, base: str | None) -> None:
    bare, work = filled_bare(tmp_path)
    head = git("rev-parse", "HEAD", cwd=work)
    for ref in (
        "refs/heads/codeswarm/p/library",
        "refs/heads/codeswarm/other/x",
        "refs/codeswarm/uid-1/1",
        "refs/heads/unrelated",
        "refs/remotes/origin/HEAD",
    ):
        git("update-ref", ref, head, cwd=bare)
    state = inspect(bare, base)
    assert (state.default_branch, state.base_branch, state.base_commit) == ("main", "main", head)
    assert state.refs == {
        "refs/heads/main": head,
        "refs/heads/codeswarm/p/library": head,
        "refs/codeswarm/uid-1/1": head,
    }


def test_an_ordinary_repository_and_another_branch(tmp_path: Path) -> None:
    work = make_ordinary(tmp_path / "work", branch="trunk")
    git("branch", "stable", cwd=work)
    head = commit(work, "more", "more")
    assert inspect(work).base_branch == "trunk"
    assert inspect(work).base_commit == head
    state = inspect(work, "stable")
    assert (state.default_branch, state.base_branch) == ("trunk", "stable")
    assert state.base_commit == git("rev-parse", "stable", cwd=work)


def test_an_empty_repository(tmp_path: Path) -> None:
    state = inspect(make_bare(tmp_path / "r.git", branch="trunk"))
    assert state.empty
    assert (state.base_branch, state.refs) == ("trunk", {})
    assert inspect(tmp_path / "r.git", "main").base_branch == "main"


def test_a_missing_base_branch_is_named_with_what_is_there(tmp_path: Path) -> None:
    bare, _ = filled_bare(tmp_path)
    found = problem(bare, "mian")
    assert found.reason is RepositoryReason.BASE_BRANCH_NOT_FOUND
    assert "did you mean 'main'?" in found.message
    assert not found.transient
    assert problem(bare, "a..b").reason is RepositoryReason.BASE_BRANCH_NOT_FOUND


def test_a_detached_or_unborn_head_needs_a_base_branch(tmp_path: Path) -> None:
    work = make_ordinary(tmp_path / "work")
    git("checkout", "--quiet", "--detach", cwd=work)
    assert "set repository.baseBranch" in problem(work).message
    assert inspect(work, "main").base_commit
    bare, _ = filled_bare(tmp_path / "b")
    git("symbolic-ref", "HEAD", "refs/heads/none", cwd=bare)
    assert problem(bare).reason is RepositoryReason.BASE_BRANCH_NOT_FOUND


def test_what_is_not_there_or_no_repository(tmp_path: Path) -> None:
    assert problem(tmp_path / "none").reason is RepositoryReason.NOT_FOUND
    (tmp_path / "file").write_text("x")
    assert problem(tmp_path / "file").reason is RepositoryReason.NOT_A_REPOSITORY
    (tmp_path / "folder").mkdir()
    assert problem(tmp_path / "folder").reason is RepositoryReason.NOT_A_REPOSITORY
    inner = make_ordinary(tmp_path / "outer") / "inner"
    inner.mkdir()
    assert problem(inner).reason is RepositoryReason.NOT_A_REPOSITORY


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a file to another user")
def test_a_repository_of_another_user(tmp_path: Path) -> None:
    bare, _ = filled_bare(tmp_path)
    os.chown(bare, 65534, 65534)
    found = problem(bare)
    assert found.reason is RepositoryReason.UNSAFE
    assert "safe.directory" in found.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_repository_that_may_not_be_read(tmp_path: Path) -> None:
    bare, _ = filled_bare(tmp_path)
    bare.chmod(0)
    try:
        assert problem(bare).reason is RepositoryReason.UNREADABLE
    finally:
        bare.chmod(0o700)


def test_an_unreachable_host_is_unknown_not_gone() -> None:
    found = problem("https://127.0.0.1:1/x.git")
    assert found.reason is RepositoryReason.UNREADABLE
    assert found.transient


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("remote: Repository not found.\nfatal: ...", RepositoryReason.NOT_FOUND),
        ("fatal: repository 'https://x/y/' not found", RepositoryReason.NOT_FOUND),
        ("fatal: Authentication failed for 'https://x'", RepositoryReason.UNREADABLE),
        ("git@x: Permission denied (publickey).", RepositoryReason.UNREADABLE),
        ("fatal: unable to access: Could not resolve host: x", RepositoryReason.UNREADABLE),
        ("fatal: '/x' does not appear to be a git repository", RepositoryReason.NOT_A_REPOSITORY),
        ("", RepositoryReason.UNREADABLE),
    ],
)
def test_what_git_says_becomes_a_reason(stderr: str, reason: RepositoryReason) -> None:
    assert from_git("https://x/y", stderr).reason is reason


def fake_git(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a shell script before git in the path."""
    folder.mkdir(exist_ok=True)
    script = folder / "git"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_command_that_hangs_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    fake_git(tmp_path / "bin", f"sleep 600 & echo $$ $! > {pids}; wait", monkeypatch)

    async def run() -> None:
        with pytest.raises(RepositoryProblem, match="took longer than"):
            await Git(deadline=0.5).run("ls-remote")

    asyncio.run(run())
    for pid in map(int, pids.read_text().split()):
        state = Path(f"/proc/{pid}/stat")
        assert not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_git_gets_no_prompt_no_hooks_and_no_secrets_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_git(tmp_path / "bin", 'env; echo "$@"', monkeypatch)
    monkeypatch.setenv("CODESWARM_SECRET", "hunter2")
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    out = asyncio.run(Git().run("status")).out
    assert "GIT_TERMINAL_PROMPT=0" in out
    assert "core.hooksPath=/dev/null" in out
    assert "protocol.ext.allow=never" in out
    assert "hunter2" not in out
    assert "GIT_DIR" not in out


def test_fifty_askers_cost_one_look(tmp_path: Path) -> None:
    bare, _ = filled_bare(tmp_path)

    async def run() -> None:
        repositories = Repositories(max_age=60)
        states = await asyncio.gather(
            *(repositories.inspect(str(bare), "main", "p") for _ in range(50))
        )
        assert repositories.git.commands == 1
        assert len({state.base_commit for state in states}) == 1
        await repositories.inspect(str(bare), "main", "p")
        assert repositories.git.commands == 1
        await repositories.inspect(str(bare), "main", "p", fresh=True)
        assert repositories.git.commands == 2
        repositories.forget(str(bare))
        await repositories.inspect(str(bare), "main", "p")
        assert repositories.git.commands == 3

    asyncio.run(run())


@pytest.mark.parametrize("packed", [False, True])
def test_the_value_of_one_ref(tmp_path: Path, packed: bool) -> None:
    bare, work = filled_bare(tmp_path)
    head = git("rev-parse", "HEAD", cwd=work)
    git("update-ref", "refs/codeswarm/u/1", head, cwd=bare)
    if packed:
        git("pack-refs", "--all", cwd=bare)

    async def run() -> None:
        repositories = Repositories()
        assert await repositories.ref_value(str(bare), "refs/codeswarm/u/1") == head
        assert await repositories.ref_value(str(bare), "refs/heads/main") == head
        assert await repositories.ref_value(str(bare), "refs/codeswarm/u/2") == ""
        assert await repositories.ref_value(str(work), "refs/heads/main") == head
        with pytest.raises(RepositoryProblem):
            await repositories.ref_value(str(tmp_path / "none"), "refs/heads/main")

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["bare", "ordinary"])
def test_the_first_commit_of_an_empty_repository(tmp_path: Path, kind: str) -> None:
    if kind == "ordinary":
        repository = tmp_path / "r"
        repository.mkdir()
        git("init", "--quiet", "-b", "main", cwd=repository)
    else:
        repository = make_bare(tmp_path / "r.git")

    async def run() -> None:
        first, second = Repositories(), Repositories()
        made = await asyncio.gather(
            first.ensure_base(str(repository), "main", tmp_path / "s1.git"),
            second.ensure_base(str(repository), "main", tmp_path / "s2.git"),
        )
        assert made[0] == made[1]
        state = await first.inspect(str(repository), "main", "p")
        assert state.base_commit == made[0]
        again = await first.ensure_base(str(repository), "main", tmp_path / "s1.git")
        assert again == made[0]

    asyncio.run(run())
    assert git("log", "--format=%s", "main", cwd=repository) == "Begin"
    assert git("ls-tree", "main", cwd=repository) == ""


def test_a_base_that_exists_is_never_moved(tmp_path: Path) -> None:
    bare, work = filled_bare(tmp_path)
    head = git("rev-parse", "HEAD", cwd=work)
    assert asyncio.run(Repositories().ensure_base(str(bare), "main", tmp_path / "s.git")) == head
