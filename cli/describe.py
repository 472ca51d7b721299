"""``codeswarm describe``: one object in full, with conditions and events."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from cli import ages, complete, describe_kinds, last_applied, outline, table
from cli.selectors import by_labels, find, key, label_predicate, parse_named
from cli.session import session, verb
from controller.resources.conditions import OWNED

if TYPE_CHECKING:
    from cli.client import Client
    from controller.store.base import Event, Resource

MAX_EVENTS = 20


@verb("describe", no_args_is_help=True)
@click.argument(
    "what",
    nargs=-1,
    required=True,
    metavar="NAME | KIND [NAME...] | KIND/NAME...",
    shell_complete=complete.any_object,
)
@click.option("-l", "--selector", metavar="LABELS", help="Only with these labels: a=b,c!=d.")
def describe(*, what: tuple[str, ...], selector: str | None) -> None:
    """Show objects in full: spec, conditions, attempts or workers, and recent events.

    \b
    Examples:
      codeswarm describe task greeter.docs
      codeswarm describe project/greeter swarm/builders
      codeswarm describe swarms
    """
    about = session()
    predicate = label_predicate(selector)
    shown: list[Resource] = []
    for selection in parse_named(about.client, about.namespace, what):
        if selection.names is None:
            objects = about.client.list(selection.kind.kind, about.namespace)
        else:
            keys = [key(selection.kind, about.namespace, name) for name in selection.names]
            objects = [find(about.client, wanted) for wanted in keys]
        shown += by_labels(objects, predicate)
    if not shown:
        click.echo(f"No resources found in {about.namespace} namespace.", err=True)
    now = time.time()
    for number, obj in enumerate(shown):
        if number:
            click.echo("\n")
        click.echo("\n".join(text_of(about.client, obj, now)))


def text_of(client: Client, obj: Resource, now: float) -> Iterator[str]:
    """The lines that describe one object; ``now`` in seconds since the epoch."""
    status = obj.get("status") or {}
    yield from table.aligned(_head(obj, status, now))
    spec = describe_kinds.spec_of(obj)
    if spec:
        yield "Spec:"
        yield from outline.lines(spec, 2)
    yield from describe_kinds.sections(client, obj, now)
    yield from _conditions(obj["kind"], status.get("conditions") or [], now)
    yield from _events(client.events_of(obj), now)


def _head(obj: Resource, status: dict[str, Any], now: float) -> list[tuple[str, str]]:
    meta = obj["metadata"]
    created = meta.get("creationTimestamp", "")
    pairs = [
        ("Name", meta["name"]),
        ("Namespace", meta.get("namespace", "default")),
        *_map("Labels", meta.get("labels")),
        *_map("Annotations", last_applied.without(obj)["metadata"].get("annotations")),
        ("API Version", obj["apiVersion"]),
        ("Kind", obj["kind"]),
        ("UID", meta.get("uid", "")),
        ("Created", f"{created} ({ages.age(created, now)} ago)"),
    ]
    if "deletionTimestamp" in meta:
        since = ages.age(meta["deletionTimestamp"], now)
        left = ", ".join(meta.get("finalizers") or [])
        pairs.append(("Being deleted", f"for {since}, waits for {left}"))
    for owner in meta.get("ownerReferences") or []:
        pairs.append(("Owner", f"{owner['kind']}/{owner['name']}"))
    if status.get("phase"):
        reason = f" ({status['reason']})" if status.get("reason") else ""
        pairs.append(("Phase", status["phase"] + reason))
    return pairs


def _map(name: str, values: dict[str, str] | None) -> Iterator[tuple[str, str]]:
    if not values:
        yield name, "<none>"
    for number, (key_, value) in enumerate((values or {}).items()):
        yield name if number == 0 else "", f"{key_}={value}"


def _conditions(kind: str, conditions: Sequence[dict[str, Any]], now: float) -> Iterator[str]:
    if not conditions:
        return
    order = {type_: number for number, type_ in enumerate(OWNED.get(kind, ()))}
    rows = [
        [
            c["type"],
            c["status"],
            c.get("reason", ""),
            ages.age(c.get("lastTransitionTime"), now),
            c.get("message", ""),
        ]
        for c in sorted(conditions, key=lambda c: order.get(c["type"], len(order)))
    ]
    yield from table.section("Conditions", ["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"], rows)


def _events(events: Sequence[Event], now: float) -> Iterator[str]:
    if not events:
        yield "Events:  <none>"
        return
    shown = events[-MAX_EVENTS:]
    rows = [[e.type, e.reason, _event_age(e, now), e.message] for e in shown]
    title = "Events" if len(shown) == len(events) else f"Events (the last {MAX_EVENTS})"
    yield from table.section(title, ["TYPE", "REASON", "AGE", "MESSAGE"], rows)


def _event_age(event: Event, now: float) -> str:
    last = ages.age(event.last, now)
    if event.count < 2:
        return last
    return f"{last} (x{event.count} over {ages.age(event.first, now)})"
