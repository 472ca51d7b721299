"""Projects whose workers live in another container than the controller."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from controller.store.base import Key
from providers.launching import worker_command
from tests.lab import Lab, git, project, refs, swarm, work
from tests.providers.hosting import NAMESPACE, HostedHarness, hosted


class HostedLab(Lab):
    """A lab with a worker host beside its controller."""

    def __init__(self, path: Path, host: HostedHarness) -> None:
        super().__init__(path)
        self.host = host

    def start(self, **variables: str) -> subprocess.Popen[bytes]:
        """Start the controller and wait until it is up."""
        environment = {
            **os.environ,
            "CODESWARM_HOME": str(self.home.root),
            "CODESWARM_WORKER_HOST": str(self.host.socket),
            **variables,
        }
        with self.log.open("ab") as log:
            process = self._controller = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.hosted_controller"],
                env=environment,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.wait(lambda: process.poll() is not None or self._up(), "the controller to be up")
        return process

    def workers(self) -> list[tuple[str, str]]:
        """Job and process of each worker."""
        return [(row["job"], row["handle"]) for row in self.swarm("builders")["workers"]]

    def stores(self) -> tuple[list[str], list[str]]:
        """Git stores: the controller's own, and those where the workers are."""
        return tuple(
            sorted(path.name for path in root.glob("stores/*.git"))
            for root in (self.home.workspaces, self.host.root)
        )  # type: ignore[return-value]


@pytest.fixture(params=[(), NAMESPACE], ids=["process", "container"])
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[HostedLab]:
    """A lab of its own; in a container the host's death is its workers' too."""
    if request.param and (os.getuid() != 0 or shutil.which(NAMESPACE[0]) is None):
        pytest.skip("no pid namespace may be made here")
    with (
        hosted(tmp_path, worker_command(), around=request.param) as host,
        HostedLab(tmp_path, host) as made,
    ):
        yield made


def test_a_project_and_its_end(lab: HostedLab) -> None:
    repository = lab.repository()
    lab.start()
    lab.apply(swarm(), project(tasks=[work("a"), work("b", depends_on=["a"])]))
    lab.wait_phase("Project", "demo", "Completed")
    done = lab.task("demo.b")
    assert refs(repository)["refs/heads/codeswarm/demo/b"] == done["headCommit"]
    store = f"{lab.get('Project', 'demo')['metadata']['uid']}.git"
    assert lab.stores()[1] == [store]
    lab.db.delete(Key("Project", "default", "demo"))
    lab.wait(lambda: not any(lab.stores()), "both git stores to go")
    lab.db.delete(Key("Swarm", "default", "builders"))
    key = Key("Swarm", "default", "builders")
    lab.wait(lambda: lab.db.get(key) is None, "the swarm to go")
    assert not lab.host.processes()
    assert "Traceback" not in lab.log.read_text() + lab.host.log.read_text()


def test_a_secret_reaches_the_agent_and_no_other_process(lab: HostedLab) -> None:
    key, token = "hosted-secret-4711", "hosted-token-4711"
    lab.home.config.write_text("envProfiles: {p: {env: {MY_TOKEN: '${GATEWAY_TOKEN}'}}}\n")
    lab.repository()
    lab.start(GATEWAY_TOKEN=token, AWS_SECRET_ACCESS_KEY="controllers-own-4711")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    by_secret = {"name": "MY_KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    agent = {"runtime": "mock", "envProfile": "p", "env": [by_secret]}
    show = work("a", 'run: "env; echo $MY_KEY $MY_TOKEN > told; ls -l $CODESWARM_BASE_DIR"')
    lab.apply({**secret, "stringData": {"k": key}}, swarm(replicas=1, agent=agent))
    lab.wait_phase("Swarm", "builders", "Running")
    for process in lab.host.processes():
        environ = psutil.Process(process).environ()
        assert not [v for v in environ.values() if v in (key, token, "controllers-own-4711")]
    lab.apply(project(tasks=[show]))
    lab.wait_phase("Task", "demo.a", "Succeeded")
    head = lab.task("demo.a")["headCommit"]
    assert git("-C", str(lab.path / "repo.git"), "show", f"{head}:told") == f"{key} {token}"
    (transcript,) = lab.home.transcripts.rglob("*.jsonl")
    text = transcript.read_text()
    assert "MY_KEY=[masked]" in text and "MY_TOKEN=[masked]" in text and " env" not in text
    shown = text + lab.log.read_text() + lab.host.log.read_text()
    assert not [value for value in (key, token, "controllers-own-4711") if value in shown]


def test_a_controller_that_died_goes_on_with_the_same_workers(lab: HostedLab) -> None:
    lab.repository()
    lab.start()
    lab.apply(swarm(replicas=2), project(tasks=[work("a", "sleep: 3"), work("b", "sleep: 3")]))
    lab.wait_phase("Task", "demo.a", "Running")
    lab.wait_phase("Task", "demo.b", "Running")
    workers = lab.workers()
    lab.kill()
    lab.start()
    lab.wait_phase("Project", "demo", "Completed", deadline=60)
    assert [len(lab.task(name)["attempts"]) for name in ("demo.a", "demo.b")] == [1, 1]
    assert lab.workers() == workers
    assert "Traceback" not in lab.log.read_text() + lab.host.log.read_text()


def test_a_host_that_died_costs_at_most_what_it_was_doing(lab: HostedLab) -> None:
    repository = lab.repository()
    lab.start()
    tasks = [work("a"), work("b", "sleep: 3", depends_on=["a"]), work("c", depends_on=["b"])]
    lab.apply(swarm(replicas=1), project(tasks=tasks))
    lab.wait_phase("Task", "demo.b", "Running")
    lab.host.kill()
    lab.host.begin()
    lab.wait_phase("Project", "demo", "Completed", deadline=90)
    attempts = {name: lab.task(f"demo.{name}")["attempts"] for name in "abc"}
    assert [len(attempts[name]) for name in "ac"] == [1, 1]
    if lab.host.around:
        assert [a["class"] for a in attempts["b"][:-1]] == ["Infrastructure"]
    else:
        assert len(attempts["b"]) == 1, "its worker lived on"
    heads = refs(repository)
    for name in "abc":
        head = heads[f"refs/heads/codeswarm/demo/{name}"]
        assert head == lab.task(f"demo.{name}")["headCommit"]
    assert "Traceback" not in lab.log.read_text() + lab.host.log.read_text()
