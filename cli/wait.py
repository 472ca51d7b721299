"""``codeswarm wait``: until a condition holds, a phase is reached, or an object is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from cli import complete, following, outcomes
from cli.errors import TIMED_OUT, USAGE, WAITED_FOR_FAILED, CliError
from cli.lookout import Lookout
from cli.options import duration
from cli.selectors import by_labels, label_predicate, not_found, parse_named, reference
from cli.session import Session, session, verb
from controller.resources import kinds as registry
from controller.resources.conditions import OWNED, find
from controller.store.base import Key

if TYPE_CHECKING:
    from controller.store.base import Resource

FINAL_PHASES = frozenset({"Succeeded", "Completed", "Failed", "Cancelled"})


@dataclass(frozen=True, slots=True)
class Goal:
    """What is waited for."""

    met: Callable[[Resource | None], bool]
    lost: Callable[[Resource], str | None]
    """Why it will not come about any more, if so."""
    text: str
    for_delete: bool = False


@verb("wait", no_args_is_help=True)
@click.argument(
    "what",
    nargs=-1,
    required=True,
    metavar="NAME | KIND NAME... | KIND/NAME...",
    shell_complete=complete.any_object,
)
@click.option(
    "--for",
    "goal",
    required=True,
    metavar="WHAT",
    help="condition=TYPE[=STATUS], phase=PHASE or delete.",
)
@click.option(
    "--timeout",
    type=duration,
    default="30s",
    show_default=True,
    metavar="TIME",
    help="Longest wait; negative: without end; 0: look once.",
)
@click.option("-l", "--selector", metavar="LABELS", help="Objects with these labels.")
@click.option("--all", "everything", is_flag=True, help="All objects of the kind.")
def wait(
    *, what: tuple[str, ...], goal: str, timeout: float, selector: str | None, everything: bool
) -> None:
    """Wait until objects have a condition or a phase, or are gone.

    Exits with 3 when the time is up, with 4 when what is waited for can not come any more.

    \b
    Examples:
      codeswarm wait --for=condition=Ready swarm/builders --timeout 2m
      codeswarm wait --for=condition=Complete project/greeter --timeout 1h
      codeswarm wait --for=phase=Succeeded task/hello
      codeswarm wait --for=delete swarm/builders
    """
    about = session()
    wanted = parse_goal(goal)
    with closing(about.client.watch()) as watch:
        keys = _keys(about, what, selector, everything)
        if not keys:
            raise CliError("no matching objects found")
        for kind in {key.kind for key in keys}:
            _check_goal(kind, goal)
        deadline = None if timeout < 0 else time.monotonic() + timeout
        with following.leave_running("nothing was changed"):
            left = _check(about, keys, wanted, first=True)
            lookout = Lookout(about.client, following.say)
            while left:
                pause = 1.0 if deadline is None else deadline - time.monotonic()
                if pause <= 0:
                    names = ", ".join(map(str, left))
                    raise CliError(f"timed out waiting for {wanted.text} on {names}", TIMED_OUT)
                lookout.look()
                watch.wait(min(1.0, pause))
                left = _check(about, left, wanted, first=False)


def _keys(
    about: Session, what: tuple[str, ...], selector: str | None, everything: bool
) -> list[Key]:
    predicate = label_predicate(selector)
    keys = []
    for selection in parse_named(about.client, about.namespace, what):
        kind = selection.kind.kind
        names = selection.names
        if names is None:
            if predicate is None and not everything:
                raise click.UsageError("name the objects, or choose them with -l or --all")
            found = by_labels(about.client.list(kind, about.namespace), predicate)
            names = tuple(obj["metadata"]["name"] for obj in found)
        keys += [Key(kind, about.namespace, name) for name in names]
    return keys


def _check(about: Session, keys: list[Key], goal: Goal, *, first: bool) -> list[Key]:
    """Those that are not there yet; the others are told."""
    left = []
    for key in keys:
        obj = about.client.get(key)
        if goal.met(obj):
            click.echo(f"{reference(key.kind, key.name)} condition met")
        elif obj is None:
            if first:
                raise not_found(about.client, key)
            raise CliError(f"{key} was deleted", WAITED_FOR_FAILED)
        elif why := goal.lost(obj):
            raise CliError(f"{key}: {why}", WAITED_FOR_FAILED)
        else:
            left.append(key)
    return left


def _check_goal(kind: str, text: str) -> None:
    """Raises: CliError for a phase or a condition that the kind never has."""
    what, _, rest = text.partition("=")
    word = rest.partition("=")[0]
    if what == "condition":
        known = OWNED.get(kind, ())
    elif what == "phase" and registry.get(kind).group:
        status = registry.open_api_schema(kind)["properties"].get("status") or {}
        known = tuple((status.get("properties") or {}).get("phase", {}).get("enum") or ())
    else:
        return
    if word not in known:
        there = ", ".join(known) or "none"
        raise CliError(f'a {kind} has no {what} "{word}" (there are: {there})', USAGE)


def parse_goal(text: str) -> Goal:
    """The goal of ``--for``.

    Raises: CliError.
    """
    kind, _, rest = text.partition("=")
    if text == "delete":
        return Goal(lambda obj: obj is None, lambda _: None, "its deletion", for_delete=True)
    if kind == "phase" and rest:
        return _phase(rest)
    if kind == "condition" and rest:
        type_, _, status = rest.partition("=")
        return _condition(type_, status or "True")
    raise CliError(f'--for "{text}": condition=TYPE[=STATUS], phase=PHASE or delete')


def _phase(phase: str) -> Goal:
    def now(obj: Resource) -> str:
        return str((obj.get("status") or {}).get("phase") or "")

    def lost(obj: Resource) -> str | None:
        final = now(obj) in FINAL_PHASES and obj["kind"] != "Swarm"
        return f"is {now(obj)}" if final and phase in FINAL_PHASES else None

    return Goal(lambda obj: obj is not None and now(obj) == phase, lost, f"phase {phase}")


def _condition(type_: str, status: str) -> Goal:
    def met(obj: Resource | None) -> bool:
        if obj is None:
            return False
        found = find((obj.get("status") or {}).get("conditions") or [], type_)
        if found is None or found["status"].lower() != status.lower():
            return False
        generation = obj["metadata"].get("generation", 0)
        return int(found.get("observedGeneration") or generation) >= int(generation)

    def lost(obj: Resource) -> str | None:
        if type_ not in ("Complete", "Ready") or status.lower() != "true":
            return None
        outcome = outcomes.of(obj)
        return outcome.text if outcome is not None and not outcome.good else None

    return Goal(met, lost, f"condition {type_}={status}")
