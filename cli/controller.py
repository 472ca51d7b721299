"""``codeswarm up``, ``down`` and ``stop-all``: the controller, and the end of everything."""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import click

from cli.errors import TIMED_OUT, UNAVAILABLE, CliError
from cli.options import duration
from cli.session import session, verb
from controller.store.base import Key, NotFound

if TYPE_CHECKING:
    from cli.client import Client


@verb("up")
def up() -> None:
    """Run the controller in the foreground; Ctrl-C stops it, workers run on.

    `apply` starts it in the background by itself when none runs.

    \b
    Examples:
      codeswarm up
      CODESWARM_HOME=/srv/codeswarm codeswarm up
    """
    from cli import process

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
    """Stop the controller. Workers run on, and are adopted at its next start.

    \b
    Example:
      codeswarm down
    """
    from cli import process

    pid = process.stop(session().home)
    if pid is None:
        click.echo("no controller runs")
    else:
        click.echo(f"controller stopped (pid {pid}); workers run on")


@verb("stop-all")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="End workers at once, without their grace period.")
@click.option("--timeout", type=duration, default="5m", show_default=True, metavar="TIME")
def stop_all(*, yes: bool, force: bool, timeout: float) -> None:
    """Delete every swarm of every namespace and wait until all workers are gone.

    Projects and tasks stay, and what they have finished stays in their branches.

    \b
    Examples:
      codeswarm stop-all
      codeswarm stop-all -y --force
    """
    from cli.delete import mark_forced

    client = session().client
    keys = _swarms(client)
    if not keys:
        click.echo("no swarms")
        return
    names = ", ".join(key.name for key in keys)
    if not yes:
        click.confirm(f"Delete {len(keys)} swarm(s) ({names}) and end their workers?", abort=True)
    with closing(client.watch()) as watch:
        for key in keys:
            try:
                if force:
                    mark_forced(client, key)
                client.delete(key)
            except NotFound:
                continue
        if _swarms(client):
            client.ensure_controller(lambda text: click.echo(text, err=True))
        deadline = time.monotonic() + timeout
        while left := [key for key in keys if client.get(key) is not None]:
            if time.monotonic() > deadline:
                raise CliError(
                    f"timed out waiting for {', '.join(map(str, left))} to be gone", TIMED_OUT
                )
            watch.wait(0.5)
    click.echo(f"{len(keys)} swarm(s) deleted, all workers have ended")


def _swarms(client: Client) -> list[Key]:
    found = client.list("Swarm", None)
    return [Key("Swarm", o["metadata"]["namespace"], o["metadata"]["name"]) for o in found]
