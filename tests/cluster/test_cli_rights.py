"""The verbs for users with few rights, with none, and unknown ones."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.at_work import running
from tests.cluster.cli import Line, rule, user
from tests.kube import wait


def test_somebody_who_may_only_read(cs: Line, tmp_path: Path) -> None:
    running(cs)
    kinds = ("swarms", "projects", "tasks", "approvals", "swarmclasses")
    config = user(cs.cluster, cs.namespace, tmp_path, [rule(*kinds)])
    somebody = Line(cs.cluster, cs.namespace, tmp_path, config)
    wait(lambda: somebody("get", "swarms").exit_code == 0, "the rights to be taken up")
    assert "greeter.library" in somebody.ok("get", "tasks")
    assert "Events:  <none>" in somebody.ok("describe", "task", "greeter.library")
    status = somebody.ok("status")
    assert "its Lease may not be read with these rights" in status
    assert "read only" in somebody.ok("doctor")
    for words in (["scale", "builders", "--replicas", "9"], ["delete", "swarm", "builders"],
                  ["prompt", "builders", "hello"], ["cancel", "greeter.library"],
                  ["get", "tasks", "-A"], ["get", "secrets"]):  # fmt: skip
        result = somebody(*words)
        assert result.exit_code == 1, words
        assert "forbidden" in result.stderr, words
        assert "Traceback" not in result.output
    logs = somebody("logs", "task/greeter.library")
    assert logs.exit_code == 5
    assert "services/proxy" in logs.stderr


def test_nobody_gets_nothing(cs: Line, tmp_path: Path) -> None:
    running(cs)
    somebody = Line(
        cs.cluster, cs.namespace, tmp_path, user(cs.cluster, cs.namespace, tmp_path, [])
    )
    for words in (
        ["get", "swarms"],
        ["describe", "swarm", "builders"],
        ["logs", "greeter.library"],
    ):
        result = somebody(*words)
        assert result.exit_code == 1
        assert "forbidden" in result.stderr
    doctor = somebody("doctor")
    assert doctor.exit_code == 1
    assert "FAIL  rights" in doctor.stdout


def test_a_token_that_is_not_known(cs: Line, tmp_path: Path) -> None:
    import yaml

    config = yaml.safe_load(Path(cs.kubeconfig).read_text())
    for entry in config["users"]:
        entry["user"] = {"token": "wrong"}
    file = tmp_path / "wrong"
    file.write_text(yaml.safe_dump(config))
    result = Line(cs.cluster, cs.namespace, tmp_path, str(file))("get", "swarms")
    assert result.exit_code == 5
    assert "does not accept the credentials of context" in result.stderr


def test_approving_with_the_right_to_approve(cs: Line, tmp_path: Path) -> None:
    """What codeswarm-approve gives is enough to settle approvals, and for nothing else."""
    request = {"id": "0", "kind": "command", "decisions": ["approve", "deny"], "swarm": "builders",
               "job": "j", "command": "rm x"}  # fmt: skip
    approval = {"apiVersion": "codeswarm.dev/v1alpha1", "kind": "Approval",
                "metadata": {"name": "a"}, "spec": {"request": request}}  # fmt: skip
    cs.create(approval)
    config = user(cs.cluster, cs.namespace, tmp_path,
                  [rule("approvals", verbs="get,list,watch,patch,update")])  # fmt: skip
    somebody = Line(cs.cluster, cs.namespace, tmp_path, config)
    wait(lambda: somebody("get", "approvals").exit_code == 0, "the rights to be taken up")
    assert "rm x" in somebody.ok("approvals")
    late = somebody("approve", "a", "--always")
    assert late.exit_code == 1 and "it offers approve, deny" in late.stderr
    assert "approval.codeswarm.dev/a approved" in somebody.ok("approve", "a", "--reason", "fine")
    decision = cs.get("Approval", "a")["spec"]["decision"]
    # Before Kubernetes 1.28 the server does not say who one is; the kubeconfig's name stands in.
    assert decision.pop("by")
    assert decision == {"value": "approve", "reason": "fine"}
    again = somebody("deny", "a")
    assert again.exit_code == 1 and "is answered already: approve by" in again.stderr
    assert somebody("get", "tasks").exit_code == 1
    assert somebody("delete", "approval", "a").exit_code == 1


def test_a_decision_that_comes_too_late_is_refused_by_the_server(cs: Line) -> None:
    """The rule over status and spec, as an API server evaluates it."""
    request = {"id": "0", "kind": "command", "decisions": ["approve", "deny"], "swarm": "builders",
               "job": "j"}  # fmt: skip
    for name, outcome, decided in (("late", "deny", False), ("early", "", True)):
        obj = {"apiVersion": "codeswarm.dev/v1alpha1", "kind": "Approval",
               "metadata": {"name": name}, "spec": {"request": request}}  # fmt: skip
        cs.create(obj)
        if outcome:
            cs.set_status("Approval", name, phase="Denied", outcome=outcome)
        else:
            cs.set_status("Approval", name, phase="Pending")
        patch = '{"spec":{"decision":{"value":"approve","by":"ada"}}}'
        done = cs.cluster.kubectl(
            "patch", "approval", name, "--type", "merge", "-p", patch, namespace=cs.namespace
        )
        assert (done.returncode == 0) == decided, done.stderr
        assert ("the question is settled already" in done.stderr) != decided
