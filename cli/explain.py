"""``codeswarm explain``: why something waits; and what the fields of a kind mean."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from cli import ages, outcomes
from cli.selectors import find, slashed
from cli.session import Session, session, verb
from cli.table import clean
from controller.resources.conditions import find as condition_of
from controller.store.base import Key

if TYPE_CHECKING:
    from controller.domain.blockers import Link
    from controller.domain.facts import WorldFacts
    from controller.store.base import Resource

MAX_TASKS = 20


@verb("explain", no_args_is_help=True)
@click.argument("what", metavar="KIND/NAME | KIND[.FIELD...]")
def explain(*, what: str) -> None:
    """Tell the one exact reason why something waits, with the chain behind it.

    Without a slash: the documentation of a kind or of one of its fields.

    \b
    Examples:
      codeswarm explain task/greeter.command
      codeswarm explain project/greeter
      codeswarm explain swarm/builders
      codeswarm explain swarm.spec.agent
    """
    if "/" not in what:
        from cli.schema_docs import document

        click.echo("\n".join(document(what)))
        return
    about = session()
    kind, name = slashed(what)
    obj = find(about.client, Key(kind.kind, about.namespace, name))
    for line in text_of(about, obj):
        click.echo(clean(line))
    state = about.client.controller()
    if not state.running and outcomes.of(obj) is None:
        click.echo(f"no controller runs, so nothing will change: {state.remedy}")


def text_of(about: Session, obj: Resource) -> Iterator[str]:
    """The explanation of one object."""
    kind = obj["kind"]
    if kind == "Task":
        yield from _task(about, obj)
    elif kind == "Project":
        yield from _project(about, obj)
    else:
        yield _headline(obj)
        yield from _conditions(obj)
        if kind == "Swarm":
            yield from _workers(obj)


def world(about: Session) -> WorldFacts:
    """What the controller sees of this namespace when it judges why tasks wait."""
    from controller.domain.facts import facts_from_objects

    client, space = about.client, about.namespace
    return facts_from_objects(
        client.list("Task", space),
        client.list("Project", space),
        client.list("Swarm", space),
        time.time(),
    )


def _headline(obj: Resource) -> str:
    name = f"{obj['kind'].lower()}/{obj['metadata']['name']}"
    status = obj.get("status") or {}
    if "deletionTimestamp" in obj["metadata"]:
        since = ages.age(obj["metadata"]["deletionTimestamp"], time.time())
        return f"{name} is being deleted, for {since}"
    if not status:
        return f"{name} has not been looked at by a controller yet"
    if not outcomes.current(obj):
        return f"{name} is {status.get('phase', 'Pending')}; its last change is not looked at yet"
    return f"{name} is {status.get('phase', 'Pending')}"


def _task(about: Session, obj: Resource) -> Iterator[str]:
    from controller.domain.blockers import chain

    name, status = obj["metadata"]["name"], obj.get("status") or {}
    yield _headline(obj)
    links = chain(name, world(about))
    first = links[0]
    if first.blocker is not None:
        yield f"because {first.blocker.reason}: {first.blocker.message}"
        yield from _chain(links[1:])
        return
    phase = status.get("phase") or "Pending"
    if phase in ("Failed", "Cancelled"):
        condition = condition_of(status.get("conditions") or [], "Failed") or {}
        reason = status.get("reason") or condition.get("reason") or phase
        message = condition.get("message") or (status.get("result") or {}).get("notes") or ""
        yield f"because {reason}" + (f": {message}" if message else "")
        yield f"`codeswarm retry {name}` begins it anew; `codeswarm logs {name}` shows its turns"
    elif phase in ("Pending", "Waiting"):
        yield "nothing holds it up: it starts with the controller's next pass"
    elif phase == "Running":
        yield first.state


def _chain(links: list[Link]) -> Iterator[str]:
    for depth, link in enumerate(links, 1):
        pad = "  " * depth
        yield f"{pad}{link.on.kind.lower()}/{link.on.name}: {link.state}"
        if link.blocker is not None:
            yield f"{pad}  because {link.blocker.reason}: {link.blocker.message}"


def _conditions(obj: Resource) -> Iterator[str]:
    """Conditions that are not as they should be."""
    for condition in (obj.get("status") or {}).get("conditions") or []:
        bad = "True" if condition["type"] in ("NeedsAttention", "Failed", "Stalled") else "False"
        if condition["status"] in (bad, "Unknown"):
            message = f": {condition['message']}" if condition.get("message") else ""
            name, value = condition["type"], condition["status"]
            yield f"  {name} is {value} because {condition['reason']}{message}"


def _workers(obj: Resource) -> Iterator[str]:
    status = obj.get("status") or {}
    for worker in status.get("workers") or []:
        if worker.get("phase") not in ("Idle", "Busy"):
            reason = worker.get("reason") or "no reason told"
            message = f": {worker['message']}" if worker.get("message") else ""
            yield f"  worker {worker['index']} is {worker.get('phase')} ({reason}{message})"
    if status.get("nextLaunchAt"):
        failures = status.get("launchFailures", 0)
        yield f"  next launch at {status['nextLaunchAt']}, after {failures} failed ones"


def _project(about: Session, obj: Resource) -> Iterator[str]:
    from controller.domain.blockers import chain

    yield _headline(obj)
    yield from _conditions(obj)
    facts = world(about)
    name = obj["metadata"]["name"]
    open_tasks = [
        task for task in facts.tasks.values() if task.project == name and task.phase != "Succeeded"
    ]
    for task in open_tasks[:MAX_TASKS]:
        links = chain(task.name, facts)
        yield f"  task/{task.name}: {links[0].state}"
        if links[0].blocker is not None:
            yield f"    because {links[0].blocker.reason}: {links[0].blocker.message}"
    if len(open_tasks) > MAX_TASKS:
        yield f"  ... and {len(open_tasks) - MAX_TASKS} more tasks"
