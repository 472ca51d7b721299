"""Whole kinds and whole namespaces are deleted under a running controller.

Others' tests would not survive that, so there is a server for these alone:
``CODESWARM_TEST_DISPOSABLE_KUBECONFIG`` names its kubeconfig.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.resources import kinds
from tests.cluster.faulty import KubeFaultLab
from tests.cluster.test_faults_api import a_project, check_all
from tests.faults.support import USE, check_usage
from tests.kube import ApiError, Cluster, wait
from tests.lab import prompt, refs, script, swarm, work

VARIABLE = "CODESWARM_TEST_DISPOSABLE_KUBECONFIG"
CRDS = [f"crd/{kind.plural}.{kind.group}" for kind in kinds.kinds() if kind.group]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[KubeFaultLab]:
    """A namespace of a cluster whose CRDs may be deleted."""
    kubeconfig = os.environ.get(VARIABLE)
    if not kubeconfig:
        missing = f"{VARIABLE} is not set"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    cluster = Cluster(kubeconfig)
    cluster.install_crds()
    with cluster.namespace() as namespace, KubeFaultLab(cluster, namespace, tmp_path) as made:
        yield made
        made.close()
        cluster.install_crds()
    assert not made.processes()


def test_crds_go_and_come_again(lab: KubeFaultLab) -> None:
    first = lab.start()
    repository = lab.repository("first.git")
    busy = [work("a", USE), work("b", USE, "sleep: 100")]
    lab.apply(
        swarm(replicas=2, termination={"gracePeriodSeconds": 3}),
        swarm(
            "slow",
            replicas=1,
            systemPrompt=script("sleep: 100"),
            termination={"gracePeriodSeconds": 4},
        ),
        lab.project(repository, tasks=busy),
        prompt("p", script("sleep: 100")),
    )
    lab.wait(lambda: lab.state("Task", "demo.b").get("usage"), "a turn to run", 30)
    lab.wait(lambda: len(lab.workers()) == 3, "all workers", 30)
    done = lab.cluster.kubectl("delete", "--wait=false", *CRDS)
    assert done.returncode == 0, done.stderr
    wait(lambda: not lab.processes(), "the workers to end", 60)
    wait(lambda: not crds(lab), "the CRDs to go", 60)
    assert first.wait(60) == 5
    said = lab.text().splitlines()[-1]
    assert "the watches ended: the API server does not serve" in said and "apply the CRDs" in said
    assert "what is being deleted is let go" in lab.text()
    assert "refs/heads/codeswarm/demo/a" in refs(repository)
    shutil.rmtree(lab.home.transcripts)  # of tasks that are nowhere any more
    again = lab.spawn()
    wait(lambda: "waiting: the API server does not serve" in lab.text(), "it to wait")
    status, reason = lab.ready(lab.urls()[-1])
    assert status == 503 and "apply the CRDs" in reason
    lab.cluster.install_crds()
    names = a_project(lab, tasks=4)
    check_all(lab, names)
    assert again.poll() is None
    lab.check_log()


def crds(lab: KubeFaultLab) -> str:
    """The CRDs that there are."""
    return lab.cluster.kubectl("get", "--ignore-not-found", "-o", "name", *CRDS).stdout


def test_a_namespace_goes_with_running_workers(lab: KubeFaultLab) -> None:
    """Everything of it goes, and the controller of all namespaces lives on."""
    lab.serves = ["--all-namespaces"]
    controller = lab.start()
    with lab.cluster.namespace("other") as namespace:
        other = KubeFaultLab(lab.cluster, namespace, lab.path / "other")
        other.home, other._controllers = lab.home, lab._controllers
        repository = lab.repository("gone.git")
        lab.apply(
            swarm(replicas=2, termination={"gracePeriodSeconds": 3}),
            swarm("idle", replicas=1),
            lab.project(repository, tasks=[work("a", USE), work("b", USE, "sleep: 100")]),
            prompt("p", script(USE, "sleep: 100")),
            prompt("q", swarm="nobody"),
        )
        names = a_project(other, tasks=4)
        lab.wait(lambda: lab.state("Task", "demo.b").get("usage"), "a turn to run", 30)
        lab.cluster.request("DELETE", f"/api/v1/namespaces/{lab.namespace}")
        wait(lambda: not exists(lab), "the namespace to go", 90)
        assert not [w for w in lab.workers() if workspace(lab, w) == lab.namespace]
        assert not list(lab.home.workspaces.glob(f"{lab.namespace}/*"))
        said = [line for line in lab.text().splitlines() if " ERROR " in line]
        assert len(said) < 20, said
        shutil.rmtree(lab.home.transcripts / lab.namespace)
        wait(lambda: other.phase_of("Project", "demo") == "Completed", "the other's project", 60)
        for name in names:
            assert [a.get("class") for a in other.attempts(f"demo.{name}")] == [None]
        check_usage(other, "demo")
        make_again(lab)
        lab.apply(swarm(replicas=1), prompt("p", script(USE)))
        lab.wait(lambda: lab.phase_of("Task", "p") == "Succeeded", "the next life", 60)
        assert controller.poll() is None and lab.text().count("controller is up") == 1
        lab.check_log()
        for one in (lab, other):
            one.delete("Swarm", "builders")
        wait(lambda: not lab.workers(), "all workers to end", 60)
        assert lab.stop() == 0


def exists(lab: KubeFaultLab) -> bool:
    """Whether a lab's namespace is there."""
    try:
        lab.cluster.request("GET", f"/api/v1/namespaces/{lab.namespace}")
    except ApiError as error:
        assert error.status == 404, error
        return False
    return True


def make_again(lab: KubeFaultLab) -> None:
    """Another namespace of the same name."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}}
    lab.cluster.request("POST", "/api/v1/namespaces", body)


def workspace(lab: KubeFaultLab, job: str) -> str:
    """The namespace of a job, as its folder tells."""
    return lab.job_dir(job).parent.parent.name
