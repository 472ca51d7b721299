"""What the controller sends and takes in: whole, checked, and no more than was asked for."""

from __future__ import annotations

import asyncio
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.repository.problems import RepositoryProblem
from controller.repository.service import Repositories
from tests.carrying.graphs import bare, bundle_of, grow, objects
from tests.carrying.test_stores import graphs
from tests.lab import git
from worker.attendant import stores

NAME = "0e5f6c4e-1111.git"
REF = "refs/codeswarm/0e5f6c4e/1"


def run(call):
    return asyncio.run(call)


def refused(call) -> str:
    with pytest.raises(RepositoryProblem) as caught:
        asyncio.run(call)
    return caught.value.reason


@given(graphs(), st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_commits_go_there_and_their_work_comes_back(tmp_path_factory, parents, data):
    folder = tmp_path_factory.mktemp("trip")
    user, ours, there = bare(folder / "user.git"), folder / "ours.git", folder / "stores"
    commits = grow(user, parents)
    refs = {commit: f"refs/heads/c{n}" for n, commit in enumerate(commits)}
    wanted = data.draw(st.lists(st.sampled_from(commits), min_size=1, unique=True))

    async def trip() -> None:
        git_ = Repositories()
        for some in (wanted[:1], wanted):
            lacking = stores.lacking(there, NAME, some)
            if lacking:
                await git_.hold(ours, str(user), {c: refs[c] for c in lacking})
                path = folder / f"{len(some)}.bundle"
                await git_.pack(ours, lacking, stores.tips(there, NAME), path)
                with path.open("rb") as source:
                    size = path.stat().st_size
                    stores.put_bundle(there, NAME, source, size, lacking, seconds=60)
                path.unlink()
        base = wanted[0]
        head = _work(there / NAME, base)
        git("-C", str(there / NAME), "update-ref", REF, head)
        known = sorted(await git_.held(ours, wanted))
        path = folder / "home.bundle"
        with path.open("wb") as out:
            stores.get_bundle(there, NAME, REF, known, out, seconds=60)
        await git_.unpack(ours, path, REF, head, base)
        results = await git_.bring(ours, str(user), {REF: head}, {REF: ""})
        assert results[REF].accepted
        assert objects(user, head) == objects(there / NAME, head)

    run(trip())


def _work(store, base: str) -> str:
    tree = git("-C", str(store), "rev-parse", f"{base}^{{tree}}")
    return git("-C", str(store), "commit-tree", "-m", "Work", "-p", base, tree)


@pytest.fixture
def pair(tmp_path):
    """A user's repository with three commits, and our store that holds the first."""
    user, ours = bare(tmp_path / "user.git"), tmp_path / "ours.git"
    commits = grow(user, [[], [0], [1]])
    run(Repositories().hold(ours, str(user), {commits[0]: "refs/heads/c0"}))
    return user, ours, commits


def named(user, path, ref: str, commit: str, *more: str):
    """A bundle with a ref at a commit."""
    git("-C", str(user), "update-ref", ref, commit)
    git("-C", str(user), "bundle", "create", "--quiet", str(path), ref, *more)
    return path


def test_only_the_one_ref_at_the_one_commit_is_taken(pair, tmp_path):
    user, ours, commits = pair
    other = named(user, tmp_path / "other", "refs/codeswarm/0e5f6c4e/2", commits[1])
    moved = named(user, tmp_path / "moved", REF, commits[2])
    both = named(user, tmp_path / "both", REF, commits[1], "refs/heads/c2")
    for path in (other, moved, both):
        call = Repositories().unpack(ours, path, REF, commits[1], commits[0])
        assert refused(call) == "BundleIncomplete"
    assert run(Repositories().held(ours, commits)) == {commits[0]}
    good = named(user, tmp_path / "good", REF, commits[1], f"^{commits[0]}")
    run(Repositories().unpack(ours, good, REF, commits[1], commits[0]))
    assert run(Repositories().held(ours, commits)) == set(commits[:2])


def test_what_is_not_based_on_the_pinned_commit_is_not_taken(pair, tmp_path):
    user, ours, commits = pair
    (foreign,) = grow(user, [[]], " of somebody else")
    path = named(user, tmp_path / "b", REF, foreign)
    assert (
        refused(Repositories().unpack(ours, path, REF, foreign, commits[0])) == "BundleIncomplete"
    )
    older = named(user, tmp_path / "older", REF, commits[0])
    call = Repositories().unpack(ours, older, REF, commits[0], commits[1])
    assert refused(call) == "BundleIncomplete"


@pytest.mark.parametrize("size", [3, 60])
def test_damaged_and_unsound_objects_are_not_taken(tmp_path, size):
    user, ours = bare(tmp_path / "user.git"), tmp_path / "ours.git"  # kept loose, kept as a pack
    commits = grow(user, [[], *([n] for n in range(size))])
    run(Repositories().hold(ours, str(user), {commits[0]: "refs/heads/c0"}))
    path = named(user, tmp_path / "b", REF, commits[-1], f"^{commits[0]}")
    data = bytearray(path.read_bytes())
    for cut in (data[: len(data) // 2], data[:30], b"", data[:-10] + b"0123456789"):
        (tmp_path / "cut").write_bytes(bytes(cut))
        call = Repositories().unpack(ours, tmp_path / "cut", REF, commits[-1], commits[0])
        assert refused(call) == "BundleIncomplete"
    # A tree with an entry named ".git", as nobody's git makes it.
    blob = git("-C", str(user), "hash-object", "-w", "-t", "blob", "/dev/null")
    entry = b"100644 .git\0" + bytes.fromhex(blob)
    tree = (
        subprocess.run(
            ["git", "-C", str(user), "hash-object", "-w", "-t", "tree", "--literally", "--stdin"],
            input=entry,
            capture_output=True,
            check=True,
        )
        .stdout.decode()
        .strip()
    )
    evil = git("-C", str(user), "commit-tree", "-m", "Evil", "-p", commits[-1], tree)
    path = named(user, tmp_path / "evil", REF, evil, f"^{commits[0]}")
    assert refused(Repositories().unpack(ours, path, REF, evil, commits[0])) == "BundleIncomplete"
    assert run(Repositories().held(ours, [evil, *commits])) == {commits[0]}
    path = named(user, tmp_path / "good", REF, commits[-1], f"^{commits[0]}")
    run(Repositories().unpack(ours, path, REF, commits[-1], commits[0]))
    assert objects(ours, commits[-1]) == objects(user, commits[-1])


def test_a_bundle_that_lacks_objects_is_not_taken(pair, tmp_path):
    user, ours, commits = pair
    path = named(user, tmp_path / "b", REF, commits[2], f"^{commits[1]}")
    call = Repositories().unpack(ours, path, REF, commits[2], commits[0])
    assert refused(call) == "BundleIncomplete"


def test_a_commit_that_is_gone_from_the_repository(pair):
    user, ours, _ = pair
    call = Repositories().hold(ours, str(user), {"f" * 40: "refs/heads/c0"})
    assert refused(call) == "CommitNotFound"
    call = Repositories().hold(ours, str(user), {"f" * 40: "refs/heads/gone"})
    assert refused(call) == "CommitNotFound"


def test_a_commit_whose_ref_is_gone_is_fetched_by_its_name(pair):
    user, ours, commits = pair
    git("-C", str(user), "update-ref", "-d", "refs/heads/c1")
    run(Repositories().hold(ours, str(user), {commits[1]: "refs/heads/c1"}))
    assert objects(ours, commits[1])


def test_a_repository_that_is_away_is_unreadable(pair, tmp_path):
    _, ours, commits = pair
    call = Repositories().hold(ours, str(tmp_path / "nowhere"), {commits[1]: "refs/heads/c1"})
    assert refused(call) in ("RepositoryUnreadable", "NotARepository", "RepositoryNotFound")


def test_half_of_a_commit_is_not_held(pair):
    user, ours, commits = pair
    text = git("-C", str(user), "cat-file", "commit", commits[1])
    subprocess.run(
        ["git", "-C", str(ours), "hash-object", "-w", "-t", "commit", "--stdin"],
        input=f"{text}\n".encode(),
        check=True,
        capture_output=True,
    )
    assert run(Repositories().held(ours, commits[:2])) == {commits[0]}
    run(Repositories().hold(ours, str(user), {commits[1]: "refs/heads/c1"}))
    assert objects(ours, commits[1])


def test_many_at_once_for_one_store(pair):
    user, ours, commits = pair

    async def all_of_them() -> None:
        git_ = Repositories()
        wanted = {c: f"refs/heads/c{n}" for n, c in enumerate(commits)}
        await asyncio.gather(*(git_.hold(ours, str(user), wanted) for _ in range(8)))

    run(all_of_them())
    assert run(Repositories().held(ours, commits)) == set(commits)


def test_a_whole_bundle_of_ours_has_a_ref_for_each_commit(pair, tmp_path):
    user, ours, commits = pair
    run(Repositories().hold(ours, str(user), {commits[2]: "refs/heads/c2"}))
    run(Repositories().pack(ours, [commits[2]], ["e" * 40], tmp_path / "b"))
    listed = git("bundle", "list-heads", str(tmp_path / "b"))
    assert listed == f"{commits[2]} refs/controller/commits/{commits[2]}"
    assert bundle_of(user, tmp_path / "c", [commits[2]], []).exists()
