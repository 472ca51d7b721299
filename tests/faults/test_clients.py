"""Several clients write at once while the controller runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from controller.store.base import Conflict
from controller.store.database import Database
from tests.faults.support import USE, FaultLab, check_branches, check_turns, check_usage
from tests.lab import project, prompt, script, swarm, work

TASKS = ("a", "b", "c")


@pytest.fixture
def background(lab: FaultLab) -> Iterator[FaultLab]:
    """A lab whose controller, if any, was started by a command."""
    yield lab
    finish(cli(lab, "down"))
    lab.wait(lambda: not controllers(lab), "the controller to have ended")


def controllers(lab: FaultLab) -> list[int]:
    """Running controllers of a home, whoever started them."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("CODESWARM_HOME") == str(lab.home.root)
            if ours and "controller.runtime.local" in process.cmdline():
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def cli(lab: FaultLab, *words: str) -> subprocess.Popen[str]:
    """Begin a command."""
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", *words],
        env={**os.environ, "CODESWARM_HOME": str(lab.home.root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*commands: subprocess.Popen[str]) -> list[str]:
    """Wait for commands that must succeed; their output."""
    ends = [(command, *command.communicate(timeout=60)) for command in commands]
    for command, _, errors in ends:
        assert command.returncode == 0, errors
    return [output for _, output, _ in ends]


def manifest(lab: FaultLab, name: str, *objects: dict[str, Any]) -> str:
    """A file with manifests (JSON is YAML)."""
    path = lab.path / f"{name}.yaml"
    path.write_text("\n---\n".join(json.dumps(obj) for obj in objects))
    return str(path)


def test_the_same_manifest_at_once(background: FaultLab) -> None:
    """Applied by several, none of which finds a controller: one controller, one of each object."""
    lab = background
    repository = lab.repository()
    tasks = [work(name, USE) for name in TASKS]
    file = manifest(lab, "all", swarm(), project(tasks=tasks), prompt("p", script(USE)))
    said = finish(*(cli(lab, "apply", "-f", file) for _ in range(4)))
    for reference in ("swarm.codeswarm.dev/builders", "project.codeswarm.dev/demo"):
        words = sorted(
            line.split()[1] for text in said for line in text.splitlines() if reference in line
        )
        assert words[0] == "created" and set(words[1:]) == {"unchanged"}
    lab.wait_phase("Project", "demo", "Completed")
    lab.wait_phase("Task", "p", "Succeeded")
    assert len(lab.db.list("Task")) == len(TASKS) + 2
    for task in lab.db.list("Task"):
        assert len(task["status"]["attempts"]) == 1
        assert task["metadata"]["generation"] == 1
    check_turns(lab)
    check_branches(lab, repository, "demo", TASKS)


def test_different_manifests_at_once(lab: FaultLab) -> None:
    """Each stands as one of them said, whole; nothing of two is mixed."""
    repository = lab.repository()
    lab.start()
    variants = {
        title: [work(name, USE, f'say: "{title}"') for name in names]
        for title, names in {"one": "ab", "two": "bc", "three": "cde"}.items()
    }
    files = [
        manifest(lab, title, swarm(replicas=2), project(tasks=tasks, title=title))
        for title, tasks in variants.items()
    ]
    finish(*(cli(lab, "apply", "-f", file) for file in [*files, *files]))
    spec = lab.get("Project", "demo")["spec"]
    assert [(t["name"], t["prompt"]) for t in spec["tasks"]] == [
        (t["name"], t["prompt"]) for t in variants[spec["title"]]
    ]
    lab.wait_phase("Project", "demo", "Completed")
    names = [task["name"] for task in spec["tasks"]]
    for name in names:
        assert lab.task(f"demo.{name}")["phase"] == "Succeeded"
        assert f'say: "{spec["title"]}"' in lab.get("Task", f"demo.{name}")["spec"]["prompt"]
    assert lab.project("demo")["progress"] == f"{len(names)}/{len(names)}"
    check_turns(lab)
    check_usage(lab, "demo")
    check_branches(lab, repository, "demo", names)


def test_writers_that_never_stop(lab: FaultLab) -> None:
    """Status of the controller and metadata of others go on side by side, no write lost."""
    lab.repository()
    lab.start()
    lab.apply(swarm(replicas=4), project(tasks=[work(f"t{n}", USE) for n in range(30)]))
    counts = [0, 0]
    stop = threading.Event()

    def annotate(number: int) -> None:
        with Database(lab.home.state) as database:
            while not stop.is_set():
                for obj in [*database.list("Task"), *database.list("Project")]:
                    annotations = obj["metadata"].setdefault("annotations", {})
                    annotations[f"writer-{number}"] = str(counts[number])
                    try:
                        database.update(obj)
                    except Conflict:
                        continue
                    counts[number] += 1

    threads = [threading.Thread(target=annotate, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        lab.wait_phase("Project", "demo", "Completed", deadline=90)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert min(counts) > 30
    for task in lab.db.list("Task"):
        assert len(task["status"]["attempts"]) == 1
    check_turns(lab)
    check_usage(lab, "demo")


def test_apply_while_the_controller_is_killed(background: FaultLab) -> None:
    lab = background
    lab.start()
    lab.apply(swarm())
    commands = []
    for number in range(4):
        file = manifest(lab, f"p{number}", prompt(f"p{number}", script(USE)))
        commands.append(cli(lab, "apply", "-f", file))
    lab.kill()
    finish(*commands)
    for number in range(4):
        lab.wait_phase("Task", f"p{number}", "Succeeded")
        assert len(lab.attempts(f"p{number}")) == 1
    check_turns(lab)


def test_stopping_while_others_start(background: FaultLab) -> None:
    """A controller that found another one does not take its place when that one is stopped."""
    lab = background
    file = manifest(lab, "all", swarm())
    finish(*(cli(lab, "apply", "-f", file) for _ in range(3)), cli(lab, "apply", "-f", file))
    finish(cli(lab, "down"))
    lab.wait(lambda: not controllers(lab), "every controller to have ended")
