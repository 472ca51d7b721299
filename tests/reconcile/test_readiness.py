"""Whether a task could start, and whether what it did still stands."""

from __future__ import annotations

import pytest

from controller.reconcile.readiness import explain, pool_of, stale_run, stale_success, unready
from controller.reconcile.sizes import first_bytes, fitting, last_bytes
from controller.reconcile.world import World

HEAD = {"a": "a" * 40, "b": "b" * 40}


def task(name="demo.a", phase="", revision=1, heads=None, attempt=None, **spec):
    status = {}
    if phase:
        status["phase"] = phase
    if attempt is not None:
        status["attempts"] = [
            {
                "number": 1,
                "revision": 1,
                "injectionId": "i",
                "swarm": "s",
                "worker": 0,
                "job": "j",
                "state": "Succeeded",
                **attempt,
            }
        ]
    if phase == "Succeeded":
        status["headCommit"] = (heads or HEAD).get(name.rpartition(".")[2], "c" * 40)
    status.update(spec.pop("status", {}))
    return {
        "kind": "Task",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "generation": 1,
                     "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"project": "demo", "revision": revision, **spec},
        "status": status,
    }  # fmt: skip


def project(accepted="True", **spec):
    return {
        "kind": "Project",
        "metadata": {"name": "demo", "namespace": "default", "uid": "p", "generation": 1,
                     "resourceVersion": "1"},
        "spec": {"workers": [{"swarm": "one"}, {"swarm": "two"}], **spec},
        "status": {"conditions": [{"type": "Accepted", "status": accepted, "reason": "R"}]},
    }  # fmt: skip


def world(*objects):
    made = World()
    for obj in objects:
        (made.observe_project if obj["kind"] == "Project" else made.observe_task)(obj)
    return made


def info(made, name="demo.a"):
    return next(t for t in made.tasks.values() if t.key.name == name)


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ([project(), task()], ""),
        ([task()], "ProjectNotFound"),
        ([project("Unknown"), task()], "ProjectNotAccepted"),
        ([project(suspend=True), task()], "ProjectSuspended"),
        ([project(), task(suspend=True)], "Suspended"),
        ([project(), task(cancel=True)], "NotWaiting"),
        ([project(), task(phase="Succeeded")], "NotWaiting"),
        ([project(), task(attempt={"state": "Assigned"})], "NotWaiting"),
        ([project(), task(dependsOn=["b"])], "DependencyNotFound"),
        ([project(), task(dependsOn=["b"]), task("demo.b")], "DependencyNotDone"),
        ([project(), task(dependsOn=["b"]), task("demo.b", "Failed")], "DependencyFailed"),
        ([project(), task(dependsOn=["b"]), task("demo.b", "Succeeded")], ""),
        (
            [project(), task(status={"nextAttemptAt": "2026-01-01T00:00:10Z"})],
            "Backoff",
        ),
    ],
)
def test_what_keeps_a_task_from_the_queue(objects, reason):
    made = world(*objects)
    assert unready(made, info(made), now=1767225600.0) == reason


def test_an_edit_waits_for_no_backoff():
    obj = task(
        attempt={"state": "Failed"}, revision=2, status={"nextAttemptAt": "2026-01-01T00:00:10Z"}
    )
    made = world(project(), obj)
    assert unready(made, info(made), now=1767225600.0) == ""


def test_the_planner_s_swarm_plans_and_the_workers_work():
    made = world(project(planner={"swarm": "thinkers"}), task(), task("demo.plan", type="plan"))
    assert pool_of(made, info(made)) == ("one", "two")
    assert pool_of(made, info(made, "demo.plan")) == ("thinkers",)


def test_who_waits_for_nothing_but_a_worker_says_so():
    made = world(project(), task())
    assert explain(made, info(made), now=0.0)["reason"] == "SwarmNotFound"


def done(name="demo.a", inputs=None, **more):
    depends = [{"task": n, "commit": c} for n, c in (inputs or {}).items()]
    return task(name, "Succeeded", attempt={"dependencies": depends}, dependsOn=list(inputs or {}),
                **more)  # fmt: skip


@pytest.mark.parametrize(
    ("objects", "stale"),
    [
        ([done()], False),
        ([done(revision=2)], True),
        ([done(revision=2, cancel=True)], False),
        ([done(inputs={"b": HEAD["b"]}), done("demo.b")], False),
        ([done(inputs={"b": "0" * 40}), done("demo.b")], True),
        ([done(inputs={"b": HEAD["b"]}), task("demo.b", "Waiting")], True),
        ([done(inputs={"b": HEAD["b"]}), task("demo.b", "Failed")], False),
        ([done(inputs={"b": HEAD["b"]})], False),
        ([task(phase="Failed", attempt={"state": "Failed"}, revision=2)], True),
        ([task(phase="Cancelled")], True),
        ([task(phase="Cancelled", cancel=True)], False),
    ],
)
def test_when_a_finished_task_is_done_again(objects, stale):
    made = world(project(), *objects)
    assert bool(stale_success(made, info(made))) is stale


def test_work_that_is_not_at_the_remote_is_done_again_unless_it_is_integrated():
    made = world(project(), done())
    found = next(iter(made.projects.values()))
    found.lost = frozenset({HEAD["a"]})
    assert stale_success(made, info(made))
    found.integrated = True
    assert not stale_success(made, info(made))


def test_a_turn_on_inputs_that_were_taken_back_is_superseded():
    made = world(project(), task(dependsOn=["b"]), task("demo.b", "Waiting"))
    attempt = {"dependencies": [{"task": "b", "commit": HEAD["b"]}]}
    assert stale_run(made, info(made), attempt)
    made = world(project(), task(dependsOn=["b"]), done("demo.b"))
    assert not stale_run(made, info(made), attempt)


def test_texts_are_cut_between_characters():
    assert first_bytes("aé" * 10, 4) == "aéa"
    assert last_bytes("aé" * 10, 4) == "aé"
    assert first_bytes("short", 100) == last_bytes("short", 100) == "short"
    assert fitting(["ab", "cd", "ef"], 5) == ["ab", "cd"]
    assert len(last_bytes("é" * 9000, 8192).encode()) <= 8192
