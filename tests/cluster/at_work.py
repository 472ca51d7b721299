"""A project in the middle, as the verbs see it."""

from __future__ import annotations

from tests.cli.samples import (
    attempt,
    project,
    project_status,
    swarm,
    swarm_status,
    task,
)
from tests.cluster.cli import Line


def running(cs: Line) -> None:
    """A swarm at work on a project of two tasks, as a controller leaves it."""
    for obj in (swarm(), project(), task("greeter.library"), task("greeter.command", ("library",))):
        cs.create(obj)
    cs.set_status("Swarm", "builders", **swarm_status())
    cs.set_status("Project", "greeter", **project_status())
    cs.set_status("Task", "greeter.library", phase="Running", attempts=[attempt()])
    cs.set_status("Task", "greeter.command", phase="Waiting")
