"""Whole projects whose workers do not reach the user's repository; killed, cut off, mixed."""

from __future__ import annotations

import json
import random

import pytest

from tests.carrying.graphs import bare, objects
from tests.faults.life import life
from tests.lab import git, project, refs, swarm, work

pytestmark = pytest.mark.e2e

SAMPLES = 5
SEED = 20261126


def far(**spec):
    """A swarm of the provider that stands for a cluster."""
    place = {"slurm": {"loginHost": "lab-login", "workspaceRoot": "/shared/codeswarm"}}
    return swarm(name=spec.pop("name", "far"), provider=place, **spec)


def test_a_life(lab):
    lab.start()
    life(lab)
    repository = lab.path / "repo.git"
    records = [json.loads(line) for line in lab.mail().splitlines()]
    assert not records  # their folders are gone with the swarm
    assert not list(lab.cluster.glob("*.git"))
    assert git("-C", str(repository), "fsck", "--strict") == ""


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """How many steps an undisturbed life has."""
    from tests.carrying.conftest import FarLab

    with FarLab(tmp_path_factory.mktemp("undisturbed")) as lab:
        log = lab.start_crashing(0)
        life(lab)
        yield len(log.read_text().splitlines())


@pytest.mark.parametrize("sample", range(SAMPLES))
def test_killed_at_some_steps(lab, steps, sample):
    chosen = random.Random(SEED + sample)
    lab.start_crashing(1 + int((sample + chosen.random()) / SAMPLES * steps))
    life(lab)


@pytest.mark.parametrize(
    "point",
    [
        "before FolderStores.put#1",
        "after FolderStores.put#1",
        "before FolderStores.get#1",
        "after FolderStores.get#1",
        "before Repositories.bring#1",
        "after Repositories.bring#1",
        "after Repositories.unpack#2",
        "after FolderStores.discard#1",
    ],
)
def test_killed_between_the_steps_of_a_carriage(lab, point):
    lab.start_crashing(point)
    life(lab)
    assert (lab.path / f"steps-{point}").read_text().splitlines()[-1].endswith(point)


def test_workers_elsewhere_and_here_share_a_project(lab):
    lab.kind = "slurm"
    repository = lab.repository()
    lab.start()
    lab.apply(far(replicas=1), swarm("near", replicas=1))
    for name in ("far", "near"):
        lab.wait(lambda name=name: lab.swarm(name).get("readyReplicas") == 1, f"{name} to be ready")
    lab.apply(
        project(
            workers=[{"swarm": "far"}, {"swarm": "near"}],
            tasks=[
                work("a", "sleep: 0.5"),
                work("b", "sleep: 0.5"),
                work("c", "sleep: 0.5", depends_on=["a", "b"]),
                work("d", "sleep: 0.5", depends_on=["a", "b"]),
            ],
            integration={"verify": ["test -f a.txt -a -f b.txt -a -f c.txt -a -f d.txt"]},
        ),
    )
    lab.wait_phase("Project", "demo", "Completed")
    ran = {n: lab.task(f"demo.{n}")["attempts"][-1]["swarm"] for n in "abcd"}
    assert set(ran.values()) == {"far", "near"}
    assert objects(repository, refs(repository)["refs/heads/codeswarm/demo/integration"])
    assert lab.project("demo")["places"] == ["ada@lab-login:/shared/codeswarm"]
    far_inbox = next(lab.home.workspaces.glob("elsewhere/*/far-*/*/mailbox/inbox/*.jsonl"))
    assert str(repository) not in far_inbox.read_text()
    for line in far_inbox.read_text().splitlines():
        told = json.loads(line).get("repository")
        assert told is None or not {"branch", "expected"} & set(told)


def test_cut_off_while_the_work_is_to_come_home(lab):
    repository = lab.repository()
    lab.start()
    lab.apply(swarm(replicas=1), project(tasks=[lab.waiting("a")]))
    lab.wait_turn("demo.a")
    lab.cut.touch()
    lab.gate.touch()
    unknown = lab.wait(
        lambda: lab.condition("Task", "demo.a", "BranchDurable").get("reason") == "ConnectionLost",
        "nothing to be concluded",
    )
    assert unknown
    assert lab.condition("Task", "demo.a", "BranchDurable")["status"] == "Unknown"
    assert lab.task("demo.a")["phase"] == "Running"
    assert not [ref for ref in refs(repository) if ref.startswith("refs/codeswarm/")]
    lab.kill()
    lab.start()
    lab.cut.unlink()
    lab.wait_phase("Project", "demo", "Completed")
    assert len(lab.task("demo.a")["attempts"]) == 1


def test_a_branch_that_somebody_moved_is_left_alone(lab):
    repository = lab.repository()
    lab.start()
    lab.apply(swarm(replicas=1), project(tasks=[lab.waiting("a")]))
    lab.wait_turn("demo.a")
    theirs = lab.commit(repository, {"theirs.txt": "x"})
    git("-C", str(repository), "update-ref", "refs/heads/codeswarm/demo/a", theirs)
    lab.gate.touch()
    lab.wait_phase("Task", "demo.a", "Failed")
    assert lab.task("demo.a")["reason"] == "BranchNotOurs"
    found = refs(repository)
    assert found["refs/heads/codeswarm/demo/a"] == theirs
    (attempt,) = [ref for ref in found if ref.startswith("refs/codeswarm/")]
    assert "a.txt" in git("-C", str(repository), "ls-tree", "--name-only", found[attempt])


def test_failed_work_comes_home_too(lab):
    repository = lab.repository()
    lab.start()
    lab.apply(
        swarm(replicas=1),
        project(tasks=[work("a", "result: {status: failed}")], retry={"limit": 0}),
    )
    lab.wait_phase("Task", "demo.a", "Failed")
    attempt = lab.task("demo.a")["attempts"][-1]
    assert attempt["reason"] == "ReportedFailed"
    assert refs(repository)[attempt["ref"]] == attempt["headCommit"]


@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_a_repository_without_a_commit(lab, form):
    bare(lab.path / "repo.git", form)
    lab.start()
    lab.apply(swarm(replicas=1), project(tasks=[work("a")]))
    lab.wait_phase("Project", "demo", "Completed")
    found = refs(lab.path / "repo.git")
    assert objects(lab.path / "repo.git", found["refs/heads/codeswarm/demo/integration"])


def test_a_shallow_clone_is_refused_in_words(lab):
    origin = lab.repository("origin.git")
    lab.commit(origin, {"more": "1"})
    git("clone", "--quiet", "--bare", "--depth=1", f"file://{origin}", str(lab.path / "repo.git"))
    lab.start()
    lab.apply(swarm(replicas=1), project(tasks=[work("a")]))
    lab.wait(
        lambda: [a for a in lab.task("demo.a").get("attempts", ()) if a.get("reason")],
        "the first attempt to fail",
    )
    failed = lab.task("demo.a")["attempts"][0]
    assert (failed["reason"], failed["class"]) == ("ShallowRepository", "Infrastructure")
    assert "fetch --unshallow" in failed["message"]
    git("-C", str(lab.path / "repo.git"), "fetch", "--quiet", "--unshallow", f"file://{origin}")
    lab.wait_phase("Project", "demo", "Completed")


def test_cancelled_before_the_repository_has_come(lab):
    lab.repository()
    lab.cut.touch()
    lab.start()
    lab.apply(swarm(replicas=1), project(tasks=[work("a")]))
    lab.wait(lambda: lab.task("demo.a").get("attempts"), "an attempt")
    worker = lab.wait(lab.workers, "a worker")
    lab.patch("Task", "demo.a", lambda obj: obj["spec"].update(cancel=True))
    lab.wait_phase("Task", "demo.a", "Cancelled")
    assert lab.workers() == worker  # nobody had to be killed for it


def test_a_project_goes_and_takes_its_stores_along(lab):
    lab.repository()
    lab.start()
    lab.apply(swarm(replicas=1), project(tasks=[work("a")]))
    lab.wait_phase("Project", "demo", "Completed")
    assert list(lab.cluster.glob("*.git"))
    lab.delete("Project", "demo")
    lab.wait(lambda: lab.is_gone("Project", "demo"), "the project to go")
    assert not list(lab.cluster.glob("*.git"))


def test_a_swarm_waits_for_the_last_work_to_come_home(lab):
    repository = lab.repository()
    lab.start()
    lab.apply(swarm(replicas=1), project(tasks=[lab.waiting("a")]))
    lab.wait_turn("demo.a")
    lab.cut.touch()
    lab.gate.touch()
    lab.delete("Swarm", "builders")
    lab.wait(
        lambda: lab.condition("Swarm", "builders", "Ready").get("reason") == "BringingHome",
        "the swarm to wait",
    )
    assert "--force" in lab.condition("Swarm", "builders", "Ready")["message"]
    lab.cut.unlink()
    lab.wait(lambda: lab.is_gone("Swarm", "builders"), "the swarm to go")
    assert lab.task("demo.a")["phase"] == "Succeeded"
    assert [ref for ref in refs(repository) if ref.startswith("refs/codeswarm/")]


def test_a_store_that_no_swarm_leads_to_any_more_is_named(lab):
    lab.repository()
    lab.start()
    lab.apply(swarm(replicas=1), project(tasks=[work("a")]))
    lab.wait_phase("Project", "demo", "Completed")
    (store,) = lab.cluster.glob("*.git")
    lab.cut.touch()
    lab.patch(
        "Swarm",
        "builders",
        lambda obj: obj["metadata"]["annotations"].update({"codeswarm.dev/force": "true"}),
    )
    lab.delete("Swarm", "builders")
    lab.wait(lambda: lab.is_gone("Swarm", "builders"), "the swarm to go")
    lab.delete("Project", "demo")
    lab.wait(lambda: lab.is_gone("Project", "demo"), "the project to go")
    (kept,) = [e for e in lab.db.events() if e.reason == "StoreKept"]
    assert f"stores/{store.name} at ada@lab-login:/shared/codeswarm" in kept.message


def test_work_of_a_worker_that_died_after_its_push_comes_home(lab):
    repository = lab.repository()
    lab.start()
    lab.apply(swarm(replicas=1), project(tasks=[lab.waiting("a")]))
    lab.wait_turn("demo.a")
    lab.cut.touch()  # so that the attempt is not settled before the worker dies
    lab.gate.touch()
    lab.wait(
        lambda: lab.condition("Task", "demo.a", "BranchDurable").get("status") == "Unknown",
        "the end of the turn",
    )
    for processes in lab.workers().values():
        for process in processes:
            process.kill()
    lab.cut.unlink()
    lab.wait_phase("Project", "demo", "Completed")
    assert refs(repository)[lab.task("demo.a")["attempts"][0]["ref"]]
    assert len(lab.task("demo.a")["attempts"]) == 1
