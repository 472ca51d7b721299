"""``codeswarm explain``: why something waits; and what the fields of a kind mean."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from cli import ages, complete, outcomes, overview
from cli.answers import how_to_answer
from cli.selectors import find, is_kind, pick
from cli.session import Session, session, verb
from cli.table import clean

if TYPE_CHECKING:
    from controller.domain.blockers import Link
    from controller.domain.facts import WorldFacts
    from controller.store.base import Resource

MAX_TASKS = 20


@verb("explain", no_args_is_help=True)
@click.argument(
    "what",
    nargs=-1,
    required=True,
    metavar="NAME | KIND/NAME | KIND[.FIELD...]",
    shell_complete=complete.any_object,
)
def explain(*, what: tuple[str, ...]) -> None:
    """Tell the one exact reason why something waits, with the chain behind it.

    A kind alone, or one of its fields: its documentation.

    \b
    Examples:
      codeswarm explain greeter.command
      codeswarm explain task/greeter.command
      codeswarm explain project/greeter
      codeswarm explain swarm/builders
      codeswarm explain swarm.spec.agent
    """
    if len(what) == 1 and is_kind(what[0].partition(".")[0]):
        from cli.schema_docs import document

        click.echo("\n".join(document(what[0])))
        return
    about = session()
    obj = find(about.client, pick(about.client, about.namespace, what))
    for line in text_of(about, obj):
        click.echo(clean(indented(line)))
    state = about.client.controller()
    if not state.running and outcomes.of(obj) is None:
        click.echo(f"no controller runs, so nothing will change: {state.remedy}")


def indented(text: str) -> str:
    """Further lines of a text stand below the first one."""
    pad = " " * (len(text) - len(text.lstrip(" ")) + 2)
    first, *rest = text.rstrip().splitlines() or [""]
    return "\n".join([first, *(pad + line.strip() for line in rest)])


def text_of(about: Session, obj: Resource) -> Iterator[str]:
    """The explanation of one object."""
    kind = obj["kind"]
    if kind == "Task":
        yield from _task(about, obj)
    elif kind == "Project":
        yield from _project(about, obj)
    else:
        yield _headline(obj)
        yield from _causes(obj)
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
    questions = _questions(about, name)
    facts = world(about)
    links = chain(name, facts)
    first = links[0]
    if first.blocker is not None:
        yield f"because {first.blocker.reason}: {first.blocker.message}"
        if first.blocker.reason == "Backoff":
            yield from _backoff(status)
        yield from _chain(links[1:])
        return
    phase = status.get("phase") or "Pending"
    if phase in ("Failed", "Cancelled"):
        yield f"because {overview.failure_of(obj) or phase}"
        yield f"`codeswarm retry {name}` begins it anew; `codeswarm logs {name}` shows its turns"
    elif phase in ("Pending", "Waiting"):
        yield "nothing holds it up: it starts with the controller's next pass"
    elif questions:
        for approval in questions:
            yield from how_to_answer(about, approval)
    elif phase == "Running":
        yield first.state
        yield from _held_up(obj, facts)


def _held_up(obj: Resource, facts: WorldFacts) -> Iterator[str]:
    """Why nothing may be heard of an attempt that is under way, or it does not go on."""
    swarm = facts.swarm(facts.tasks[obj["metadata"]["name"]].attempt_swarm)
    if swarm is not None and swarm.away is not None:
        yield f"swarm {swarm.name} is out of reach: {swarm.away.reason}: {swarm.away.message}"
        yield "  its worker goes on meanwhile; what became of it is seen when there is contact"
        return
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition["status"] == "Unknown" or condition["reason"] == "SendingRepository":
            said = ": ".join(t for t in (condition["reason"], condition.get("message")) if t)
            yield f"  {condition['type']} is {condition['status']} because {said}"


def _questions(about: Session, task: str) -> list[Resource]:
    """What the task's agent asks and nobody has answered."""
    return [
        approval
        for approval in about.client.list("Approval", about.namespace)
        if (approval["spec"].get("request") or {}).get("task") == task
        and not approval["spec"].get("decision")
        and overview.phase_of(approval) == "Pending"
    ]


def _backoff(status: Mapping[str, Any]) -> Iterator[str]:
    """Why the last attempt failed, and how long the pause still is."""
    last = (status.get("attempts") or [{}])[-1]
    if status.get("nextAttemptAt"):
        left = ages.parse(status["nextAttemptAt"]) - time.time()
        yield f"  that is in {max(1, round(left))} s"
    why = ": ".join(part for part in (last.get("reason"), last.get("message")) if part)
    if why:
        yield f"  attempt {last.get('number')} failed: {why}"


def _chain(links: list[Link]) -> Iterator[str]:
    for depth, link in enumerate(links, 1):
        pad = "  " * depth
        yield f"{pad}{link.on.kind.lower()}/{link.on.name}: {link.state}"
        if link.blocker is not None:
            yield f"{pad}  because {link.blocker.reason}: {link.blocker.message}"


BAD_IF_TRUE = ("NeedsAttention", "Failed", "Stalled")
CONSEQUENCES = frozenset({"InProgress", "NotAccepted", "WaitingForTasks", "WaitingForDecision"})
"""Reasons that only say that something else is not done."""


def _causes(obj: Resource) -> Iterator[str]:
    """What is not as it should be, its first cause first; each cause once."""
    told: set[str] = set()
    for condition in _bad(obj):
        reason, message = condition["reason"], condition.get("message") or ""
        known = reason in CONSEQUENCES or reason in told or (message and message in told)
        if known and told:
            continue
        lead = f"  {condition['type']} is {condition['status']} because " if told else "because "
        told |= {reason, message} - {""}
        yield lead + (f"{reason}: {message}" if message else reason)


def _bad(obj: Resource) -> list[Mapping[str, Any]]:
    """Conditions that are not as they should be, those that others follow from first."""
    status = obj.get("status") or {}
    found = [
        condition
        for condition in status.get("conditions") or []
        if condition["status"]
        in ("True" if condition["type"] in BAD_IF_TRUE else "False", "Unknown")
    ]
    if obj["kind"] == "Project" and status.get("phase") in ("Failed", "Completed"):
        # The others tell what was not reached, which the failure says already.
        found = [c for c in found if c["type"] in BAD_IF_TRUE] or found
    order = ("Accepted", "ProviderReachable", "Failed", "Stalled", "NeedsAttention", "WithinBudget")
    ranks = {type_: number for number, type_ in enumerate(order)}
    real = [c for c in found if c["reason"] not in CONSEQUENCES]
    return sorted(real, key=lambda c: ranks.get(c["type"], len(order)))


def _workers(obj: Resource) -> Iterator[str]:
    status = obj.get("status") or {}
    for worker in status.get("workers") or []:
        if worker.get("phase") not in ("Idle", "Busy") or worker.get("reason"):
            told = ": ".join(filter(None, (worker.get("reason"), worker.get("message"))))
            yield f"  worker {worker['index']} is {worker.get('phase')}{told and f' ({told})'}"
    if status.get("nextLaunchAt"):
        failures = status.get("launchFailures", 0)
        yield f"  next launch at {status['nextLaunchAt']}, after {failures} failed ones"


def _project(about: Session, obj: Resource) -> Iterator[str]:
    from controller.domain.blockers import chain

    yield _headline(obj)
    causes = list(_causes(obj))
    yield from causes
    facts = world(about)
    name = obj["metadata"]["name"]
    refused = facts.projects[name].refused is not None
    open_tasks = [
        task for task in facts.tasks.values() if task.project == name and task.phase != "Succeeded"
    ]
    if refused and causes:
        return  # each of its tasks waits for just that
    firsts = {task.name: chain(task.name, facts)[0] for task in open_tasks}
    told = "\n".join(causes)
    shown = sorted(open_tasks, key=lambda task: task.phase != "Failed")[:MAX_TASKS]
    for task in shown:
        link = firsts[task.name]
        yield f"  task/{task.name}: {link.state}"
        if link.blocker is not None:
            cause = f"{link.blocker.reason}: {link.blocker.message}"
            yield f"    because {link.blocker.reason if cause in told else cause}"
    if len(open_tasks) > MAX_TASKS:
        yield f"  ... and {len(open_tasks) - MAX_TASKS} more tasks"
