"""Secrets reach the agent and nothing else: looked for in every file, object and process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from tests.lab import Lab, project, swarm, work

BY_SECRET = "secret-by-reference-4711"
BY_ENV = "secret-by-environment-4711"
BY_PROFILE = "secret-by-profile-4711"
INHERITED = "secret-inherited-4711"
CONTROLLERS = "secret-of-the-controller-4711"
GIVEN = (BY_SECRET, BY_ENV, BY_PROFILE)
CONFIG = "envProfiles: {gateway: {env: {ANTHROPIC_AUTH_TOKEN: '${GATEWAY_TOKEN}'}}}\n"
ENV = [
    {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "openai", "key": "api-key"}}},
    {"name": "OTHER", "valueFrom": {"env": "OTHER_KEY"}},
]


def secret() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "openai"},
        "stringData": {"api-key": BY_SECRET},
    }


def command_of(process: psutil.Process) -> list[str]:
    """Its command line; nothing of one that has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def environ_of(process: psutil.Process) -> dict[str, str]:
    """All of ``/proc/<pid>/environ``; nothing of one that has ended."""
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def files_with(root: Path, values: tuple[str, ...]) -> list[str]:
    """Files below a folder that hold one of the values."""
    found = []
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            found += [f"{path}: {value}" for value in values if value.encode() in data]
    return found


def test_a_secret_is_in_the_agents_environment_and_nowhere_else(lab: Lab, tmp_path: Path) -> None:
    lab.home.config.write_text(CONFIG)
    lab.repository()
    lab.start(
        OTHER_KEY=BY_ENV,
        GATEWAY_TOKEN=BY_PROFILE,
        OPENAI_BASE_URL=f"https://{INHERITED}",
        AWS_SECRET_ACCESS_KEY=CONTROLLERS,
        CODESWARM_CAPTURE_ALL_SESSION="1",
    )
    go = tmp_path / "go"
    leak = (
        f'run: "env; echo key=$OPENAI_API_KEY >&2; until [ -e {go} ]; do sleep 0.05; done; exit 3"'
    )
    agent = {"runtime": "mock", "envProfile": "gateway", "env": ENV}
    lab.apply(
        secret(),
        swarm(replicas=1, agent=agent),
        project(tasks=[work("leak", leak)], retry={"limit": 0}),
    )
    commands = lab.wait(
        lambda: [e for p in lab.processes() if "OTHER" in (e := environ_of(p))], "the command"
    )
    assert commands[0]["OPENAI_API_KEY"] == BY_SECRET and commands[0]["OTHER"] == BY_ENV
    assert commands[0]["ANTHROPIC_AUTH_TOKEN"] == BY_PROFILE
    (worker,) = [p for p in lab.processes() if p.pid == lab.worker_pid("builders", 0)]
    assert not set(GIVEN) & set(environ_of(worker).values())
    for process in lab.processes():
        shown = environ_of(process)
        assert not {"AWS_SECRET_ACCESS_KEY", "OTHER_KEY", "GATEWAY_TOKEN"} & shown.keys()
        assert "OPENAI_BASE_URL" not in shown, "nothing is inherited beside a profile"
        assert not [word for word in command_of(process) if any(value in word for value in GIVEN)]
    go.touch()
    lab.wait_phase("Task", "demo.leak", "Failed")
    assert "key=[masked]" in lab.task("demo.leak")["attempts"][-1]["message"]
    for root in (lab.home.transcripts, lab.home.logs, lab.home.workspaces):
        assert files_with(root, (*GIVEN, CONTROLLERS)) == []
    assert not [value for value in GIVEN if value in lab.log.read_text()]
    for kind in ("Swarm", "Project", "Task", "Approval", "ConfigMap"):
        shown_objects = repr(lab.db.list(kind))
        assert not [value for value in (*GIVEN, CONTROLLERS) if value in shown_objects], kind
    events = repr(list(lab.db.events()))
    assert not [value for value in (*GIVEN, CONTROLLERS) if value in events]
    assert list(lab.home.transcripts.rglob("*.jsonl")), "there was something to look at"


def test_provider_variables_are_inherited_without_a_profile(lab: Lab) -> None:
    lab.repository()
    lab.start(OPENAI_API_KEY=INHERITED, OTHER_API_KEY=CONTROLLERS)
    lab.apply(swarm(replicas=1), project(tasks=[work("look", 'run: "sleep 60"')]))
    found = lab.wait(
        lambda: [e for p in lab.processes() if "OPENAI_API_KEY" in (e := environ_of(p))],
        "the agent's environment",
    )
    assert found[0]["OPENAI_API_KEY"] == INHERITED
    assert not [e for p in lab.processes() if "OTHER_API_KEY" in (e := environ_of(p))]
