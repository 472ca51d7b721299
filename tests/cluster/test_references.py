"""ConfigMaps and Secrets that objects name: missing, found, changed, and not for us to read."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import tuned
from tests.cluster.cli import user
from tests.cluster.homes import ClusterHome
from tests.kube import Cluster, KubeLab
from tests.lab import project, prompt, script, swarm, work

TIMES = {"controller.store.kube_references:POLL_SECONDS": 1}
RIGHTS = Path(__file__).parents[2] / "manifests" / "base" / "controller-role.yaml"


def start(lab: KubeLab) -> KubeLab:
    """With a controller that reads references again more often than others do."""
    ups = lab.text().count("controller is up")
    lab.spawn(program=("-m", tuned.__name__), **{tuned.VARIABLE: json.dumps(TIMES)})
    lab.wait(lambda: lab.text().count("controller is up") > ups, "the controller to be up")
    return lab


@pytest.fixture(scope="module")
def lab(server: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeLab]:
    """A controller with all rights, and a worker."""
    path = tmp_path_factory.mktemp("references")
    with server.namespace() as namespace, KubeLab(server, namespace, path) as lab:
        start(lab).apply(swarm(replicas=1))
        yield lab


def config_map(name: str, **data: str) -> dict[str, Any]:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name: str, **data: str) -> dict[str, Any]:
    """A Secret."""
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


def by_reference(name: str, **spec: Any) -> dict[str, Any]:
    """A prompt whose text is ``text`` of a ConfigMap of its own name."""
    obj = prompt(name, **spec)
    del obj["spec"]["prompt"]
    obj["spec"]["promptFrom"] = {"configMapKeyRef": {"name": name, "key": "text"}}
    return obj


def reads(name: str, variable: str = "FOUND", **spec: Any) -> dict[str, Any]:
    """A swarm of one worker with a variable from a Secret of its own name."""
    source = {"secretKeyRef": {"name": name, "key": "value"}}
    agent = {"runtime": "mock", "env": [{"name": variable, "valueFrom": source}]}
    return swarm(name, 1, agent=agent, **spec)


def accepted(lab: KubeLab, kind: str, name: str, reason: str) -> None:
    """Wait until an object is not accepted for exactly this reason."""
    lab.wait(
        lambda: lab.condition(kind, name, "Accepted").get("reason") == reason,
        f"{kind} {name} to have the reason {reason}",
    )
    assert lab.condition(kind, name, "Accepted")["status"] == "False"


def test_a_prompt_waits_for_its_config_map_then_for_its_key(lab: KubeLab) -> None:
    lab.apply(by_reference("words"))
    accepted(lab, "Task", "words", "ConfigMapNotFound")
    lab.apply(config_map("words", other="x"))
    accepted(lab, "Task", "words", "ConfigMapKeyNotFound")
    lab.apply(config_map("words", text=script("say: found")))
    lab.wait_phase("Task", "words", "Succeeded")
    assert lab.status("Task", "words")["answer"] == "found"


def test_a_text_is_read_again_before_it_is_sent(lab: KubeLab) -> None:
    lab.apply(config_map("fresh", text=script("say: old")), by_reference("fresh", suspend=True))
    lab.wait(lambda: lab.status("Task", "fresh").get("reason") == "Suspended", "it to wait")
    lab.apply(config_map("fresh", text=script("say: new")))
    lab.patch("Task", "fresh", {"spec": {"suspend": False}})
    lab.wait_phase("Task", "fresh", "Succeeded")
    assert lab.status("Task", "fresh")["answer"] == "new"


def test_workers_wait_for_their_secret_and_are_replaced_with_it(lab: KubeLab) -> None:
    lab.apply(reads("vault"))
    accepted(lab, "Swarm", "vault", "SecretNotFound")
    assert lab.condition("Swarm", "vault", "Ready")["reason"] == "SecretNotFound"
    lab.apply(secret("vault", other="x"))
    accepted(lab, "Swarm", "vault", "SecretKeyNotFound")
    lab.apply(secret("vault", value="first"))
    lab.wait_phase("Swarm", "vault", "Running")
    seen = script('run: "test $FOUND = second"')
    lab.apply(secret("vault", value="second"))
    lab.wait(lambda: lab.status("Swarm", "vault")["incarnations"] == 2, "another worker")
    lab.wait_phase("Swarm", "vault", "Running")
    lab.apply(prompt("told", seen, swarm="vault", retry={"limit": 0}))
    lab.wait_phase("Task", "told", "Succeeded", "Failed")
    assert lab.status("Task", "told")["phase"] == "Succeeded"
    assert "second" not in json.dumps(
        [lab.get("Swarm", "vault"), lab.get("Task", "told")["status"]]
    )


def test_workers_wait_for_their_persona_and_are_replaced_with_it(lab: KubeLab) -> None:
    persona = {"configMapRef": {"name": "persona"}}
    lab.apply(swarm("kind", 1, agent={"runtime": "mock", "persona": persona}))
    accepted(lab, "Swarm", "kind", "ConfigMapNotFound")
    lab.apply(config_map("persona", skills__x="one"))
    accepted(lab, "Swarm", "kind", "PersonaWithoutAgents")
    files = {"AGENTS.md": "Be kind.", "skills__look__SKILL.md": "one"}
    lab.apply(config_map("persona", **files))
    lab.wait_phase("Swarm", "kind", "Running")
    seen = script('run: "grep -qx two .agents/skills/look/SKILL.md"')
    lab.apply(config_map("persona", **{**files, "skills__look__SKILL.md": "two"}))
    lab.wait(lambda: lab.status("Swarm", "kind")["incarnations"] == 2, "another worker")
    lab.wait_phase("Swarm", "kind", "Running")
    lab.apply(prompt("looked", seen, swarm="kind", retry={"limit": 0}))
    lab.wait_phase("Task", "looked", "Succeeded", "Failed")
    assert lab.status("Task", "looked")["phase"] == "Succeeded"
    lab.apply(swarm("pathed", 1, agent={"runtime": "mock", "persona": {"path": "./p"}}))
    accepted(lab, "Swarm", "pathed", "NotInThisHome")


def test_a_project_waits_for_its_credentials(lab: KubeLab) -> None:
    ClusterHome(lab).repository("guarded.git")
    token = {"tokenFrom": {"secretKeyRef": {"name": "guarded", "key": "token"}}}
    where = {"url": f"{lab.path}/guarded.git", "credentials": token}
    lab.apply(project("guarded", [work("a")], repository=where))
    accepted(lab, "Project", "guarded", "SecretNotFound")
    assert lab.status("Project", "guarded")["reason"] == "SecretNotFound"
    lab.apply(secret("guarded", token="x"))
    lab.wait_phase("Project", "guarded", "Completed")


def test_a_planner_waits_for_its_specification(lab: KubeLab) -> None:
    ClusterHome(lab).repository("thought.git")
    source = {"configMapKeyRef": {"name": "thought", "key": "text"}}
    where = {"url": f"{lab.path}/thought.git", "baseBranch": "main"}
    planner = {"swarm": "builders", "specificationFrom": source}
    lab.apply(project("thought", planner=planner, repository=where))
    planned = lambda: lab.condition("Project", "thought", "Planned").get("reason")  # noqa: E731
    lab.wait(lambda: planned() == "ConfigMapNotFound", "the reason")
    graph = "plan: {tasks: [{task_id: %s, title: t, prompt: Do it.}]}"
    lab.apply(config_map("thought", text=script(graph % "one")))
    lab.wait_phase("Project", "thought", "Completed")
    lab.apply(config_map("thought", text=script(graph % "two")))
    lab.wait(lambda: lab.find("Task", "thought.two"), "another plan")
    lab.wait_phase("Project", "thought", "Completed")


def test_what_may_not_be_read_is_told_and_heals_with_the_right(
    server: Cluster, tmp_path: Path
) -> None:
    documents = list(yaml.safe_load_all(RIGHTS.read_text()))
    rules = [rule for one in documents if one["kind"] == "Role" for rule in one["rules"]]
    hidden = ("secrets", "configmaps")
    few = [rule for rule in rules if not set(rule["resources"]) & set(hidden)]
    with server.namespace() as namespace, KubeLab(server, namespace, tmp_path) as lab:
        lab.kubeconfig = user(server, namespace, tmp_path, few)
        start(lab)
        lab.apply(config_map("words", text=script("say: found")), secret("vault", value="x"))
        lab.apply(swarm(replicas=1), reads("vault"), by_reference("words"))
        ClusterHome(lab).repository("guarded.git")
        token = {"tokenFrom": {"secretKeyRef": {"name": "vault", "key": "value"}}}
        where = {"url": f"{tmp_path}/guarded.git", "credentials": token}
        lab.apply(project("guarded", [work("a")], repository=where))
        for kind, name in (("Swarm", "vault"), ("Task", "words"), ("Project", "guarded")):
            accepted(lab, kind, name, "Forbidden")
            assert "may not be read" in lab.condition(kind, name, "Accepted")["message"]
        roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/somebody"
        server.request("PATCH", roles, {"rules": rules}, "application/merge-patch+json")
        lab.wait_phase("Task", "words", "Succeeded")
        lab.wait_phase("Swarm", "vault", "Running")
        lab.wait_phase("Project", "guarded", "Completed")
        assert "Traceback" not in lab.text()
