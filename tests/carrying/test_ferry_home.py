"""Work comes home from the workers' side, once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import replace

import pytest

from controller.reconcile import ferry
from controller.reconcile.ferry import Parcel
from controller.repository.problems import RepositoryProblem
from tests.carrying.graphs import objects
from tests.carrying.trip import REF, TASKS, until
from tests.lab import git, refs


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
