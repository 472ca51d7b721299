"""``codeswarm status``: how things stand, on one screen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cli import complete, overview, style, table
from cli.selectors import find
from cli.session import session, verb
from controller.store.base import Key

if TYPE_CHECKING:
    from controller.runtime.home import Home

SWARM_HEADERS = ("SWARM", "PHASE", "READY", "BUSY", "RUNTIME", "COST", "REASON")
PROJECT_HEADERS = (
    "PROJECT",
    "PHASE",
    "DONE",
    "RUNNING",
    "FAILED",
    "BRANCH",
    "COST",
    "REASON",
)
MAX_ATTENTION = 20


@verb("status")
@click.argument("swarm", required=False, shell_complete=complete.a_swarm)
def status(*, swarm: str | None) -> None:
    """Show controller, swarms, projects and what needs attention; or one swarm's workers.

    \b
    Examples:
      codeswarm status
      codeswarm status builders
    """
    about = session()
    state = about.client.controller()
    running = style.paint("running", "good") if state.running else style.paint("stopped", "warn")
    click.echo(f"Controller  {running} ({state.detail})")
    if about.in_cluster:
        click.echo(f"Context     {about.place.context}, namespace {about.namespace}")
    else:
        click.echo(f"Home        {about.home.root}")
        _http(about.home, state.running)
    if swarm is not None:
        _one(swarm.removeprefix("swarm/"))
        return
    seen = overview.look(about.client, about.namespace)
    if not (seen.swarms or seen.projects or seen.tasks):
        click.echo(f"\nNothing in namespace {about.namespace}: `codeswarm apply -f FILE` begins.")
        return
    _table(SWARM_HEADERS, overview.swarm_rows(seen))
    _table(PROJECT_HEADERS, overview.project_rows(seen))
    counts = overview.prompt_counts(seen)
    if counts:
        parts = ", ".join(f"{count} {phase}" for phase, count in sorted(counts.items()))
        click.echo(f"\nPrompts     {parts}")
    lines = overview.attention(seen)
    if lines:
        click.echo("\n" + style.paint("Needs attention", "warn"))
        for line in lines[:MAX_ATTENTION]:
            click.echo(f"  {table.cell(line)}")
        if len(lines) > MAX_ATTENTION:
            click.echo(f"  ... and {len(lines) - MAX_ATTENTION} more")


def _http(home: Home, running: bool) -> None:
    from controller.http.endpoint import EndpointFile

    endpoint = EndpointFile(home.http).read() if running else None
    if endpoint is not None:
        click.echo(f"HTTP        {endpoint.url}")


def _table(headers: tuple[str, ...], rows: list[list[str]]) -> None:
    if rows:
        click.echo()
        click.echo(table.render(headers, rows), nl=False)


def _one(name: str) -> None:
    about = session()
    obj = find(about.client, Key("Swarm", about.namespace, name))
    seen = overview.look(about.client, about.namespace)
    only = overview.Overview([obj], [], seen.tasks)
    _table(SWARM_HEADERS, overview.swarm_rows(only))
    headers = ("WORKER", "PHASE", "TASK", "SINCE", "REASON")
    _table(headers, overview.worker_rows(obj, time.time(), seen.tasks))
    waiting = overview.queue_of(seen, name)
    click.echo(f"\nWaiting prompts: {len(waiting)}")
