"""Carriages: one for all who need it, nothing twice, nothing for ever, nobody held up."""

from __future__ import annotations

import asyncio
import functools
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from controller.reconcile import carriages, ferry
from controller.reconcile.carriages import Carriages, NotYet
from controller.reconcile.ferry import Ferry, Load, Parcel, Route
from controller.repository.problems import RepositoryProblem
from controller.repository.service import Repositories
from controller.store.base import Key
from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable, SwarmHandle
from tests.carrying.elsewhere import FolderStores
from tests.carrying.graphs import bare, bundle_of, grow, objects
from tests.lab import git, refs

REF = "refs/codeswarm/uid/1"
HANDLE = SwarmHandle("default", "far", "uid-of-far")
TASKS = [Key("Task", "default", f"t{n}") for n in range(50)]


class Trip:
    """A user's repository, our store, a place, and a ferry between them."""

    def __init__(self, folder: Path, parents=((), (0,), (1,))) -> None:
        self.user = bare(folder / "user.git")
        self.commits = grow(self.user, parents)
        self.stores = FolderStores(folder / "cluster")
        self.ours = folder / "ours" / "p-uid.git"
        self.there = self.stores.root / "p-uid.git"
        self.woken: list[Key] = []
        self.told: list[str] = []
        self.url = str(self.user)
        self.ferry = self.another()

    def another(self) -> Ferry:
        return Ferry(
            Repositories(),
            self.ours.parent,
            self.woken.append,
            lambda key, reason, message: self.told.append(f"{key.name} {reason}: {message}"),
        )

    @property
    def route(self) -> Route:
        project = Key("Project", "default", "demo")
        return Route(project, self.stores, HANDLE, "p-uid.git", self.ours, self.url)

    def load(self, *numbers: int, **more) -> Load:
        wanted = {self.commits[n]: f"refs/heads/c{n}" for n in numbers}
        return Load(f"c{numbers[0]}", self.commits[numbers[0]], wanted, **more)

    async def send(self, *numbers: int, asker: Key = TASKS[0], **more) -> str:
        return await until(lambda: self.ferry.send(self.route, self.load(*numbers, **more), asker))

    async def work(self, base: int = 0, ref: str = REF) -> Parcel:
        """Have a worker there push something; what is to come home."""
        await self.send(base)
        tree = git("-C", str(self.there), "rev-parse", f"{self.commits[base]}^{{tree}}")
        parents = ("-p", self.commits[base])
        head = git("-C", str(self.there), "commit-tree", "-m", f"Work {ref}", *parents, tree)
        git("-C", str(self.there), "update-ref", ref, head)
        known = {self.commits[base]: f"refs/heads/c{base}"}
        return Parcel(ref, head, self.commits[base], known, "refs/heads/work")

    async def bring(self, parcel: Parcel) -> str:
        return await until(lambda: self.ferry.bring(self.route, parcel, TASKS[0]))


async def until(call):
    """Ask again until it has come."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except NotYet:
                await asyncio.sleep(0.01)


async def becomes(condition):
    """Wait for a condition."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (a list fills)
            await asyncio.sleep(0.01)


@pytest.fixture
def trip(tmp_path):
    return Trip(tmp_path)


def test_fifty_who_need_the_same_send_it_once(trip):
    async def all_of_them():
        paths = await asyncio.gather(*(trip.send(0, asker=task) for task in TASKS))
        assert set(paths) == {str(trip.there)}

    asyncio.run(all_of_them())
    assert trip.stores.calls == ["locate", "lacking", "tips", "put"]


def test_what_is_there_is_not_sent_again_by_the_next_controller(trip):
    async def twice():
        await trip.send(0, 1)
        trip.ferry = trip.another()
        trip.stores.calls.clear()
        await trip.send(1)
        assert trip.stores.calls == ["locate", "lacking"]
        sent = trip.stores.sent
        await trip.send(2)
        assert trip.stores.sent - sent < sent  # less what is there

    asyncio.run(twice())
    assert objects(trip.there, trip.commits[2])


def test_it_is_looked_at_again_when_a_worker_missed_something(trip):
    async def doubted():
        await trip.send(0)
        trip.stores.calls.clear()
        await trip.send(0)
        assert trip.stores.calls == []
        trip.ferry.doubt(trip.route.place, "p-uid.git")
        await trip.send(0)
        assert trip.stores.calls == ["locate", "lacking"]

    asyncio.run(doubted())


def test_a_store_that_was_removed_there_is_filled_again(trip, monkeypatch):
    monkeypatch.setattr(ferry, "PRESENT_SECONDS", 0.0)

    async def removed():
        await trip.send(0)
        await trip.stores.discard(HANDLE, "p-uid.git")
        await trip.send(0)

    asyncio.run(removed())
    assert objects(trip.there, trip.commits[0])


@pytest.mark.parametrize("error", [ProviderUnreachable, OutcomeUnknown])
def test_a_cut_is_asked_again_and_harms_nothing(trip, monkeypatch, error):
    monkeypatch.setattr(carriages, "FAILED_SECONDS", 0.05)
    put, cuts = trip.stores.put, []

    async def cut(*args):
        await put(*args)  # it took effect, and the answer was lost
        if not cuts:
            cuts.append(1)
            raise error("ConnectionLost", "cut")

    trip.stores.put = cut

    async def twice():
        with pytest.raises(error):
            await trip.send(0)
        with pytest.raises(error):
            await trip.send(0)  # at once: nothing is tried
        assert trip.stores.calls.count("put") == 1
        await asyncio.sleep(0.06)
        await trip.send(0)
        assert trip.stores.calls.count("put") == 1

    asyncio.run(twice())


def test_a_place_that_takes_nothing_in_fails_the_attempt_not_the_swarm(trip):
    async def refuse(*_):
        raise ProviderError("StoreNotWritable", "the disk is full")

    trip.stores.put = refuse

    async def once():
        with pytest.raises(RepositoryProblem) as caught:
            await trip.send(0)
        assert caught.value.reason == "StoreNotWritable"
        assert "ada@lab-login" in caught.value.message

    asyncio.run(once())


@pytest.mark.parametrize("call", ["locate", "lacking"])
def test_a_place_where_git_does_not_work_fails_the_attempt_too(trip, call):
    async def refuse(*_):
        raise ProviderError("GitNotFound", "git is not on the PATH of the login host")

    setattr(trip.stores, call, refuse)

    async def once():
        with pytest.raises(RepositoryProblem) as caught:
            await trip.send(0)
        assert caught.value.reason == "GitNotFound"

    asyncio.run(once())


def test_a_machine_without_room_is_said(trip):
    trip.ferry = Ferry(Repositories(), trip.user / "HEAD", trip.woken.append, lambda *_: None)

    async def once():
        with pytest.raises(RepositoryProblem, match="cannot be written"):
            await trip.send(0)

    asyncio.run(once())


def test_a_place_that_has_less_than_it_says_gets_all(trip):
    async def tips(*_):
        return frozenset(trip.commits[:2])

    trip.stores.tips = tips
    asyncio.run(trip.send(2))
    assert objects(trip.there, trip.commits[2])


def test_what_would_only_be_of_use_may_be_missing(trip):
    offered = {"f" * 40: "refs/codeswarm/gone/1", trip.commits[2]: "refs/heads/c2"}

    async def both():
        await trip.send(0, offered={"f" * 40: "refs/codeswarm/gone/1"})
        trip.ferry.doubt(trip.route.place, "p-uid.git")
        await trip.send(1, offered={trip.commits[2]: offered[trip.commits[2]]})

    asyncio.run(both())
    assert objects(trip.there, trip.commits[2])


def test_what_takes_long_is_told_of_and_holds_up_nobody(trip, monkeypatch):
    monkeypatch.setattr(carriages, "SLOW_SECONDS", 0.1)
    monkeypatch.setattr(carriages, "BRIEF_SECONDS", 0.01)
    put, go = trip.stores.put, asyncio.Event()

    async def slow(*args):
        await go.wait()
        await put(*args)

    trip.stores.put = slow

    async def asked():
        loop = asyncio.get_running_loop()
        with pytest.raises(NotYet) as first:
            await trip.ferry.send(trip.route, trip.load(0), TASKS[0])
        assert first.value.message == ""
        end = loop.time() + 0.15
        while loop.time() < end:
            began = loop.time()
            with pytest.raises(NotYet) as later:
                await trip.ferry.send(trip.route, trip.load(0), TASKS[1])
            assert loop.time() - began < 0.1
        assert later.value.message == "carrying the repository to ada@lab-login:/shared/codeswarm"
        go.set()
        await becomes(lambda: len(trip.woken) == 2)
        assert await trip.ferry.send(trip.route, trip.load(0), TASKS[0])

    asyncio.run(asked())
    assert set(trip.woken) == set(TASKS[:2])
    assert sorted(told.split(":")[0] for told in trip.told) == [
        "t0 RepositoryCarried",
        "t1 RepositoryCarried",
    ]


def test_work_comes_home_once_and_its_branch_moves_under_the_lease(trip):
    async def home():
        parcel = await trip.work()
        assert await trip.bring(parcel) == ""
        found = refs(trip.user)
        assert found[REF] == found["refs/heads/work"] == parcel.head
        trip.stores.calls.clear()
        trip.ferry = trip.another()
        assert await trip.bring(parcel) == ""
        assert "get" not in trip.stores.calls

    asyncio.run(home())


def test_a_branch_that_was_moved_is_left_alone_and_the_work_is_safe(trip):
    git("-C", str(trip.user), "update-ref", "refs/heads/work", trip.commits[2])

    async def home():
        parcel = await trip.work()
        told = await trip.bring(parcel)
        assert "branch work was moved by somebody else" in told
        found = refs(trip.user)
        assert (found[REF], found["refs/heads/work"]) == (parcel.head, trip.commits[2])

    asyncio.run(home())


def hook(trip, text: str) -> None:
    """Have the user's repository judge each push."""
    path = trip.user / "hooks" / "pre-receive"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_push_that_is_refused_for_a_moment_costs_no_work(trip, monkeypatch):
    monkeypatch.setattr(ferry, "PUSH_AGAIN_SECONDS", (0.01, 0.01))
    hook(trip, "test -e tried && exit 0; touch tried; echo busy >&2; exit 1")

    async def home():
        parcel = await trip.work()
        assert await trip.bring(parcel) == ""
        assert refs(trip.user)[REF] == refs(trip.user)["refs/heads/work"] == parcel.head

    asyncio.run(home())


def test_a_push_that_is_always_refused_is_given_up(trip, monkeypatch):
    monkeypatch.setattr(ferry, "PUSH_AGAIN_SECONDS", (0.01, 0.01))
    hook(trip, "echo x >> tried; exit 1")

    async def home():
        parcel = await trip.work()
        with pytest.raises(RepositoryProblem) as caught:
            await trip.bring(parcel)
        assert caught.value.reason == "PushRefused"
        assert (trip.user / "tried").read_text().count("x") == 3

    asyncio.run(home())


def test_a_commit_that_we_have_must_be_based_on_the_pinned_one_too(trip):
    async def home():
        await trip.send(0)
        parcel = await trip.work(2)
        with pytest.raises(RepositoryProblem) as caught:
            await trip.bring(replace(parcel, head=trip.commits[0]))
        assert caught.value.reason == "BundleIncomplete"
        assert "refs/heads/work" not in refs(trip.user)

    asyncio.run(home())


def test_work_that_was_brought_by_a_controller_that_died_is_taken_from_home(trip, tmp_path):
    async def home():
        parcel = await trip.work()
        await trip.bring(parcel)
        git("-C", str(trip.user), "update-ref", "-d", "refs/heads/work")
        trip.ours.rename(tmp_path / "lost")  # and its store with it
        trip.ferry = trip.another()
        trip.stores.calls.clear()
        assert await trip.bring(parcel) == ""
        assert trip.stores.calls == []
        assert refs(trip.user)["refs/heads/work"] == parcel.head

    asyncio.run(home())


def test_a_base_that_is_gone_from_the_repository_comes_home_with_the_work(trip):
    async def home():
        parcel = await trip.work(1)
        for number in (1, 2):
            git("-C", str(trip.user), "update-ref", "-d", f"refs/heads/c{number}")
        git("-C", str(trip.user), "gc", "--quiet", "--prune=now")
        trip.ours.rename(trip.ours.with_name("lost"))
        trip.ferry = trip.another()
        assert await trip.bring(parcel) == ""
        assert objects(trip.user, parcel.head)

    asyncio.run(home())


def test_fifty_results_at_once(trip):
    async def home():
        parcels = [await trip.work(ref=f"refs/codeswarm/uid-{n}/1") for n in range(50)]
        await asyncio.gather(
            *(
                until(functools.partial(trip.ferry.bring, trip.route, parcel, task))
                for parcel, task in zip(
                    [Parcel(p.ref, p.head, p.base, p.known) for p in parcels], TASKS, strict=True
                )
            )
        )
        found = refs(trip.user)
        assert all(found[parcel.ref] == parcel.head for parcel in parcels)

    asyncio.run(home())


def test_discarding_ends_what_is_under_way(trip):
    began = asyncio.Event()

    async def hang(*_):
        began.set()
        await asyncio.sleep(3600)

    trip.stores.put = hang

    async def discarded():
        with pytest.raises(NotYet):
            await trip.ferry.send(trip.route, trip.load(0), TASKS[0])
        await began.wait()
        await trip.ferry.discard(trip.stores, HANDLE, "p-uid.git")
        assert not list(trip.ours.parent.glob(".carried-*"))
        await trip.ferry.close()

    asyncio.run(discarded())


def test_what_is_under_way_for_a_project_is_left_off_wherever_it_goes(trip):
    began = asyncio.Event()

    async def hang(*_):
        began.set()
        await asyncio.sleep(3600)

    trip.stores.put = hang

    async def left():
        with pytest.raises(NotYet):
            await trip.ferry.send(trip.route, trip.load(0), TASKS[0])
        await began.wait()
        await trip.ferry.leave_off("other.git")
        assert list(trip.ours.parent.glob(".carried-*"))
        await trip.ferry.leave_off("p-uid.git")
        assert not list(trip.ours.parent.glob(".carried-*"))
        await trip.ferry.close()

    asyncio.run(left())


def test_what_a_killed_controller_left_is_removed(trip):
    left = trip.ours.parent / ".carried-old"
    left.mkdir(parents=True)
    (left / "bundle").write_text("half")
    asyncio.run(trip.send(0))
    assert not list(trip.ours.parent.glob(".carried-*"))


def test_a_result_waits_for_those_who_asked_for_it(monkeypatch):
    monkeypatch.setattr(carriages, "BRIEF_SECONDS", 0.01)

    async def asked():
        woken: list[Key] = []
        runs: list[int] = []
        go = asyncio.Event()
        many = Carriages(woken.append, lambda *_: None)

        async def work() -> str:
            runs.append(1)
            await go.wait()
            return str(len(runs))

        for task in TASKS[:3]:
            with pytest.raises(NotYet):
                await many.result("name", "it", work, task)
        go.set()
        await becomes(lambda: len(woken) == 3)
        assert [await many.result("name", "it", work, task) for task in TASKS[:3]] == ["1"] * 3
        assert await many.result("name", "it", work, TASKS[0]) == "2"  # who asks anew

    asyncio.run(asked())


@contextmanager
def served(folder: Path):
    """A web server for a folder (git's dumb protocol); its URL."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def web(trip, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    git("-C", str(trip.user), "update-server-info")
    with served(trip.user.parent) as url:
        trip.url = f"{url}/user.git"
        yield url


def test_what_can_be_cloned_there_is_not_sent(trip, web):
    asyncio.run(trip.send(1))
    assert "clone" in trip.stores.calls and "put" not in trip.stores.calls
    assert objects(trip.there, trip.commits[1])
    assert not trip.ours.exists()


def test_what_cannot_be_cloned_there_is_sent_and_not_asked_for_again(trip, web):
    async def clone(*_):
        trip.stores.calls.append("clone")
        raise ProviderError("CloneFailed", "no way out of the cluster")

    trip.stores.clone = clone

    async def twice():
        await trip.send(0)
        await trip.send(1)

    asyncio.run(twice())
    assert trip.stores.calls.count("clone") == 1
    assert objects(trip.there, trip.commits[1])


def test_a_clone_that_is_refused_says_why(trip, web):
    trip.url = f"{web}/nothing.git"

    async def once():
        with pytest.raises(ProviderError) as caught:
            await trip.stores.clone(HANDLE, "p-uid.git", trip.url, "c0", trip.commits[0])
        assert caught.value.reason == "CloneFailed"
        assert "cannot be read from the login host" in str(caught.value)

    asyncio.run(once())
    assert bundle_of(trip.user, trip.user.parent / "b", [trip.commits[0]], []).exists()
