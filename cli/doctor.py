"""``codeswarm doctor``: is everything there that is needed, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from cli import style
from cli.errors import FAILURE
from cli.session import session, verb

if TYPE_CHECKING:
    from cli.checks import Check


@verb("doctor")
def doctor() -> None:
    """Check Python, git, the home, the controller, disk space and left-over workers; in a cluster
    the server, its kinds, your rights, the controller and whether transcripts can be read.

    Exits with 1 when something fails that Codeswarm cannot do without.

    \b
    Examples:
      codeswarm doctor
      codeswarm doctor --context team -n agents
    """
    failed = False
    for check in _checks():
        failed = failed or check.level == "FAIL"
        click.echo(line(check))
    if failed:
        raise click.exceptions.Exit(FAILURE)


def _checks() -> Iterator[Check]:
    about = session()
    if about.in_cluster:
        from cli import kube_checks
        from cli.kube_client import KubeClient

        client = about.client
        assert isinstance(client, KubeClient)
        return kube_checks.run(client, about.namespace)
    from cli import checks

    return checks.run(about.home)


def line(check: Check) -> str:
    """``OK    git         2.39.2``."""
    advice = f"; {check.advice}" if check.advice else ""
    return f"{style.phase(check.level):<4}  {check.name:<11} {check.text}{advice}"
