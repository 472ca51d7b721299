"""``codeswarm up``, ``down`` and ``stop-all``: the controller, and the end of everything."""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import click

from cli.confirming import confirm
from cli.errors import TIMED_OUT, UNAVAILABLE, CliError
from cli.options import duration
from cli.session import session, verb
from controller.store.base import Key, NotFound

if TYPE_CHECKING:
    from cli.client import Client


@verb("up")
def up() -> None:
    """Run the controller in the foreground; Ctrl-C stops it, workers run on.

    `apply` starts it in the background by itself when none runs. In a cluster the controller is
    a Deployment; this verb then says how to start it.

    \b
    Examples:
      codeswarm up
      CODESWARM_HOME=/srv/codeswarm codeswarm up
    """
    from cli import process

    _not_in_a_cluster("up", "1")
    home = session().home.ensure()
    found = process.state(home)
    if found.running:
        raise CliError(
            f"a controller already runs on {home.root} ({found.detail}); "
            "stop it with `codeswarm down`",
            UNAVAILABLE,
        )
    click.echo(f"controller on {home.root} (Ctrl-C stops it; workers run on)", err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, process.command(), process.environment(home))


@verb("down")
def down() -> None:
    """Stop the controller. Workers run on, and are adopted at its next start. (In a cluster this
    verb only says how.)

    \b
    Example:
      codeswarm down
    """
    from cli import process

    _not_in_a_cluster("down", "0")
    pid = process.stop(session().home)
    if pid is None:
        click.echo("no controller runs")
        return
    workers = sum(
        row["phase"] not in ("Launching", "Lost")
        for swarm in session().client.list("Swarm", None)
        for row in (swarm.get("status") or {}).get("workers") or ()
    )
    told = f"; {workers} worker{'s run' if workers > 1 else ' runs'} on" if workers else ""
    click.echo(f"controller stopped (pid {pid}){told}")


def _not_in_a_cluster(word: str, replicas: str) -> None:
    """Raises: CliError, in a cluster, with what to do there."""
    about = session()
    if not about.in_cluster:
        return
    from cli.kube_controller import kubectl

    command = kubectl(about.place.context)
    restart = f"; `{command} rollout restart deployment/codeswarm` begins it anew"
    raise CliError(
        f"`{word}` belongs to the file home; in a cluster the controller is a Deployment: "
        f"`{command} scale deployment/codeswarm --replicas={replicas}`"
        f"{restart if word == 'up' else ''}"
    )


@verb("stop-all")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("-A", "--all-namespaces", is_flag=True, help="In a cluster: of every namespace.")
@click.option("--force", is_flag=True, help="End workers at once, without their grace period.")
@click.option("--timeout", type=duration, default="5m", show_default=True, metavar="TIME")
def stop_all(*, yes: bool, all_namespaces: bool, force: bool, timeout: float) -> None:
    """Delete every swarm of every namespace and wait until all workers are gone. In a cluster,
    which others may share, it is the swarms of one namespace unless -A is given.

    Projects and tasks stay, and what they have finished stays in their branches.

    \b
    Examples:
      codeswarm stop-all
      codeswarm stop-all -y --force
      codeswarm stop-all --context team -A
    """
    from cli.delete import mark_forced

    about = session()
    client = about.client
    space = about.namespace if about.in_cluster and not all_namespaces else None
    keys = _swarms(client, space)
    if not keys:
        click.echo("no swarms" if space is None else f"no swarms in namespace {space}")
        return
    names = ", ".join(key.name if space else f"{key.namespace}/{key.name}" for key in keys)
    if not yes:
        confirm(f"Delete {len(keys)} swarm(s) ({names}) and end their workers?")
    with closing(client.watch()) as watch:
        for key in keys:
            try:
                if force:
                    mark_forced(client, key)
                client.delete(key)
            except NotFound:
                continue
        if _swarms(client, space):
            client.ensure_controller(lambda text: click.echo(text, err=True))
        deadline = time.monotonic() + timeout
        while left := [key for key in keys if client.get(key) is not None]:
            if time.monotonic() > deadline:
                raise CliError(
                    f"timed out waiting for {', '.join(map(str, left))} to be gone", TIMED_OUT
                )
            watch.wait(0.5)
    click.echo(f"{len(keys)} swarm(s) deleted, all workers have ended")


def _swarms(client: Client, namespace: str | None) -> list[Key]:
    found = client.list("Swarm", namespace)
    return [Key("Swarm", o["metadata"]["namespace"], o["metadata"]["name"]) for o in found]
