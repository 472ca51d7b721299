"""``list``, ``inject``, ``attach``, ``terminate``, ``providers``: short for what others do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cli import complete, following, log_source, printing, table
from cli.logs import show
from cli.prompt import send, task_of
from cli.selectors import find
from cli.session import session, verb
from controller.resources import kinds as registry
from controller.store.base import Key

if TYPE_CHECKING:
    from controller.store.base import Resource

BUILT_IN = (
    ("local", "processes of this machine"),
    ("slurm", "jobs of a Slurm cluster, over SSH"),
    ("aws", "EC2 instances"),
)


@verb("list")
def list_swarms() -> None:
    """List swarms: `get swarms`.

    \b
    Example:
      codeswarm list
    """
    about = session()
    kind = registry.get("Swarm")
    found = about.client.list("Swarm", about.namespace)
    if not found:
        click.echo(f"No resources found in {about.namespace} namespace.", err=True)
        return
    text = printing.tables(
        [(kind, found)], wide=False, headers=True, with_namespace=False, now=time.time()
    )
    click.echo(text, nl=False)


@verb("inject", no_args_is_help=True)
@click.argument("swarm", shell_complete=complete.a_swarm)
@click.argument("text")
@click.option("--workers", "--nodes", default="idle", show_default=True, metavar="WHICH")
@click.option("--follow", is_flag=True, help="Show what the agents do until they are done.")
def inject(*, swarm: str, text: str, workers: str, follow: bool) -> None:
    """Send a prompt to workers of a swarm: `prompt`.

    \b
    Example:
      codeswarm inject builders "Go on with the tests" --workers all
    """
    about = session()
    send(about, task_of(about, swarm, text, workers), follow=follow)


@verb("attach", no_args_is_help=True)
@click.argument("swarm", shell_complete=complete.a_swarm)
@click.option("--tail", type=click.IntRange(0), default=20, show_default=True, metavar="N")
def attach(*, swarm: str, tail: int) -> None:
    """Show what a swarm's agents do, until Ctrl-C: `logs -f swarm/NAME`.

    \b
    Example:
      codeswarm attach builders
    """
    about = session()
    follow_swarm(swarm.removeprefix("swarm/"), tail)
    if about.client.get(Key("Swarm", about.namespace, swarm)) is None:
        click.echo(f"swarm {swarm} is gone", err=True)


def follow_swarm(name: str, tail: int | None) -> None:
    """Show a swarm's lines until it is gone or Ctrl-C is pressed."""
    about = session()
    source = log_source.of_swarm(about.client, about.namespace, name)
    with following.leave_running(f"the swarm runs on; `codeswarm terminate {name}` ends it"):
        show(about.client, source, follow=True, tail=tail)


@verb("terminate", no_args_is_help=True)
@click.argument("swarm", shell_complete=complete.a_swarm)
@click.option("--force", is_flag=True, help="End workers at once, without grace.")
@click.pass_context
def terminate(ctx: click.Context, /, *, swarm: str, force: bool) -> None:
    """End a swarm and its workers: `delete swarm NAME`.

    \b
    Examples:
      codeswarm terminate builders
      codeswarm terminate builders --force
    """
    from cli.delete import delete

    ctx.invoke(delete, what=("swarm", swarm.removeprefix("swarm/")), force=force)


@verb("providers")
def providers() -> None:
    """List where workers can run: built-in kinds, and the swarm classes that are declared.

    \b
    Example:
      codeswarm providers
    """
    about = session()
    rows = [[name, "built in", name, text] for name, text in BUILT_IN]
    rows += [_class_row(obj) for obj in about.client.list("SwarmClass", about.namespace)]
    click.echo(table.render(["NAME", "FROM", "PROVIDER", "DESCRIPTION"], rows), nl=False)


def _class_row(obj: Resource) -> list[str]:
    spec = obj["spec"]
    provider = ", ".join(spec.get("provider") or {})
    text = spec.get("label") or spec.get("description") or ""
    return [obj["metadata"]["name"], "SwarmClass", provider, text]


def provider_of(name: str) -> tuple[str | None, str]:
    """Class (None for a built-in kind) and kind of provider that ``--provider`` means.

    Raises: CliError when there is neither.
    """
    about = session()
    obj = about.client.get(Key("SwarmClass", about.namespace, name))
    if obj is None:
        if name in {word for word, _ in BUILT_IN}:
            return None, name
        obj = find(about.client, Key("SwarmClass", about.namespace, name))
    return name, next(iter(obj["spec"].get("provider") or {}), "local")
