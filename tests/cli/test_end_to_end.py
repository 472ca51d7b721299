"""The main job through the command line alone: a real controller, workers and repository."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

MANIFEST = """\
apiVersion: codeswarm.dev/v1alpha1
kind: Swarm
metadata: {name: builders}
spec: {replicas: 2, agent: {runtime: mock}, provider: {local: {}}}
---
apiVersion: codeswarm.dev/v1alpha1
kind: Project
metadata: {name: greeter}
spec:
  repository: {url: ./greeter.git}
  workers: [{swarm: builders}]
  tasks:
  - name: library
    prompt: |
      Write it.
      ```mock
      - say: "a library"
      - write: {path: greet.py, content: "print('hello')\\n"}
      ```
  - name: command
    dependsOn: [library]
    prompt: Use it.
  integration: {verify: ["python3 greet.py"]}
"""
Done = subprocess.CompletedProcess[str]
Cli = Callable[..., Done]


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """The program in a folder with a manifest and a repository; nothing of it lives on."""
    (tmp_path / "swarm.yaml").write_text(MANIFEST)
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "greeter.git")], check=True)
    environment = {**os.environ, "CODESWARM_HOME": str(tmp_path / "home")}

    def run(*words: str) -> Done:
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    yield run
    run("stop-all", "-y", "--force")
    run("down")


def test_from_a_manifest_to_a_merged_branch(cli: Cli, tmp_path: Path) -> None:
    applied = cli("apply", "-f", str(tmp_path / "swarm.yaml"), "--wait", "--timeout", "80s")
    assert applied.returncode == 0, applied.stderr
    assert applied.stdout.splitlines() == [
        "swarm.codeswarm.dev/builders created",
        "project.codeswarm.dev/greeter created",
    ]
    assert "controller started (pid " in applied.stderr
    assert "project/greeter complete (2/2): codeswarm/greeter/integration at " in applied.stderr
    shown = subprocess.run(
        [
            "git",
            "-C",
            str(tmp_path / "greeter.git"),
            "show",
            "codeswarm/greeter/integration:greet.py",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "print('hello')\n"

    logs = cli("logs", "project/greeter").stdout
    assert "greeter.library  a library" in logs
    assert "greeter.integration  verify passed" in logs

    prompted = cli("prompt", "builders", "Who are you?", "--workers", "all", "--follow")
    assert prompted.returncode == 0, prompted.stderr
    assert prompted.stdout.count("turn completed") == 2

    assert cli("delete", "swarm", "builders", "--wait", "--timeout", "80s").returncode == 0
    assert not list((tmp_path / "home" / "workspaces").glob("default/*"))
    stopped = cli("down")
    assert stopped.stdout.startswith("controller stopped (pid ")
