"""``codeswarm doctor``: is everything there that is needed, and what to do where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import style
from cli.errors import FAILURE
from cli.session import session, verb

if TYPE_CHECKING:
    from cli.checks import Check


@verb("doctor")
def doctor() -> None:
    """Check Python, git, the home, the controller, disk space and left-over workers.

    Exits with 1 when something fails that Codeswarm cannot do without.

    \b
    Example:
      codeswarm doctor
    """
    from cli import checks

    failed = False
    for check in checks.run(session().home):
        failed = failed or check.level == "FAIL"
        click.echo(line(check))
    if failed:
        raise click.exceptions.Exit(FAILURE)


def line(check: Check) -> str:
    """``OK    git         2.39.2``."""
    advice = f"; {check.advice}" if check.advice else ""
    return f"{style.phase(check.level):<4}  {check.name:<11} {check.text}{advice}"
