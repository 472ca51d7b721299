"""The object store: fetching, reachability, and refs put and deleted with leases."""

import asyncio
from pathlib import Path

import pytest

from controller.repository.git import Git
from controller.repository.objects import ObjectStore
from controller.repository.problems import RepositoryProblem
from controller.repository.pushes import parse_porcelain
from controller.repository.service import Repositories
from tests.repository.helpers import commit, filled_bare, git, make_bare

TASK = "refs/heads/codeswarm/p/t"
ATTEMPT = "refs/codeswarm/uid/1"
NOWHERE = "0123456789" * 4


def test_a_store_is_made_once_by_many(tmp_path: Path) -> None:
    path = tmp_path / "stores" / "uid.git"

    async def run() -> None:
        stores = [ObjectStore(Git(), path) for _ in range(5)]
        await asyncio.gather(*(store.ensure() for store in stores))

    asyncio.run(run())
    assert git("rev-parse", "--is-bare-repository", cwd=path) == "true"
    assert git("config", "gc.auto", cwd=path) == "0"
    assert (path / "have").is_dir()
    assert (path / "refs" / "base").is_dir()
    assert not path.with_name("uid.git.part").exists()


def test_a_half_made_store_is_made_anew(tmp_path: Path) -> None:
    part = tmp_path / "s.git.part"
    (part / "objects").mkdir(parents=True)
    (part / "HEAD").write_text("garbage")
    asyncio.run(ObjectStore(Git(), tmp_path / "s.git").ensure())
    assert git("rev-parse", "--is-bare-repository", cwd=tmp_path / "s.git") == "true"


def test_fetch_and_reachability(tmp_path: Path) -> None:
    bare, work = filled_bare(tmp_path)
    first = git("rev-parse", "HEAD", cwd=work)
    second = commit(work, "a", "1")
    git("checkout", "--quiet", "-b", "side", first, cwd=work)
    side = commit(work, "b", "2")
    git("push", "--quiet", str(bare), "main", f"side:{TASK}", cwd=work)

    async def run() -> None:
        store = ObjectStore(Git(), tmp_path / "s.git")
        await store.fetch(str(bare), ["refs/heads/main", TASK])
        assert await store.contains([first, second, side, NOWHERE]) == {first, second, side}
        heads = [first, second, side, NOWHERE]
        assert await store.reachable(heads, [second]) == {first, second}
        assert await store.reachable(heads, [side]) == {first, side}
        assert await store.reachable(heads, [second, side, NOWHERE]) == {first, second, side}
        assert await store.reachable(heads, []) == set()
        assert await store.reachable([], [second]) == set()
        assert await store.is_ancestor(first, second)
        assert await store.is_ancestor(second, second)
        assert not await store.is_ancestor(second, first)
        with pytest.raises(RepositoryProblem):
            await store.fetch(str(bare), ["refs/heads/none"])
        with pytest.raises(ValueError, match="not a full ref name"):
            await store.fetch(str(bare), ["--upload-pack=x"])

    asyncio.run(run())


def test_reachability_costs_two_commands_for_any_number(tmp_path: Path) -> None:
    bare, work = filled_bare(tmp_path)
    heads = [commit(work, "a", str(number)) for number in range(30)]
    git("push", "--quiet", str(bare), "main", cwd=work)

    async def run() -> None:
        runner = Git()
        store = ObjectStore(runner, tmp_path / "s.git")
        await store.fetch(str(bare), ["refs/heads/main"])
        before = runner.commands
        assert await store.reachable(heads, heads[-1:]) == set(heads)
        assert runner.commands - before == 2

    asyncio.run(run())


def test_put_keeps_leases_and_never_forces(tmp_path: Path) -> None:
    bare, work = filled_bare(tmp_path)
    first = git("rev-parse", "HEAD", cwd=work)
    second = commit(work, "a", "1")
    git("checkout", "--quiet", "-b", "side", first, cwd=work)
    side = commit(work, "b", "2")
    git("push", "--quiet", str(bare), f"{second}:refs/heads/x", f"{side}:refs/heads/y", cwd=work)
    url = str(bare)

    async def run() -> None:
        repositories = Repositories()
        store = tmp_path / "s.git"
        await repositories.store(store).fetch(url, ["refs/heads/x", "refs/heads/y"])

        async def put(refs: dict[str, str], expected: dict[str, str]) -> dict[str, bool]:
            results = await repositories.put(store, url, refs, expected)
            return {ref: result.accepted for ref, result in results.items()}

        assert await put({TASK: second, ATTEMPT: second}, {TASK: ""}) == {TASK: True, ATTEMPT: True}
        assert await put({TASK: second}, {TASK: ""}) == {TASK: True}, "already there"
        assert await put({TASK: side}, {TASK: ""}) == {TASK: False}
        assert await put({TASK: side}, {TASK: first}) == {TASK: False}
        assert await put({TASK: side}, {}) == {TASK: False}, "no fast-forward"
        assert git("rev-parse", TASK, cwd=bare) == second
        both = await repositories.put(store, url, {TASK: side, ATTEMPT: first}, {TASK: second})
        assert both[TASK].accepted
        assert not both[ATTEMPT].accepted
        assert both[ATTEMPT].stale
        assert git("rev-parse", TASK, cwd=bare) == side
        assert git("rev-parse", ATTEMPT, cwd=bare) == second
        with pytest.raises(ValueError, match="not a full ref name"):
            await put({"--force": side}, {})
        with pytest.raises(ValueError, match="use delete"):
            await put({TASK: ""}, {})
        with pytest.raises(RepositoryProblem):
            await repositories.put(store, str(tmp_path / "none"), {TASK: side}, {})

    asyncio.run(run())


def test_a_checked_out_branch_is_refused_alone(tmp_path: Path) -> None:
    bare, work = filled_bare(tmp_path)
    head = commit(work, "a", "1")
    git("checkout", "--quiet", "--detach", cwd=work)
    git("push", "--quiet", str(bare), f"{head}:refs/heads/x", cwd=work)
    git("checkout", "--quiet", "-b", "codeswarm/p/t", "main~1", cwd=work)

    async def run() -> None:
        repositories = Repositories()
        store = tmp_path / "s.git"
        await repositories.store(store).fetch(str(bare), ["refs/heads/x"])
        results = await repositories.put(store, str(work), {TASK: head, ATTEMPT: head}, {})
        assert results[ATTEMPT].accepted
        assert not results[TASK].accepted
        assert "checked out" in results[TASK].message

    asyncio.run(run())


def test_delete_takes_only_what_has_the_expected_value(tmp_path: Path) -> None:
    bare, work = filled_bare(tmp_path)
    first = git("rev-parse", "HEAD", cwd=work)
    second = commit(work, "a", "1")
    git("push", "--quiet", str(bare), f"{first}:{TASK}", f"{second}:{ATTEMPT}", cwd=work)

    async def run() -> None:
        repositories = Repositories()
        results = await repositories.delete(
            tmp_path / "s.git",
            str(bare),
            {TASK: first, ATTEMPT: first, "refs/codeswarm/uid/9": first},
        )
        accepted = {ref: result.accepted for ref, result in results.items()}
        assert accepted == {TASK: True, ATTEMPT: False, "refs/codeswarm/uid/9": True}

    asyncio.run(run())
    assert git("for-each-ref", "--format=%(refname)", cwd=bare).split() == [
        ATTEMPT,
        "refs/heads/main",
    ]


def test_many_refs_go_in_batches(tmp_path: Path) -> None:
    bare, work = filled_bare(tmp_path)
    head = git("rev-parse", "HEAD", cwd=work)
    refs = {f"refs/codeswarm/uid-{number}/1": head for number in range(501)}

    async def run() -> None:
        repositories = Repositories()
        store = tmp_path / "s.git"
        await repositories.store(store).fetch(str(bare), ["refs/heads/main"])
        put = await repositories.put(store, str(bare), refs, dict.fromkeys(refs, ""))
        assert all(result.accepted for result in put.values())
        assert len(put) == 501
        gone = await repositories.delete(store, str(bare), refs)
        assert all(result.accepted for result in gone.values())

    asyncio.run(run())
    assert git("for-each-ref", "--format=%(refname)", cwd=bare) == "refs/heads/main"


def test_an_origin_gets_what_the_local_repository_has(tmp_path: Path) -> None:
    bare, work = filled_bare(tmp_path)
    first = git("rev-parse", "HEAD", cwd=work)

    async def send(refs: dict[str, str], known: set[str]) -> dict[str, bool] | None:
        results = await Repositories().push_to_origin(str(work), refs, known)
        return results and {ref: result.accepted for ref, result in results.items()}

    assert asyncio.run(send({TASK: first}, set())) is None, "no origin"
    git("remote", "add", "origin", "../remote.git", cwd=work)
    assert asyncio.run(send({TASK: first}, set())) == {TASK: True}
    assert git("rev-parse", TASK, cwd=bare) == first
    one = commit(work, "a", "1")
    git("checkout", "--quiet", "-b", "side", first, cwd=work)
    two = commit(work, "b", "2")
    assert asyncio.run(send({TASK: one}, set())) == {TASK: True}, "fast-forward"
    assert asyncio.run(send({TASK: two}, set())) == {TASK: False}, "not ours to replace"
    assert git("rev-parse", TASK, cwd=bare) == one
    assert asyncio.run(send({TASK: two}, {one})) == {TASK: True}
    assert asyncio.run(send({TASK: two}, set())) == {TASK: True}, "nothing to do"
    git("remote", "set-url", "origin", "ext::sh -c touch% /tmp/x", cwd=work)
    with pytest.raises(RepositoryProblem, match="remote helper"):
        asyncio.run(send({TASK: two}, set()))
    assert asyncio.run(Repositories().push_to_origin("https://127.0.0.1:1/x", {})) is None


def test_porcelain() -> None:
    out = (
        "To /tmp/r\n"
        "*\trefs/x:refs/heads/new\t[new branch]\n"
        "=\tabc:refs/heads/same\t[up to date]\n"
        "!\tabc:refs/heads/old\t[rejected] (stale info)\n"
        "!\tabc:refs/heads/out\t[remote rejected] (branch is currently checked out)\n"
        "-\t:refs/heads/gone\t[deleted]\n"
        "garbage\n"
        "Done\n"
    )
    results = parse_porcelain(out)
    assert {ref: (r.accepted, r.message) for ref, r in results.items()} == {
        "refs/heads/new": (True, ""),
        "refs/heads/same": (True, ""),
        "refs/heads/old": (False, "stale info"),
        "refs/heads/out": (False, "branch is currently checked out"),
        "refs/heads/gone": (True, ""),
    }


def test_an_empty_store_reaches_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        store = ObjectStore(Git(), tmp_path / "s.git")
        await store.ensure()
        assert await store.reachable([NOWHERE], [NOWHERE]) == set()
        await store.fetch(str(make_bare(tmp_path / "r.git")), [])

    asyncio.run(run())
