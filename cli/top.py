"""``codeswarm top``: a live view of swarms, workers, projects and tasks."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import click

from cli import overview
from cli.session import Session, session, verb

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@verb("top")
@click.option("--once", is_flag=True, help="Print one frame and end.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of all namespaces.")
def top(*, once: bool, all_namespaces: bool) -> None:
    """Show swarms, workers, projects and running tasks, live until Ctrl-C. Prints one frame
    where the output is no terminal.

    \b
    Examples:
      codeswarm top
      codeswarm top --once
    """
    from rich.console import Console

    console = Console(highlight=False)
    about = session()
    if once or not console.is_terminal:
        console.print(_frame(about, all_namespaces))
        return
    _live(about, console, all_namespaces)


def _frame(about: Session, all_namespaces: bool) -> RenderableType:
    from cli.frame import frame

    space = None if all_namespaces else about.namespace
    seen = overview.look(about.client, space)
    return frame(seen, about.client.controller(), space or "(all)", time.time())


def _live(about: Session, console: Console, all_namespaces: bool) -> None:
    """Draw anew when something changes, and once a second for the ages."""
    from rich.live import Live

    pause = 1.0 if about.in_cluster else 0.1  # a frame costs a cluster several requests
    with (
        closing(about.client.watch()) as watch,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            live.update(_frame(about, all_namespaces), refresh=True)
            watch.wait(1.0)
            time.sleep(pause)
