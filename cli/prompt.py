"""``codeswarm prompt``: text for a swarm's workers, as a Task that is named here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from cli import complete, following, log_source, outcomes
from cli.errors import WAITED_FOR_FAILED, CliError
from cli.logs import show
from cli.options import duration
from cli.selectors import find, reference
from cli.session import Session, session, verb
from controller.resources.kinds import API_VERSION
from controller.store.base import AlreadyExists, Key

if TYPE_CHECKING:
    from controller.store.base import Resource


@verb("prompt", no_args_is_help=True)
@click.argument("swarm", shell_complete=complete.a_swarm)
@click.argument("text")
@click.option(
    "--workers",
    default="idle",
    show_default=True,
    metavar="WHICH",
    help='idle (the first one idle), all, an index, or ranges such as "0,2-4".',
)
@click.option("--priority", type=int, metavar="N", help="Higher goes first.  [default: 0]")
@click.option("--timeout", type=duration, metavar="TIME", help="Longest time of the turn.")
@click.option("--follow", is_flag=True, help="Show what the agents do until they are done.")
@click.option("--name", metavar="NAME", help="Name of the Task; the same name twice is one prompt.")
def prompt(
    *,
    swarm: str,
    text: str,
    workers: str,
    priority: int | None,
    timeout: float | None,
    follow: bool,
    name: str | None,
) -> None:
    """Send a prompt to workers of a swarm. TEXT "-" is read from standard input.

    \b
    Examples:
      codeswarm prompt builders "Say hello" --follow
      codeswarm prompt builders "Who are you?" --workers all
      codeswarm prompt builders - --workers 0,2-3 --priority 10 < question.md
    """
    about = session()
    task = task_of(about, swarm, text, workers, name=name, priority=priority, timeout=timeout)
    send(about, task, follow=follow)


def task_of(
    about: Session,
    swarm: str,
    text: str,
    workers: str,
    *,
    name: str | None = None,
    priority: int | None = None,
    timeout: float | None = None,
) -> Resource:
    """The Task of a prompt.

    Raises: CliError when the swarm is not there, or the text is empty.
    """
    find(about.client, Key("Swarm", about.namespace, swarm))
    if text == "-":
        text = sys.stdin.read()
    if not text.strip():
        raise CliError("the prompt is empty")
    spec: dict[str, Any] = {
        "target": {"swarm": swarm, "workers": _workers(workers)},
        "prompt": text,
    }
    if priority is not None:
        spec["priority"] = priority
    if timeout is not None:
        spec["timeoutSeconds"] = timeout
    return {
        "apiVersion": API_VERSION,
        "kind": "Task",
        "metadata": {"name": name or _fresh_name(swarm), "namespace": about.namespace},
        "spec": spec,
    }


def _workers(text: str) -> int | str:
    from controller.resources.names import TargetError, parse_workers

    try:
        parse_workers(text)
    except TargetError as error:
        raise CliError(f"--{error}") from None
    return int(text) if text.isdigit() else text


def _fresh_name(swarm: str) -> str:
    import secrets

    return f"{swarm}-{secrets.token_hex(4)}"


def send(about: Session, task: Resource, *, follow: bool) -> None:
    """Create the Task, or find that it is there already, and follow it if asked.

    Raises: CliError.
    """
    client = about.client
    key = Key("Task", about.namespace, task["metadata"]["name"])
    try:
        client.create(task)
        click.echo(f"{reference('Task', key.name)} created", err=follow)
    except AlreadyExists:
        if not _same(find(client, key), task):
            raise CliError(f'another task "{key.name}" exists already') from None
        click.echo(f"{reference('Task', key.name)} unchanged", err=follow)
    client.ensure_controller(following.say)
    if not follow:
        return
    source = log_source.of_tasks(client, about.namespace, key, None)
    with following.leave_running(f"the task goes on; `codeswarm logs -f {key.name}` shows it"):
        show(client, source, follow=True)
    now = client.get(key)
    outcome = outcomes.of(now) if now is not None else outcomes.Outcome(False, "deleted")
    if outcome is not None and not outcome.good:
        raise CliError(f"{key}: {outcome.text}", WAITED_FOR_FAILED)


def _same(live: Resource, wanted: Resource) -> bool:
    return all(live["spec"].get(name) == value for name, value in wanted["spec"].items())
