"""``scale``, ``retry``, ``cancel``, ``suspend`` and ``resume``: one field of a living object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from cli import complete, following
from cli.errors import CliError
from cli.selectors import find, is_kind, key, one, pick, reference
from cli.session import session, verb
from controller.resources import kinds as registry
from controller.store.base import Key

if TYPE_CHECKING:
    from controller.store.base import Resource

RETRY = "codeswarm.dev/retry"
RETRIABLE = ("Failed", "Cancelled")


@verb("scale", no_args_is_help=True)
@click.argument(
    "what", nargs=-1, required=True, metavar="swarm/NAME", shell_complete=complete.any_object
)
@click.option("--replicas", type=click.IntRange(0), required=True, metavar="N", help="Workers.")
def scale(*, what: tuple[str, ...], replicas: int) -> None:
    """Set how many workers a swarm has. Idle ones go first; busy ones end their turn before.

    A later apply of a manifest that names `replicas` sets it back.

    \b
    Examples:
      codeswarm scale swarm/builders --replicas 8
      codeswarm scale builders --replicas 0
    """
    kind, name = one(what, default="Swarm")
    if kind.kind != "Swarm":
        raise CliError(f"a {kind.singular} cannot be scaled, only a swarm can")

    def change(obj: Resource) -> None:
        obj["spec"]["replicas"] = replicas

    _update(key(kind, session().namespace, name), change, "scaled")


def _update(wanted: Key, change: Callable[[Resource], None], word: str) -> None:
    client = session().client
    find(client, wanted)
    client.update(wanted, change)
    click.echo(f"{reference(wanted.kind, wanted.name)} {word}")
    client.ensure_controller(following.say)


def _tasks(names: Sequence[str], *others: str) -> list[Key]:
    """The keys of tasks, and of objects of other kinds where they are allowed."""
    keys = []
    if len(names) > 1 and is_kind(names[0]):
        names = [f"{names[0]}/{name}" for name in names[1:]]
    for word in names:
        kind, name = one([word], default="Task")
        if kind.kind not in ("Task", *others):
            raise CliError(f'"{word}" is no task')
        keys.append(key(kind, session().namespace, name))
    return keys


@verb("retry", no_args_is_help=True)
@click.argument(
    "what", nargs=-1, required=True, metavar="TASK... | swarm/NAME", shell_complete=complete.a_task
)
def retry(*, what: tuple[str, ...]) -> None:
    """Begin failed or cancelled tasks anew; their failures so far are not counted again.

    Of a swarm: ask its model's provider, or start its agents, again at once.

    \b
    Examples:
      codeswarm retry greeter.docs
      codeswarm retry task/greeter.docs task/greeter.command
      codeswarm retry swarm/builders
    """
    import secrets

    client = session().client
    keys = _tasks(what, "Swarm")
    for wanted in keys:
        phase = _phase(find(client, wanted))
        if wanted.kind == "Task" and phase not in RETRIABLE:
            raise CliError(
                f'task "{wanted.name}" is {phase or "Pending"}; only a failed or cancelled task '
                "can be retried"
            )
    for wanted in keys:
        token = secrets.token_hex(8)

        def change(obj: Resource, token: str = token) -> None:
            obj["metadata"].setdefault("annotations", {})[RETRY] = token
            if obj["spec"].get("cancel"):
                obj["spec"]["cancel"] = False

        word = "will be retried" if wanted.kind == "Task" else "will be tried again"
        _update(wanted, change, word)


def _phase(obj: Resource) -> str:
    return str((obj.get("status") or {}).get("phase") or "")


@verb("cancel", no_args_is_help=True)
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...", shell_complete=complete.a_task)
def cancel(*, tasks: tuple[str, ...]) -> None:
    """End tasks: a running turn is interrupted, what it has committed stays in its branch.

    \b
    Examples:
      codeswarm cancel greeter.docs
      codeswarm cancel task/one-question
    """
    client = session().client
    keys = _tasks(tasks)
    for wanted in keys:
        phase = _phase(find(client, wanted))
        if phase in ("Succeeded", "Failed"):
            raise CliError(f'task "{wanted.name}" is {phase} already')

    def change(obj: Resource) -> None:
        obj["spec"]["cancel"] = True

    for wanted in keys:
        _update(wanted, change, "cancelled")


@verb("suspend", no_args_is_help=True)
@click.argument(
    "what", nargs=-1, required=True, metavar="NAME | KIND/NAME", shell_complete=complete.any_object
)
def suspend(*, what: tuple[str, ...]) -> None:
    """Start nothing new of a project or task; running turns end as they are.

    \b
    Examples:
      codeswarm suspend project/greeter
      codeswarm suspend task/greeter.docs
    """
    _suspend(what, True, "suspended")


@verb("resume", no_args_is_help=True)
@click.argument(
    "what", nargs=-1, required=True, metavar="NAME | KIND/NAME", shell_complete=complete.any_object
)
def resume(*, what: tuple[str, ...]) -> None:
    """Go on with a suspended project or task.

    \b
    Example:
      codeswarm resume project/greeter
    """
    _suspend(what, False, "resumed")


def _suspend(what: Sequence[str], value: bool, word: str) -> None:
    about = session()
    wanted = pick(about.client, about.namespace, what, ("Project", "Task"))
    if wanted.kind not in ("Project", "Task"):
        plural = registry.get(wanted.kind).plural
        raise CliError(f"{plural} cannot be {word}; projects and tasks can")

    def change(obj: Resource) -> None:
        obj["spec"]["suspend"] = value

    _update(wanted, change, word)
