"""The verbs on a cluster."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.following import Follower
from cli.kube_client import KubeClient
from cli.kube_config import place
from controller.store.base import Key
from controller.store.kube_rest import path_of
from tests.cli.samples import (
    attempt,
    condition,
    project,
    prompt,
    swarm,
    task,
)
from tests.cluster.at_work import running
from tests.cluster.cli import Line
from tests.kube import wait


def lease(cs: Line, **spec: Any) -> None:
    """The Lease of a controller that serves the namespace."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    body = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": "codeswarm-controller",
            "annotations": {"codeswarm.dev/epoch": "12"},
        },
        "spec": {"holderIdentity": "me", "renewTime": now, "leaseDurationSeconds": 300, **spec},
    }
    cs.cluster.request("POST", path_of("Lease", cs.namespace), body)


# --- looking ----------------------------------------------------------------------------------


def test_get_in_all_its_forms(cs: Line) -> None:
    running(cs)
    table = cs.ok("get", "swarms,projects")
    assert "swarm.codeswarm.dev/builders" in table
    assert "2/2" in table
    assert cs.ok("get", "tasks", "-o", "name").splitlines() == [
        "task.codeswarm.dev/greeter.command",
        "task.codeswarm.dev/greeter.library",
    ]
    chosen = cs.ok("get", "tasks", "-l", "codeswarm.dev/project=greeter", "--no-headers")
    assert chosen.count("greeter.") == 2
    assert cs.ok("get", "project", "greeter", "-o", "jsonpath={.status.progress}") == "0/2"
    found = json.loads(cs.ok("get", "swarm/builders", "-o", "json"))
    assert found["kind"] == "Swarm"
    assert "managedFields" not in found["metadata"]
    everywhere = cs("get", "tasks", "-A")
    assert f"{cs.namespace} " in everywhere.stdout
    missing = cs("get", "swarm", "bilders")
    assert missing.exit_code == 1
    assert 'did you mean "builders"?' in missing.stderr
    assert cs("get", "approvals").stderr == f"No resources found in {cs.namespace} namespace.\n"


def test_the_namespace_is_the_contexts_own(cs: Line, tmp_path: Path) -> None:
    import yaml

    cs.create(swarm())
    config = yaml.safe_load(Path(cs.kubeconfig).read_text())
    for entry in config["contexts"]:
        entry["context"]["namespace"] = cs.namespace
    file = tmp_path / "there"
    file.write_text(yaml.safe_dump(config))
    command = ["get", "swarms", "--kubeconfig", str(file)]
    from click.testing import CliRunner

    from cli.main import cli

    assert "builders" in CliRunner(env=cs.environment).invoke(cli, command).stdout


def test_describe_with_events(cs: Line) -> None:
    running(cs)
    uid = cs.get("Task", "greeter.library")["metadata"]["uid"]
    about = {"apiVersion": "codeswarm.dev/v1alpha1", "kind": "Task", "name": "greeter.library",
             "namespace": cs.namespace, "uid": uid}  # fmt: skip
    at = "2026-01-01T00:00:00Z"
    event = {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "one", "namespace": cs.namespace},
        "involvedObject": about, "type": "Normal", "reason": "Assigned", "message": "to builders/0",
        "firstTimestamp": at, "lastTimestamp": at, "count": 2,
    }  # fmt: skip
    cs.cluster.request("POST", path_of("Event", cs.namespace), event)
    other = {**event, "metadata": {"name": "two", "namespace": cs.namespace}, "reason": "Foreign",
             "involvedObject": {**about, "apiVersion": "tekton.dev/v1"}}  # fmt: skip
    cs.cluster.request("POST", path_of("Event", cs.namespace), other)
    text = cs.ok("describe", "task", "greeter.library")
    assert "Assigned" in text
    assert "(x2 over" in text
    assert "Foreign" not in text
    assert "builders/0" in text
    hidden = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
              "stringData": {"key": "hush-hush"}}  # fmt: skip
    cs.ok("apply", "-f", cs.file("secret.yaml", hidden))
    described = cs.ok("describe", "secret", "s")
    assert "hush" not in described
    assert "aHVzaC1odXNo" not in described


def test_explain_status_top_and_preview(cs: Line) -> None:
    running(cs)
    text = cs.ok("explain", "task/greeter.command")
    assert "task/greeter.library" in text
    assert "no controller runs, so nothing will change: look at it with `kubectl" in text
    assert "greeter.library" in cs.ok("explain", "project/greeter")
    assert "replicas <integer>" in cs.ok("explain", "swarm.spec.replicas")
    lines = cs.ok("status").splitlines()
    assert lines[0].startswith("Controller  stopped (there is no Lease")
    assert (
        lines[1] == f"Context     {cs.environment['CODESWARM_CONTEXT']}, namespace {cs.namespace}"
    )
    assert any("builders" in one and "2/2" in one for one in lines)
    assert "builders/0" in cs.ok("status", "builders")
    assert "builders" in cs.ok("top", "--once")
    preview = cs("project", "resume-preview", "greeter")
    assert "greeter.library" in preview.stdout
    assert "no controller runs; this happens once one does" in preview.stderr
    assert "local" in cs.ok("providers")
    assert "builders" in cs.ok("list")


def test_a_controller_that_serves_the_namespace(cs: Line) -> None:
    lease(cs)
    assert cs.ok("status").splitlines()[0] == (
        f"Controller  running (me in namespace {cs.namespace}, epoch 12)"
    )
    result = cs("apply", "-f", cs.file("swarm.yaml", swarm()))
    assert (result.exit_code, result.stderr) == (0, "")


def test_doctor(cs: Line) -> None:
    text = cs.ok("doctor")
    assert f"OK    server      {cs.cluster.server}" in text
    assert "OK    kinds       codeswarm.dev/v1alpha1 is served" in text
    assert f"OK    rights      read and change in namespace {cs.namespace}, approve" in text
    assert "WARN  controller  there is no Lease" in text
    assert "WARN  transcripts" in text


# --- changing -----------------------------------------------------------------------------------


def test_verbs_that_change_one_field(cs: Line) -> None:
    running(cs)
    assert cs.ok("scale", "swarm/builders", "--replicas", "4") == (
        "swarm.codeswarm.dev/builders scaled\n"
    )
    assert cs.get("Swarm", "builders")["spec"]["replicas"] == 4
    assert cs.get("Swarm", "builders")["status"]["ready"] == "2/2"
    cs.ok("suspend", "project/greeter")
    assert cs.get("Project", "greeter")["spec"]["suspend"] is True
    cs.ok("resume", "project/greeter")
    assert cs.get("Project", "greeter")["spec"]["suspend"] is False
    refused = cs("retry", "greeter.library")
    assert refused.exit_code == 1
    assert "is Running" in refused.stderr
    cs.ok("cancel", "greeter.library")
    assert cs.get("Task", "greeter.library")["spec"]["cancel"] is True
    cs.set_status("Task", "greeter.library", phase="Cancelled")
    cs.ok("retry", "greeter.library")
    after = cs.get("Task", "greeter.library")
    assert after["spec"]["cancel"] is False
    assert after["metadata"]["annotations"]["codeswarm.dev/retry"]
    missing = cs("scale", "nobody", "--replicas", "1")
    assert missing.exit_code == 1
    assert 'swarm "nobody" not found' in missing.stderr


def test_what_the_server_refuses_of_a_change_is_told(cs: Line) -> None:
    cs.create(swarm())
    result = cs("scale", "builders", "--replicas", "100000000")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: Swarm/builders: spec.replicas: ")


def test_prompts_and_launches(cs: Line) -> None:
    missing = cs("prompt", "builders", "Hello")
    assert missing.exit_code == 1
    assert 'swarm "builders" not found' in missing.stderr
    assert "created" in cs.ok("launch", "builders", "--runtime", "mock", "--nodes", "2", "--detach")
    again = cs("launch", "builders", "--runtime", "mock", "--detach")
    assert again.exit_code == 1
    assert "already exists" in again.stderr
    assert "created" in cs.ok("prompt", "builders", "Hello", "--name", "hello", "--priority", "3")
    assert "unchanged" in cs.ok("prompt", "builders", "Hello", "--name", "hello")
    assert cs("prompt", "builders", "Other", "--name", "hello").exit_code == 1
    spec = cs.get("Task", "hello")["spec"]
    assert spec["target"] == {"swarm": "builders", "workers": "idle"}
    assert spec["priority"] == 3


# --- waiting and watching ---------------------------------------------------------------------


def test_wait_and_its_exit_codes(cs: Line) -> None:
    running(cs)
    late = cs("wait", "--for=condition=Complete", "project/greeter", "--timeout", "0.2")
    assert late.exit_code == 3
    done = threading.Timer(0.3, lambda: cs.set_status(
        "Project", "greeter", phase="Completed",
        conditions=[{**condition("Complete", "True"), "observedGeneration": 1}]))  # fmt: skip
    done.start()
    text = cs.ok("wait", "--for=condition=Complete", "project/greeter", "--timeout", "20s")
    done.join()
    assert text == "project.codeswarm.dev/greeter condition met\n"
    cs.set_status(
        "Task", "greeter.library", phase="Failed", conditions=[condition("Failed", "True")]
    )
    failed = cs("wait", "--for=phase=Succeeded", "task/greeter.library")
    assert failed.exit_code == 4


def test_a_deletion_is_noticed(cs: Line) -> None:
    running(cs)
    words = ["wait", "--for=delete", "task/greeter.library", "--timeout", "30s"]
    with cs.spawn(*words) as waiting:
        cs.cluster.request("DELETE", path_of("Task", cs.namespace, "greeter.library"))
        code, out, err = waiting.end()
    assert (code, out) == (0, "task.codeswarm.dev/greeter.library condition met\n"), err


def test_get_w_prints_what_changes_until_ctrl_c(cs: Line) -> None:
    running(cs)
    with cs.spawn("get", "tasks", "-w") as watching:
        first = [watching.line() for _ in range(3)]
        assert first[0].startswith("NAME")
        cs.set_status("Task", "greeter.library", phase="Succeeded", attempts=[attempt()])
        assert "Succeeded" in watching.line()
        cs.create(prompt("hello"))
        assert watching.line().startswith("hello ")
        watching.interrupt()
        code, _, err = watching.end()
    assert code == 130, err
    assert "Traceback" not in err


def test_apply_with_wait_tells_what_happens(cs: Line) -> None:
    """The follower, while another thread plays the controller."""
    for obj in (swarm(), project(), task("greeter.library")):
        cs.create(obj)
    told: list[str] = []
    client = KubeClient(place(cs.kubeconfig, None), cs.namespace)
    follower = Follower(client, client.watch(), told.append)
    keys = [Key("Swarm", cs.namespace, "builders"), Key("Project", cs.namespace, "greeter")]

    def control() -> None:
        ready = [condition("Ready", "True")]
        cs.set_status("Swarm", "builders", phase="Running", ready="2/2", conditions=ready)
        cs.set_status("Task", "greeter.library", phase="Running", attempts=[attempt()])
        ended = [attempt(state="Succeeded")]
        cs.set_status("Task", "greeter.library", phase="Succeeded", attempts=ended,
                      filesChangedCount=1)  # fmt: skip
        cs.set_status("Project", "greeter", phase="Completed", progress="1/1",
                      branch="codeswarm/greeter/integration",
                      conditions=[condition("Complete", "True")])  # fmt: skip

    follower.begin(keys)
    thread = threading.Thread(target=control)
    thread.start()
    settled = follower.run(keys, 30)
    thread.join()
    client.close()
    texts = [text.split("  ", 1)[1] for text in told]
    assert all(outcome.good for outcome in settled.values())
    assert "swarm/builders 2/2 workers ready" in texts
    assert "task/greeter.library succeeded: 1 file" in texts
    assert texts[-1].startswith("project/greeter complete (1/1)")


def test_top_where_the_output_is_no_terminal(cs: Line) -> None:
    running(cs)
    with cs.spawn("top") as top:  # no terminal: one frame
        assert "builders/0" in top.end()[1]


# --- ending -------------------------------------------------------------------------------------


def held(cs: Line, obj: dict[str, Any]) -> None:
    """An object that a controller would have to let go of."""
    metadata = {**obj["metadata"], "finalizers": ["codeswarm.dev/workers"]}
    cs.create({**obj, "metadata": metadata})


def let_go(cs: Line, name: str) -> None:
    """Play the controller: the swarm's workers have ended."""
    path = path_of("Swarm", cs.namespace, name)
    body = {"metadata": {"finalizers": None}}
    cs.cluster.request("PATCH", path, body, "application/merge-patch+json")


def test_delete_by_name_by_file_and_by_force(cs: Line) -> None:
    running(cs)
    assert cs.ok("delete", "task", "greeter.command") == (
        'task.codeswarm.dev "greeter.command" deleted\n'
    )
    missing = cs("delete", "task", "greeter.command")
    assert missing.exit_code == 1
    assert cs("delete", "task", "greeter.command", "--ignore-not-found").exit_code == 0
    cs.ok("delete", "-f", cs.file("project.yaml", project()))
    assert cs.find("Project", "greeter") is None
    held(cs, swarm("second"))
    assert cs.ok("delete", "swarm/second") == 'swarm.codeswarm.dev "second" deleting\n'
    assert "Terminating" in cs.ok("status")
    late = cs("delete", "swarm/second", "--wait", "--timeout", "0.2")
    assert late.exit_code == 3
    assert '"second" force deleting' in late.stdout
    after = cs.get("Swarm", "second")["metadata"]
    assert after["annotations"]["codeswarm.dev/force"] == "true"
    with cs.spawn("delete", "swarm/second", "--wait") as ending:
        assert "force deleting" in ending.line()
        let_go(cs, "second")
        assert ending.end()[0] == 0


def test_stop_all_ends_the_swarms_of_one_namespace(cs: Line) -> None:
    with cs.cluster.namespace("cli") as other:
        elsewhere = {**swarm("theirs"), "metadata": {"name": "theirs", "namespace": other}}
        cs.cluster.request("POST", path_of("Swarm", other), elsewhere)
        held(cs, swarm())
        with cs.spawn("stop-all", "-y") as ending:
            wait(lambda: "deletionTimestamp" in cs.get("Swarm", "builders")["metadata"], "its end")
            let_go(cs, "builders")
            code, out, err = ending.end()
        assert (code, out) == (0, "1 swarm(s) deleted, all workers have ended\n"), err
        assert cs.cluster.request("GET", path_of("Swarm", other, "theirs"))
        assert cs.ok("stop-all", "-y") == f"no swarms in namespace {cs.namespace}\n"
        asked = cs("stop-all", "-A", input="n\n")
        assert f"{other}/theirs" in asked.stdout
