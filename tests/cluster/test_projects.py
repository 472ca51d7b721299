"""Whole runs on a cluster: manifests by kubectl, merged branches in the repository."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.kube import KubeLab
from tests.lab import git, project, prompt, refs, swarm, work


def repository(lab: KubeLab, name: str = "repo.git") -> Path:
    """An empty bare repository."""
    path = lab.path / name
    git("init", "--quiet", "--bare", "--initial-branch=main", str(path))
    return path


def on(path: Path, **spec: Any) -> dict[str, Any]:
    """A project on a repository of this machine."""
    return project(repository={"url": str(path), "baseBranch": "main"}, **spec)


def test_a_manifest_in_merged_branches_out(kube: KubeLab) -> None:
    path = repository(kube)
    kube.start()
    tasks = [work("a"), work("b"), work("c", depends_on=["a"])]
    kube.apply(swarm(), on(path, tasks=tasks, integration={"verify": ["test -f c.txt"]}))
    done = kube.cluster.kubectl(
        "wait",
        "--for=condition=Complete",
        "project/demo",
        "--timeout=60s",
        namespace=kube.namespace,
    )
    assert done.returncode == 0, done.stderr + kube.picture()
    assert "refs/heads/codeswarm/demo/integration" in refs(path)
    tasks = {task["metadata"]["name"]: task for task in kube.list("Task")}
    assert set(tasks) == {"demo.a", "demo.b", "demo.c", "demo.integration"}
    owner = tasks["demo.a"]["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("Project", "demo", True)
    for field in tasks["demo.a"]["metadata"]["managedFields"]:
        assert field["manager"] == "codeswarm-controller"
    kube.delete("Project", "demo")
    kube.wait(lambda: not kube.list("Task"), "the tasks to follow their project", 60)
    assert "refs/heads/codeswarm/demo/integration" in refs(path)
    assert not [ref for ref in refs(path) if ref.startswith("refs/codeswarm/")]
    kube.delete("Swarm", "builders")
    kube.wait_gone("Swarm", "builders")
    assert not kube.processes()
    assert kube.stop() == 0
    assert "Traceback" not in kube.text() and "inconsistencies" not in kube.text()


def test_a_restart_adopts_what_runs(kube: KubeLab) -> None:
    kube.start()
    kube.apply(swarm(replicas=2))
    kube.wait_phase("Swarm", "builders", "Running")
    before = [kube.worker_pid("builders", index) for index in (0, 1)]
    kube.apply(prompt("slow", "Wait.\n```mock\n- sleep: 2\n```\n"))
    kube.wait_phase("Task", "slow", "Running")
    kube.kill()
    began = time.monotonic()
    kube.start()
    assert time.monotonic() - began < 10, "a controller whose process is gone is not waited for"
    kube.wait_phase("Task", "slow", "Succeeded")
    assert [kube.worker_pid("builders", index) for index in (0, 1)] == before
    assert len(kube.status("Task", "slow")["attempts"]) == 1


def test_the_scale_subresource_works(kube: KubeLab) -> None:
    kube.start()
    kube.apply(swarm(replicas=1))
    kube.wait_phase("Swarm", "builders", "Running")
    kube.cluster.kubectl("scale", "swarm/builders", "--replicas=3", namespace=kube.namespace)
    kube.wait(lambda: kube.status("Swarm", "builders").get("ready") == "3/3", "three workers")
    kube.cluster.kubectl("scale", "swarm/builders", "--replicas=1", namespace=kube.namespace)
    kube.wait(lambda: kube.status("Swarm", "builders").get("ready") == "1/1", "one worker")
    kube.wait(lambda: len(kube.processes()) == 1, "the others to be gone")
