"""``codeswarm delete``: end objects, by name or by manifest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import click

from cli import complete, following, manifests
from cli.ending import Told
from cli.errors import FAILURE, TIMED_OUT, CliError
from cli.lookout import Lookout
from cli.options import duration
from cli.progress import Progress
from cli.selectors import by_labels, label_predicate, not_found, parse
from cli.session import Session, session, verb
from controller.resources import kinds as registry
from controller.store.base import Key, NotFound

if TYPE_CHECKING:
    from cli.client import Client
    from controller.store.base import Resource

FORCE = "codeswarm.dev/force"
ABANDON = "codeswarm.dev/abandon"


@verb("delete", no_args_is_help=True)
@click.argument(
    "what", nargs=-1, metavar="[KIND NAME... | KIND/NAME...]", shell_complete=complete.only_kinds
)
@manifests.file_options(required=False)
@click.option("-l", "--selector", metavar="LABELS", help="Objects with these labels.")
@click.option("--all", "everything", is_flag=True, help="All objects of the kind.")
@click.option("--force", is_flag=True, help="Swarms: end workers at once, without grace.")
@click.option(
    "--abandon",
    is_flag=True,
    help="Swarms whose provider cannot be reached: let go; what runs there is left to itself, "
    "machines that cost too (`codeswarm doctor --aws`).",
)
@click.option("--wait/--no-wait", help="Wait until they are gone.")
@click.option("--timeout", type=duration, metavar="TIME", help="With --wait: at most so long.")
@click.option("--ignore-not-found", is_flag=True, help="What is not there is no error.")
def delete(
    *,
    what: tuple[str, ...],
    files: tuple[str, ...],
    recursive: bool,
    selector: str | None,
    everything: bool,
    force: bool,
    abandon: bool,
    wait: bool,
    timeout: float | None,
    ignore_not_found: bool,
) -> None:
    """Delete objects. A swarm's workers get their grace period first; deleting a swarm once more
    while it is being deleted ends them at once, as --force does.

    \b
    Examples:
      codeswarm delete -f quickstart.yaml
      codeswarm delete swarm builders --wait
      codeswarm delete task hello one-question
      codeswarm delete swarm/builders --force
      codeswarm delete swarm/gpu --abandon
    """
    about = session()
    if bool(files) == bool(what):
        raise click.UsageError("name objects, or manifests with -f")
    if files:
        keys = manifests.keys_of(manifests.load(files, recursive), about.namespace)
    else:
        keys = _named(about, what, selector, everything)
    with closing(about.client.watch()) as watch:
        ending, missing = _delete(about.client, keys, force=force, abandon=abandon)
        if not ignore_not_found and missing:
            errors = [str(not_found(about.client, key)) for key in missing]
            raise CliError("\nerror: ".join(errors), FAILURE)
        if wait:
            deadline = None if timeout is None else time.monotonic() + timeout
            lookout, told = Lookout(about.client, following.say), Told(Progress(following.say).line)
            with following.leave_running("the deletion goes on"):
                while ending:
                    left = [(key, uid) for key, uid in ending if _uid(about.client.get(key)) == uid]
                    for key in (key for key, uid in ending if (key, uid) not in left):
                        click.echo(f'{_kind(key)} "{key.name}" deleted')
                    ending = left
                    if ending and deadline is not None and time.monotonic() >= deadline:
                        names = ", ".join(str(key) for key, _ in ending)
                        raise CliError(f"timed out waiting for {names} to be gone", TIMED_OUT)
                    for obj in filter(None, (about.client.get(key) for key, _ in ending)):
                        told.tell(obj)
                    if ending:
                        lookout.look()
                        watch.wait(0.5)


def _named(
    about: Session, what: Sequence[str], selector: str | None, everything: bool
) -> list[Key]:
    predicate = label_predicate(selector)
    keys = []
    for selection in parse(what):
        kind = selection.kind.kind
        if selection.names is not None:
            keys += [Key(kind, about.namespace, name) for name in selection.names]
        elif predicate is not None or everything:
            found = by_labels(about.client.list(kind, about.namespace), predicate)
            keys += [Key(kind, about.namespace, obj["metadata"]["name"]) for obj in found]
        else:
            raise click.UsageError("name the objects, or choose them with -l or --all")
    return keys


def _delete(
    client: Client, keys: Sequence[Key], *, force: bool, abandon: bool
) -> tuple[list[tuple[Key, str]], list[Key]]:
    """Delete; those that go on ending with their uids, and those that were not there."""
    ending, missing = [], []
    for key in keys:
        live = client.get(key)
        if live is None:
            missing.append(key)
            continue
        again = "deletionTimestamp" in live["metadata"]
        try:
            forced = key.kind == "Swarm" and (force or again)
            if forced:
                mark_forced(client, key)
            if abandon and key.kind == "Swarm":
                _mark(client, key, ABANDON)
            client.delete(key, uid=live["metadata"]["uid"])
        except NotFound:
            forced = False  # it went by itself in this moment
        left = _uid(client.get(key)) == live["metadata"]["uid"]
        word = "deleting" if left else "deleted"
        if left:
            ending.append((key, live["metadata"]["uid"]))
        click.echo(f'{_kind(key)} "{key.name}" {"force " if forced else ""}{word}')
    if ending:
        client.ensure_controller(following.say)
    return ending, missing


def _kind(key: Key) -> str:
    kind = registry.get(key.kind)
    return f"{kind.singular}.{kind.group}" if kind.group else kind.singular


def mark_forced(client: Client, key: Key) -> None:
    """Ask for a swarm's workers to be ended at once when it is deleted.

    Raises: NotFound.
    """
    _mark(client, key, FORCE)


def _mark(client: Client, key: Key, annotation: str) -> None:
    def change(obj: Resource) -> None:
        obj["metadata"].setdefault("annotations", {})[annotation] = "true"

    client.update(key, change)


def _uid(obj: Resource | None) -> str | None:
    return None if obj is None else str(obj["metadata"]["uid"])
