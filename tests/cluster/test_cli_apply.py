"""``apply`` and ``diff`` on a cluster: as kubectl merges, all or nothing, faults in our words."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import last_applied
from tests.cli.samples import manifest, project, prompt, swarm
from tests.cluster.cli import Line, annotations, line, rule, user
from tests.kube import Cluster, wait


@pytest.fixture
def cs(server: Cluster, tmp_path: Path) -> Iterator[Line]:
    """``codeswarm`` in a namespace of its own."""
    with line(server, tmp_path) as made:
        yield made


def kubectl(cs: Line, *words: str) -> str:
    """kubectl in the same namespace; what it said."""
    done = cs.cluster.kubectl(*words, namespace=cs.namespace)
    assert done.returncode == 0, done.stderr
    return done.stdout


def secret(**data: str) -> dict[str, Any]:
    """A Secret in plain text."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": data}


def test_created_then_unchanged_then_configured(cs: Line) -> None:
    file = cs.file("all.yaml", swarm(), prompt("hello"), secret(key="v"))
    first = cs("apply", "-f", file)
    assert first.stdout.splitlines() == [
        "swarm.codeswarm.dev/builders created",
        "task.codeswarm.dev/hello created",
        "secret/key created",
    ]
    assert "no controller seems to run" in first.stderr
    versions = [cs.get(*key)["metadata"]["resourceVersion"] for key in (SWARM, TASK, SECRET)]
    assert cs.ok("apply", "-f", file).count(" unchanged\n") == 3
    assert versions == [
        cs.get(*key)["metadata"]["resourceVersion"] for key in (SWARM, TASK, SECRET)
    ]
    cs.file("all.yaml", swarm(replicas=3), secret(key="w"))
    assert cs.ok("apply", "-f", file).count(" configured\n") == 2
    assert cs.get(*SWARM)["spec"]["replicas"] == 3
    assert cs.get(*SECRET)["data"] == {"key": "dw=="}
    assert "codeswarm.dev/base-dir" not in cs.get(*SWARM)["metadata"]["annotations"]


SWARM, TASK, SECRET = ("Swarm", "builders"), ("Task", "hello"), ("Secret", "key")


def test_kubectl_and_codeswarm_manage_alike(cs: Line) -> None:
    """Each leaves the other's note as it is, and takes back what the other had applied."""
    both = swarm(labels={"team": "a"})
    both["spec"]["systemPrompt"] = "a < b & c > d é \u2028"
    file = cs.file("swarm.yaml", both)
    cs.ok("apply", "-f", file)
    ours = cs.get(*SWARM)["metadata"]
    assert "unchanged" in kubectl(cs, "apply", "-f", file)
    assert cs.get(*SWARM)["metadata"]["resourceVersion"] == ours["resourceVersion"]

    cs.file("swarm.yaml", swarm(labels={"team": "b", "more": "c"}))
    assert "configured" in kubectl(cs, "apply", "-f", file)
    theirs = cs.get(*SWARM)
    assert "systemPrompt" not in theirs["spec"]
    assert "unchanged" in cs.ok("apply", "-f", file)
    assert cs.get(*SWARM)["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]

    cs.file("swarm.yaml", swarm())
    assert "configured" in cs.ok("apply", "-f", file)
    assert "labels" not in cs.get(*SWARM)["metadata"]


def test_what_the_manifest_does_not_name_stays(cs: Line) -> None:
    without = swarm()
    del without["spec"]["replicas"]
    file = cs.file("swarm.yaml", without)
    cs.ok("apply", "-f", file)
    cs.ok("scale", "builders", "--replicas", "7")
    cs.set_status("Swarm", "builders", phase="Running", ready="7/7")
    assert "unchanged" in cs.ok("apply", "-f", file)
    without["spec"]["systemPrompt"] = "x"
    cs.file("swarm.yaml", without)
    assert "configured" in cs.ok("apply", "-f", file)
    found = cs.get(*SWARM)
    assert found["spec"]["replicas"] == 7
    assert found["status"]["ready"] == "7/7"


def test_items_of_named_lists_are_merged(cs: Line) -> None:
    file = cs.file("project.yaml", project(repository={"url": "https://x.example/a.git"}))
    cs.ok("apply", "-f", file)
    theirs = {"op": "add", "path": "/spec/tasks/-", "value": {"name": "theirs", "prompt": "y"}}
    kubectl(cs, "patch", "project", "greeter", "--type=json", "-p", json.dumps([theirs]))
    tasks = [{"name": "library", "prompt": "Write it."}]
    cs.file("project.yaml", project(repository={"url": "https://x.example/a.git"}, tasks=tasks))
    cs.ok("apply", "-f", file)
    found = cs.get("Project", "greeter")["spec"]["tasks"]
    assert [task["name"] for task in found] == ["library", "theirs"]
    assert "title" not in found[0]


def test_a_manifest_that_is_too_large_to_be_noted(cs: Line) -> None:
    """kubectl refuses it; here it is applied, and tasks that it loses go."""

    def of(count: int) -> dict[str, Any]:
        tasks = [{"name": f"t{n}", "prompt": "x" * 3000} for n in range(count)]
        return project(repository={"url": "https://x.example/a.git"}, tasks=tasks)

    file = cs.file("project.yaml", of(100))
    cs.ok("apply", "-f", file)
    found = cs.get("Project", "greeter")
    assert set(annotations(found)) == {last_applied.FIELDS}
    assert "unchanged" in cs.ok("apply", "-f", file)
    cs.file("project.yaml", of(90))
    cs.ok("apply", "-f", file)
    assert len(cs.get("Project", "greeter")["spec"]["tasks"]) == 90
    cs.file("project.yaml", of(3))
    cs.ok("apply", "-f", file)
    found = cs.get("Project", "greeter")
    assert len(found["spec"]["tasks"]) == 3
    assert set(annotations(found)) == {last_applied.ANNOTATION}


def test_every_fault_is_told_and_nothing_applied(cs: Line) -> None:
    kind = manifest("Tusk", "a", {})
    number = swarm("second", replicas="many")  # type: ignore[arg-type]
    rules = prompt("third")
    del rules["spec"]["prompt"]
    elsewhere = swarm("fourth", namespace="nowhere-at-all")
    unknown = swarm("fifth")
    unknown["spec"]["agent"]["extra"] = 1
    file = cs.file("bad.yaml", swarm(), kind, number, rules, unknown)
    other = cs.file("other.yaml", elsewhere)
    both = [cs("apply", "-f", file), cs("apply", "-f", file, "--dry-run")]
    for result in both:
        assert result.exit_code == 1
        assert result.stdout == ""
        text = result.stderr
        assert '(document 2) Tusk/a: kind: unknown kind "Tusk" (did you mean "Task"?)' in text
        assert "(document 3) Swarm/second: spec.replicas: " in text
        assert "(document 4) Task/third: spec: " in text
        assert "(document 5) Swarm/fifth: spec.agent.extra: unknown field" in text
        assert "bad.yaml:" in text
        assert text.rstrip().endswith("nothing was applied")
    assert cs.find(*SWARM) is None
    result = cs("diff", "-f", file)
    assert result.exit_code == 2
    assert "namespace" in cs("apply", "-f", other).stderr  # -n says another one


def test_what_only_the_server_knows_is_a_fault_with_its_place(cs: Line, tmp_path: Path) -> None:
    cs.namespace += "-gone"
    file = cs.file("swarm.yaml", swarm(), prompt("hello"))
    result = cs("apply", "-f", file)
    assert result.exit_code == 1
    for place in ("(document 1) Swarm/builders", "(document 2) Task/hello"):
        assert (
            f'{place}: metadata.namespace: there is no namespace "{cs.namespace}"' in result.stderr
        )
    assert result.stderr.rstrip().endswith("nothing was applied")


def test_one_object_that_may_not_be_written_stops_all(cs: Line, tmp_path: Path) -> None:
    rules = [rule("swarms", verbs="get,list,watch,create,update"), rule("tasks")]
    somebody = Line(
        cs.cluster, cs.namespace, tmp_path, user(cs.cluster, cs.namespace, tmp_path, rules)
    )
    wait(lambda: somebody("get", "swarms").exit_code == 0, "the rights to be taken up")
    file = cs.file("both.yaml", swarm(), prompt("hello"))
    result = somebody("apply", "-f", file)
    assert result.exit_code == 1
    assert "(document 2) Task/hello: tasks.codeswarm.dev is forbidden" in result.stderr
    assert cs.find(*SWARM) is None
    cs.file("both.yaml", swarm())
    assert "created" in somebody.ok("apply", "-f", file)


def test_what_may_not_change_is_told_as_in_the_file_home(cs: Line) -> None:
    file = cs.file("project.yaml", project(repository={"url": "https://x.example/a.git"}))
    cs.ok("apply", "-f", file)
    cs.file("project.yaml", project(repository={"url": "https://x.example/b.git"}))
    result = cs("apply", "-f", file)
    assert result.exit_code == 1
    assert "(document 1) Project/greeter: spec.repository" in result.stderr
    assert "project.yaml:" in result.stderr


def test_dry_run_and_diff_change_nothing(cs: Line) -> None:
    file = cs.file("all.yaml", swarm(), secret(key="first-value"))
    assert "swarm.codeswarm.dev/builders created (dry run)" in cs.ok(
        "apply", "-f", file, "--dry-run"
    )
    new = cs("diff", "-f", file)
    assert new.exit_code == 1
    assert f"+++ MERGED/codeswarm.dev.v1alpha1.Swarm.{cs.namespace}.builders" in new.stdout
    assert "uid" not in new.stdout
    assert cs.find(*SWARM) is None
    cs.ok("apply", "-f", file)
    same = cs("diff", "-f", file)
    assert (same.exit_code, same.stdout) == (0, "")
    cs.file("all.yaml", swarm(replicas=5), secret(key="second-value"))
    changed = cs("diff", "-f", file)
    assert changed.exit_code == 1
    lines = changed.stdout.splitlines()
    assert "-  replicas: 2" in lines
    assert "+  replicas: 5" in lines
    assert "*** (before)" in changed.stdout
    assert "Zmlyc3" not in changed.stdout  # base64 of the first
    assert "-value" not in changed.stdout  # nor in what was applied last
    assert cs.get(*SWARM)["spec"]["replicas"] == 2


def test_standard_input_and_lists(cs: Line) -> None:
    both = {"apiVersion": "v1", "kind": "List", "items": [swarm(), prompt("hello")]}
    assert cs.ok("apply", "-f", "-", input=json.dumps(both)).count("created") == 2


def test_an_object_that_changes_all_the_time_is_applied_all_the_same(cs: Line) -> None:
    """The status is written while the spec is applied: who is slower looks again."""
    file = cs.file("swarm.yaml", swarm())
    cs.ok("apply", "-f", file)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            cs.set_status("Swarm", "builders", busyReplicas=number % 2, phase="Running")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for replicas in range(3, 9):
            cs.file("swarm.yaml", swarm(replicas=replicas))
            cs.ok("apply", "-f", file)
            cs.ok("scale", "builders", "--replicas", str(replicas + 10))
    finally:
        stop.set()
        writer.join()
    assert cs.get(*SWARM)["spec"]["replicas"] == 18
    assert cs.get(*SWARM)["status"]["phase"] == "Running"


def test_two_at_once(cs: Line) -> None:
    """Two processes apply the same new file at the same time: each object is made once."""
    file = cs.file("many.yaml", *(prompt(f"hello-{n}") for n in range(20)))
    with cs.spawn("apply", "-f", file) as first, cs.spawn("apply", "-f", file) as second:
        ends = [first.end(), second.end()]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert sum(out.count(" created\n") for _, out, _ in ends) == 20
    assert sum(out.count(" unchanged\n") for _, out, _ in ends) == 20


def test_as_kubectls_plugin(cs: Line) -> None:
    """kubectl finds the program on the path, and hands on what stands after its name."""
    import os
    import sys

    file = cs.file("swarm.yaml", swarm())
    folder = str(Path(sys.executable).parent)
    environment = {**cs.environment, "PATH": f"{folder}:{os.environ['PATH']}"}
    del environment["CODESWARM_CONTEXT"]
    for words in (["apply", "-f", file], ["get", "swarms", "-o", "name"]):
        done = subprocess.run(
            ["kubectl", "codeswarm", *words, "-n", cs.namespace],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "swarm.codeswarm.dev/builders" in done.stdout
