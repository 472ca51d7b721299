"""Workers on EC2, of a controller on Kubernetes: the key comes from a Secret."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cloud.machines import Cloud, cloud
from tests.kube import KubeLab
from tests.lab import git, project, refs, swarm, work
from tests.on_aws.lab import BEATS

__all__ = ["cloud"]
QUICK = ("-m", "tests.on_aws.quick")


def secret(cloud: Cloud) -> dict[str, Any]:
    """The private half of the key pair."""
    data = base64.b64encode(cloud.key.read_bytes()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "cloud-key"},
        "data": {"id": data},
    }


def place(cloud: Cloud, **more: Any) -> dict[str, Any]:
    """A provider block without any file of the controller's machine."""
    volume = {"sizeGib": 8, "deleteOnTermination": True}
    given = cloud.parameters(workersPerInstance=2, volume=volume)
    del given["identityFile"]
    given["sshKeyFrom"] = {"secretKeyRef": {"name": "cloud-key", "key": "id"}}
    return {"aws": {**given, **more}}


@pytest.fixture
def lab(kube: KubeLab, cloud: Cloud) -> Iterator[KubeLab]:
    """A controller whose settings let manifests name the test cloud."""
    settings = {"aws": {"endpoints": [cloud.url], "instanceProfiles": ["codeswarm-worker"]}}
    kube.home.config.write_text(json.dumps(settings))
    kube.start(program=QUICK, **cloud.environment())
    yield kube
    kube.close()


def test_a_project_on_ec2_from_a_manifest_to_nothing_left(lab: KubeLab, cloud: Cloud) -> None:
    """The key comes after the swarm; the object stays until every machine is gone."""
    path = lab.path / "repo.git"
    git("init", "--quiet", "--bare", "--initial-branch=main", str(path))
    lab.apply(swarm(replicas=3, provider=place(cloud), **BEATS))
    lab.wait(
        lambda: "cloud-key" in str(lab.status("Swarm", "builders").get("conditions")),
        "the Secret to be missed",
    )
    tasks = [work("a"), work("b"), work("c", depends_on=["a", "b"])]
    where = {"url": str(path), "baseBranch": "main"}
    lab.apply(
        secret(cloud),
        project(repository=where, tasks=tasks, integration={"verify": ["test -f c.txt"]}),
    )
    lab.wait_phase("Project", "demo", "Completed", deadline=90)
    assert "refs/heads/codeswarm/demo/integration" in refs(path)
    assert len(cloud.live()) == 2
    namespace = lab.cluster.request("GET", f"/api/v1/namespaces/{lab.namespace}")["metadata"]
    homes = {told["tags"]["codeswarm.dev/home"] for told in cloud.instances().values()}
    assert homes == {namespace["uid"]}
    shown = str(lab.status("Swarm", "builders"))
    assert "PRIVATE KEY" not in shown
    lab.delete("Project", "demo")
    lab.wait_gone("Project", "demo")
    cloud.set(ending_seconds=2.0)
    lab.delete("Swarm", "builders")
    lab.wait(lambda: lab.status("Swarm", "builders").get("reason") == "InstancesEnding", "the end")
    assert cloud.live()
    lab.wait_gone("Swarm", "builders")
    assert cloud.leftovers() == []
    assert "Traceback" not in lab.text() and "PRIVATE KEY" not in lab.text()


def test_what_the_settings_do_not_allow(lab: KubeLab, cloud: Cloud) -> None:
    """Whoever may create a Swarm does not choose where the controller's credentials are sent."""
    lab.apply(
        secret(cloud),
        {
            **swarm(provider=place(cloud, endpointUrl="http://127.0.0.1:9")),
            "metadata": {"name": "a"},
        },
        {**swarm(provider=place(cloud, iamInstanceProfile="admin")), "metadata": {"name": "b"}},
        {**swarm(provider={"aws": cloud.parameters()}), "metadata": {"name": "c"}},
    )
    for name, type, reason in (
        ("a", "Accepted", "EndpointNotAllowed"),
        ("b", "Accepted", "InstanceProfileNotAllowed"),
        ("c", "Available", "NotInThisHome"),
    ):
        lab.wait(
            lambda n=name, t=type, r=reason: lab.condition("Swarm", n, t).get("reason") == r, reason
        )
    assert cloud.counts().get("RunInstances", 0) == 0


def test_force_after_a_crash_ends_a_machine_that_hangs(lab: KubeLab, cloud: Cloud) -> None:
    termination = {"gracePeriodSeconds": 600, "archive": True}
    lab.apply(secret(cloud), swarm(replicas=1, provider=place(cloud), termination=termination))
    lab.wait(lambda: lab.status("Swarm", "builders").get("readyReplicas"), "a worker", 90)
    lab.kill()
    (machine,) = cloud.machines()
    cloud.freeze(machine)
    change = {"metadata": {"annotations": {"codeswarm.dev/force": "true"}}}
    lab.patch("Swarm", "builders", change)
    lab.delete("Swarm", "builders")
    lab.start(program=QUICK, **cloud.environment())
    lab.wait_gone("Swarm", "builders")
    assert cloud.live() == []
    (volume,) = cloud.leftovers()
    assert volume.startswith("vol-"), "it holds what was to be archived"
