"""What people and tools expect of resources: kubectl, kstatus, GitOps, events, quiet statuses."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from controller.resources import kinds
from controller.resources.conditions import OWNED
from tests.cluster.history import History, size
from tests.cluster.kstatus import status_of
from tests.cluster.world import World
from tests.kube import Cluster, KubeLab, wait
from tests.lab import project, prompt, refs, script, swarm, work

pytestmark = pytest.mark.timeout(180)
WATCHED = ("Swarm", "Project", "Task", "Approval")
QUIET_SECONDS = 6.0
"""Longer than the time between two looks at a swarm, or at a repository that is not there."""
ASKING = {"runtime": "mock", "approvalPolicy": "on-request"}


@pytest.fixture(scope="module")
def world(server: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One controller for all, with a swarm and some objects at their ends."""
    path = tmp_path_factory.mktemp("contract")
    with (
        server.namespace() as namespace,
        History(server, namespace, WATCHED) as history,
        KubeLab(server, namespace, path) as lab,
    ):
        lab.start()
        world = World(lab, history)
        tasks = [work("a"), work("b", depends_on=["a"]), work("c")]
        broken = [work("a", 'run: "exit 3"'), work("b", depends_on=["a"])]
        lab.apply(
            swarm(replicas=3, agent=ASKING),
            {**swarm("refused"), "spec": {"className": "nowhere"}},
            world.project("done", *tasks),
            world.project("broken", *broken),
            project("absent", [work("a")], repository={"url": f"{path}/absent.git"}),
            prompt("hello"),
        )
        lab.wait_phase("Project", "done", "Completed")
        lab.wait_phase("Project", "broken", "Failed")
        lab.wait_phase("Task", "hello", "Succeeded")
        lab.wait(lambda: lab.condition("Project", "absent", "Accepted"), "a look at absent")
        yield world
    assert not history.problems


# --- kubectl ------------------------------------------------------------------------------------


def test_wait(world: World) -> None:
    for condition, target in (
        ("Complete", "project/done"),
        ("Ready", "swarm/builders"),
        ("Stalled", "project/broken"),
        ("Failed", "task/broken.a"),
        ("BranchDurable", "task/done.a"),
    ):
        world.kubectl("wait", f"--for=condition={condition}", target, "--timeout=20s")
    world.kubectl("wait", "--for=condition=Stalled", "project/done", "--timeout=0", code=1)
    world.lab.apply(prompt("brief", ttlSecondsAfterFinished=0.5))
    world.kubectl("wait", "--for=delete", "task/brief", "--timeout=20s")


def test_get_w_shows_the_transitions(world: World) -> None:
    command = [*world.lab.cluster.command(world.lab.namespace), "get", "tasks", "-w"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        try:
            assert watching.stdout is not None
            assert watching.stdout.readline().startswith("NAME")
            world.lab.apply(prompt("seen", script("sleep: 1")))
            seen = []
            for line in watching.stdout:
                if line.startswith("seen "):
                    seen.append(line.split()[1])
                if seen[-1:] == ["Succeeded"]:
                    break
        finally:
            watching.kill()
    shown = [phase for phase, before in pairs(seen) if phase != before]
    assert shown[-2:] == ["Running", "Succeeded"]


def pairs(values: list[str]) -> Iterator[tuple[str, str]]:
    """Each value with the one before it."""
    return zip(values, ["", *values], strict=False)


@pytest.mark.parametrize("field", ["swarm.spec.replicas", "project.spec.tasks", "task.status"])
def test_explain(server: Cluster, field: str) -> None:
    """The server publishes the CRDs' descriptions a moment after the CRDs."""
    kubeconfig = os.environ.get("CODESWARM_TEST_EXPLAIN_KUBECONFIG")
    explaining = Cluster(kubeconfig) if kubeconfig else server
    explaining.install_crds()
    kind, *path = field.split(".")
    node = kinds.open_api_schema(kind.capitalize())
    for name in path:
        node = node["properties"][name]
    said = " ".join(node["description"].split())
    wait(lambda: said in " ".join(explaining.kubectl("explain", field).stdout.split()), said, 60)


def test_diff_and_a_dry_run(world: World) -> None:
    manifest = yaml.safe_dump(world.lab.get("Project", "done")["spec"])
    whole = {**project("done"), "spec": yaml.safe_load(manifest)}
    assert world.kubectl("diff", "-f", "-", text=yaml.safe_dump(whole)) == ""
    whole["spec"]["maxParallel"] = 2
    text = yaml.safe_dump(whole)
    assert "+  maxParallel: 2" in world.kubectl("diff", "-f", "-", text=text, code=1)
    before = world.lab.get("Project", "done")
    world.kubectl("apply", "--dry-run=server", "-f", "-", text=text)
    whole["spec"]["maxParallel"] = 0
    text = yaml.safe_dump(whole)
    said = world.kubectl("apply", "--dry-run=server", "-f", "-", text=text, code=1)
    assert "spec.maxParallel" in said
    assert world.lab.get("Project", "done") == before


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("Swarm", {"builders": "Running 3/3 mock", "refused": "Pending SwarmClassNotFound"}),
        ("Project", {"done": "Completed 3/3 codeswarm/done/integration", "absent": "Pending 0/1"}),
        ("Task", {"done.a": "Succeeded done 1 codeswarm/done/a", "broken.b": "DependencyFailed"}),
    ],
)
def test_columns(world: World, kind: str, rows: dict[str, str]) -> None:
    known = kinds.get(kind)
    header, *lines = world.kubectl("get", known.short_names[0], "-o", "wide").splitlines()
    assert header.split() == ["NAME", *(column.name for column in known.columns)]
    by_name = {line.split()[0]: line.split() for line in lines}
    for name, words in rows.items():
        assert set(words.split()) <= set(by_name[name]), by_name[name]
    short = world.kubectl("get", known.plural).splitlines()[0]
    assert short.split() == ["NAME", *(c.name for c in known.columns if not c.priority)]


def test_scale(world: World) -> None:
    lab = world.lab
    scale = f"/apis/{kinds.API_VERSION}/namespaces/{lab.namespace}/swarms/builders/scale"
    for replicas in (4, 3):
        world.kubectl("scale", "swarm/builders", f"--replicas={replicas}")
        lab.wait(lambda n=replicas: lab.status("Swarm", "builders")["replicas"] == n, "that many")
        world.kubectl("wait", "--for=condition=Ready", "swarm/builders", "--timeout=20s")
        told = lab.cluster.request("GET", scale)
        assert told["status"]["replicas"] == told["spec"]["replicas"] == replicas
        assert told["status"]["selector"] == "codeswarm.dev/swarm=builders"


def test_patches(world: World) -> None:
    lab = world.lab
    lab.apply(prompt("paused", suspend=True), prompt("long", script("sleep: 100")))
    lab.wait(lambda: lab.status("Task", "paused").get("reason") == "Suspended", "it to be paused")
    lab.wait_phase("Task", "long", "Running")

    def patch(name: str, change: str, code: int = 0) -> str:
        return world.kubectl("patch", "task", name, "--type=merge", "-p", change, code=code)

    patch("paused", '{"spec": {"priority": 7}}')
    lab.wait(lambda: lab.status("Task", "paused")["observedGeneration"] == 2, "it to be seen")
    assert "cannot be changed" in patch("paused", '{"spec": {"prompt": "x"}}', code=1)
    patch("paused", '{"spec": {"suspend": false}}')
    lab.wait_phase("Task", "paused", "Succeeded")
    patch("long", '{"spec": {"cancel": true}}')
    lab.wait_phase("Task", "long", "Cancelled")


def test_labels_select(world: World) -> None:
    names = world.kubectl("get", "tasks", "-l", "codeswarm.dev/project=done", "-o", "name")
    assert {line.partition("/")[2] for line in names.split()} == {
        "done.a", "done.b", "done.c", "done.integration",
    }  # fmt: skip


def test_a_deleted_project_takes_its_tasks_and_questions_along(world: World) -> None:
    lab = world.lab
    asks = 'ask: {command: "echo x"}'
    lab.apply(world.project("leaving", work("a"), work("b", asks, depends_on=["a"])))
    lab.wait(lambda: lab.list("Approval"), "the question")
    labelled = world.kubectl("get", "approvals", "-l", "codeswarm.dev/swarm=builders", "-o", "name")
    assert "leaving.b.1." in labelled
    world.kubectl("delete", "project", "leaving", "--timeout=60s")
    own = "codeswarm.dev/project=leaving"
    lab.wait(lambda: not world.kubectl("get", "tasks", "-l", own), "its tasks to follow", 60)
    lab.wait(lambda: not lab.list("Approval"), "the question to follow", 60)
    left = refs(world.home.root / "leaving.git")
    assert "refs/heads/codeswarm/leaving/a" in left
    assert not [ref for ref in left if ref.startswith("refs/codeswarm/")]


# --- tools ----------------------------------------------------------------------------------------


def test_whoever_applies_twice_changes_nothing_and_meets_nobody(world: World) -> None:
    lab, name = world.lab, "steady"
    manifest = world.project(name, work("a"), title="Steady")
    manifest["metadata"]["labels"] = {"kustomize.toolkit.fluxcd.io/name": "apps"}
    own = swarm("steady", 0)
    del own["spec"]["replicas"]
    text = yaml.safe_dump_all([manifest, own])
    apply = ["apply", "--server-side", "--field-manager=gitops", "-f", "-"]
    world.kubectl(*apply, text=text)
    lab.wait_phase("Project", name, "Completed")
    world.kubectl("scale", "swarm/steady", "--replicas=2")
    lab.wait(lambda: lab.status("Swarm", name).get("ready") == "2/2", "it to be scaled")
    before = {kind: lab.get(kind, name) for kind in ("Project", "Swarm")}
    world.kubectl(*apply, text=text)
    assert (
        world.kubectl("diff", "--server-side", "--field-manager=gitops", "-f", "-", text=text) == ""
    )
    for kind, obj in before.items():
        after = lab.get(kind, name)
        assert after["spec"] == obj["spec"]
        assert after["metadata"]["generation"] == obj["metadata"]["generation"]
        assert after["metadata"]["resourceVersion"] == obj["metadata"]["resourceVersion"]
        fields = owned(after, "codeswarm-controller")
        assert not any("f:spec" in part for part in fields), fields
        for part in fields:
            assert set(part) <= {"f:metadata", "f:status"}
            assert set(part.get("f:metadata", {})) <= {"f:finalizers"}


def owned(obj: dict[str, Any], manager: str) -> list[dict[str, Any]]:
    """The fields of an object that somebody has set."""
    managed = obj["metadata"]["managedFields"]
    return [one["fieldsV1"] for one in managed if one["manager"] == manager]


def test_what_a_planner_makes_is_nobodys_drift(world: World) -> None:
    lab, tracking = world.lab, {"argocd.argoproj.io/tracking-id": "apps:codeswarm.dev/Project:x"}
    plan = script("plan: {tasks: [{task_id: one, title: One, prompt: Do it.}]}")
    manifest = world.project("planned", planner={"swarm": "builders", "specification": plan})
    manifest["metadata"].update(labels={"app.kubernetes.io/instance": "apps"}, annotations=tracking)
    lab.apply(manifest)
    lab.wait_phase("Project", "planned", "Completed")
    uid = lab.get("Project", "planned")["metadata"]["uid"]
    made = [lab.get("ConfigMap", "planned.plan-1")]
    made += [lab.get("Task", f"planned.{name}") for name in ("plan", "one", "integration")]
    for obj in made:
        metadata = obj["metadata"]
        assert [owner["uid"] for owner in metadata["ownerReferences"]] == [uid]
        assert set(metadata["labels"]) == {"codeswarm.dev/project"}
        assert all(key.startswith("codeswarm.dev/") for key in metadata["annotations"])
        assert {one["manager"] for one in metadata["managedFields"]} == {"codeswarm-controller"}


def test_kstatus(world: World) -> None:
    lab = world.lab
    for kind, name, wanted in (
        ("Swarm", "builders", "Current"),
        ("Swarm", "refused", "InProgress"),
        ("Project", "done", "Current"),
        ("Project", "broken", "Failed"),
        ("Project", "absent", "Current"),
        ("Task", "done.a", "Current"),
        ("Task", "broken.b", "Current"),
    ):
        assert status_of(lab.get(kind, name)) == wanted, name
    lab.apply(swarm("brisk", 1))
    world.kubectl("wait", "--for=condition=Ready", "swarm/brisk", "--timeout=20s")
    lab.patch("Swarm", "brisk", {"spec": {"replicas": 2}})
    lab.wait(lambda: lab.status("Swarm", "brisk").get("ready") == "2/2", "both")
    lab.delete("Swarm", "brisk")
    lab.wait_gone("Swarm", "brisk")
    told = [status_of(obj) for obj in world.history.life("Swarm", "brisk").versions]
    once = [now for now, before in pairs(told) if now != before]
    first = once.index("InProgress")  # before the first look there is nothing to go by
    assert once[first:] == ["InProgress", "Current", "InProgress", "Current", "Terminating"]


# --- events and writes ---------------------------------------------------------------------------


def test_events_tell_transitions_once(world: World) -> None:
    assert sorted(world.events("Project", "done")) == [
        ("Normal", "Completed", 1), ("Normal", "Integrating", 1), ("Normal", "Running", 1),
    ]  # fmt: skip
    assert sorted(world.events("Task", "broken.a")) == [("Warning", "AttemptFailed", 1)] * 2
    assert world.events("Task", "hello") == [("Normal", "Succeeded", 1)]


def test_a_repetition_is_counted(world: World) -> None:
    lab = world.lab
    lab.apply(prompt("stubborn", script('run: "exit 1"'), retry={"limit": 0}))
    for token in ("first", "second"):
        lab.wait_phase("Task", "stubborn", "Failed")
        asks = {"metadata": {"annotations": {"codeswarm.dev/retry": token}}}
        lab.patch("Task", "stubborn", asks)
        seen = lambda t=token: lab.status("Task", "stubborn").get("observedRetry") == t  # noqa: E731
        lab.wait(seen, "the retry to begin")
    lab.wait_phase("Task", "stubborn", "Failed")
    told = ("Normal", "RetryRequested", 2)
    lab.wait(lambda: told in world.events("Task", "stubborn"), "the event to be counted")
    assert [reason for _, reason, _ in world.events("Task", "stubborn")].count(told[1]) == 1


def test_a_task_is_written_six_times_at_most(world: World) -> None:
    lab = world.lab
    lab.wait(lambda: lab.status("Swarm", "builders").get("idleReplicas") == 3, "idle workers")
    lab.apply(prompt("counted"))
    lab.wait_phase("Task", "counted", "Succeeded")
    lab.delete("Task", "counted")
    lab.wait(lambda: world.history.life("Task", "counted").deleted, "it to go")
    life = world.history.life("Task", "counted")
    assert len(life.versions) <= 6, [obj.get("status") for obj in life.versions]
    for name in ("hello", "done.a", "done.integration"):
        life = world.history.life("Task", name)
        statuses = [after for before, after in life.pairs() if differ(before, after)]
        assert len(statuses) <= 6, statuses


def differ(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether a status was written in between."""
    return bool(before.get("status") != after.get("status"))


def test_a_great_deal_fits_into_a_small_status(world: World) -> None:
    lab = world.lab
    notes = "note " * 2000
    steps = [
        f'{{result: {{status: failed, notes: "{notes}"}}, attempt: {n}}}' for n in range(1, 11)
    ]
    names = "a-rather-long-name-of-a-file-whose-number-is-"
    steps += [f'{{run: "seq 300 | split -l 1 -a 3 -d - {names}", attempt: 11}}']
    steps += [f'{{say: "{"word " * 8000}", attempt: 11}}']
    retry = {"limit": 10, "backoffSeconds": 0, "maxBackoffSeconds": 0}
    lab.apply(world.project("great", work("a", *steps), retry=retry))
    lab.wait_phase("Project", "great", "Completed", deadline=60)
    status = lab.status("Task", "great.a")
    assert (len(status["attempts"]), status["filesChangedCount"]) == (10, 301)
    assert size(lab.get("Task", "great.a")) < 32 * 1024


def test_what_does_not_change_is_not_written(world: World) -> None:
    lab = world.lab

    def versions() -> dict[str, str]:
        found = [obj for kind in (*WATCHED, "Event") for obj in lab.list(kind)]
        return {o["metadata"]["uid"]: o["metadata"]["resourceVersion"] for o in found}

    lab.wait(lambda: stands_still(versions, 1.5), "what was begun to end")
    before, end = versions(), time.monotonic() + QUIET_SECONDS
    while time.monotonic() < end:
        assert versions() == before
        time.sleep(0.5)
    for obj in [obj for kind in WATCHED for obj in lab.list(kind)]:
        seen = {c["observedGeneration"] for c in obj["status"]["conditions"]}
        seen.add(obj["status"]["observedGeneration"])
        assert seen == {obj["metadata"]["generation"]}, obj["metadata"]["name"]


def stands_still(look: Callable[[], Any], seconds: float) -> bool:
    """Whether what is looked at is the same for a while."""
    before, end = look(), time.monotonic() + seconds
    while time.monotonic() < end:
        if look() != before:
            return False
        time.sleep(0.1)
    return True


def test_every_version_of_every_object_was_in_order(world: World) -> None:
    for life in world.history.lives():
        for obj in life.versions:
            where = f"{life.kind}/{life.name} {obj['metadata']['resourceVersion']}"
            status = obj.get("status")
            if not status:
                continue
            assert size(obj) < 32 * 1024, where
            conditions = {c["type"]: c for c in status["conditions"]}
            assert list(conditions) == list(OWNED[life.kind]), where
            assert all(c["reason"] for c in conditions.values()), where
            assert status["observedGeneration"] <= obj["metadata"]["generation"], where
            for condition in conditions.values():
                assert condition["observedGeneration"] <= status["observedGeneration"], where
        for before, after in life.pairs():
            flips = _flips(before, after)
            assert all(flips.values()), f"{life.kind}/{life.name}: {flips}"


def _flips(before: dict[str, Any], after: dict[str, Any]) -> dict[str, bool]:
    """Whether each condition's time has moved only if its status did."""
    old = {c["type"]: c for c in (before.get("status") or {}).get("conditions") or ()}
    new = {c["type"]: c for c in (after.get("status") or {}).get("conditions") or ()}
    return {
        type: (old[type]["status"] != new[type]["status"])
        == (old[type]["lastTransitionTime"] != new[type]["lastTransitionTime"])
        for type in old.keys() & new.keys()
    }
