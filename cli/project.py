"""``codeswarm project``: what only projects have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import complete, table
from cli.selectors import find
from cli.session import Session, Verb, common_options, session
from controller.resources.conditions import find as condition_of
from controller.store.base import Key

if TYPE_CHECKING:
    from controller.domain.facts import WorldFacts
    from controller.store.base import Resource

Row = tuple[str, str, str]


@click.group("project", params=common_options())
def project() -> None:
    """Look at what a project will do."""


@project.command("resume-preview", cls=Verb)
@click.argument("name", shell_complete=complete.a_project)
def resume_preview(*, name: str) -> None:
    """Show what the controller's next passes would change about a project; nothing is changed.

    Resuming needs no command: the controller goes on by itself. Whether commits are still in the
    remote is told as the controller saw it last.

    \b
    Example:
      codeswarm project resume-preview greeter
    """
    about = session()
    obj = find(about.client, Key("Project", about.namespace, name.removeprefix("project/")))
    rows = preview(about, obj)
    click.echo(table.render(["TASK", "NOW", "NEXT"], rows), nl=False)
    state = about.client.controller()
    if not state.running:
        click.echo(f"no controller runs; this happens once one does: {state.remedy}", err=True)


def preview(about: Session, obj: Resource) -> list[Row]:
    """For each task of the project what it is and what becomes of it."""
    from cli.explain import world

    facts = world(about)
    name = obj["metadata"]["name"]
    tasks = {
        task["metadata"]["name"]: task
        for task in about.client.list("Task", about.namespace)
        if task["spec"].get("project") == name
    }
    swarms = about.client.list("Swarm", about.namespace)
    living = {
        worker["job"]
        for swarm in swarms
        for worker in (swarm.get("status") or {}).get("workers") or []
        if worker.get("phase") not in ("Lost", "Stopping")
    }
    wanted = [f"{name}.{task['name']}" for task in obj["spec"].get("tasks") or []]
    rows: list[Row] = [_row(tasks[task], facts, living) for task in wanted if task in tasks]
    rows += [(task, "-", "will be created") for task in wanted if task not in tasks]
    rows += [
        _other(task, obj, facts, living) for other, task in tasks.items() if other not in wanted
    ]
    if not rows:
        rows.append(_empty(obj))
    return rows


def _empty(obj: Resource) -> Row:
    planner = obj["spec"].get("planner") or {}
    if planner:
        return f"{obj['metadata']['name']}.plan", "-", f"swarm {planner.get('swarm')} will plan"
    return "-", "-", "there are no tasks"


def _other(task: Resource, obj: Resource, facts: WorldFacts, living: set[str]) -> Row:
    """A task that the Project's spec does not name: planned, its integration, or left over."""
    own = task["spec"].get("type") in ("plan", "integration")
    by_spec = bool(obj["spec"].get("tasks"))
    owned = any(o["uid"] == obj["metadata"]["uid"] for o in _owners(task))
    if own or not by_spec or not owned:
        return _row(task, facts, living)
    return task["metadata"]["name"], _now(task), "will be cancelled: removed from the project"


def _owners(task: Resource) -> list[dict[str, Any]]:
    return list(task["metadata"].get("ownerReferences") or [])


def _now(task: Resource) -> str:
    status = task.get("status") or {}
    attempts = status.get("attempts") or []
    phase = str(status.get("phase") or "Pending")
    return f"{phase} (attempt {attempts[-1]['number']})" if attempts else phase


def _row(task: Resource, facts: WorldFacts, living: set[str]) -> Row:
    return task["metadata"]["name"], _now(task), _next(task, facts, living)


def _next(task: Resource, facts: WorldFacts, living: set[str]) -> str:
    from controller.domain.blockers import blocker

    status = task.get("status") or {}
    phase = status.get("phase") or "Pending"
    attempts = status.get("attempts") or [{}]
    last = attempts[-1]
    if phase == "Succeeded":
        return _kept(status)
    if phase in ("Failed", "Cancelled"):
        return f"stays {phase}: {status.get('reason') or 'a person decides'} (codeswarm retry)"
    if last.get("state") in ("Assigned", "Running", "Interrupting"):
        where = f"{last.get('swarm')}/{last.get('worker')}"
        if last.get("job") in living:
            return f"goes on at {where}"
        return (
            f"worker {where} is gone: taken from its pushed attempt if finished, else starts again"
        )
    why = blocker(facts.tasks[task["metadata"]["name"]], facts)
    return f"waits: {why.reason}: {why.message}" if why else "starts on the next idle worker"


def _kept(status: dict[str, Any]) -> str:
    durable = condition_of(status.get("conditions") or [], "BranchDurable")
    head = (status.get("headCommit") or "")[:10]
    if durable is not None and durable["status"] == "False":
        return f"goes back to Pending: {durable.get('message') or durable['reason']}"
    if durable is not None and durable["status"] == "Unknown":
        return f"kept; the remote cannot be read now ({durable['reason']})"
    return f"kept at {head}" if head else "kept"
