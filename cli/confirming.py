"""Asking before something is lost."""

from __future__ import annotations

import sys

import click

from cli.errors import INTERRUPTED, USAGE, CliError


def confirm(
    question: str,
    *,
    unasked: str = "-y deletes without asking",
    nothing: str = "nothing was deleted",
) -> None:
    """Go on only if somebody says yes.

    Args:
        question: what would be done.
        unasked: what does it where nobody can answer.
        nothing: what is said when the answer is no.

    Raises: CliError, or Exit with 130, where the answer is not yes.
    """
    try:
        sure = click.confirm(question)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)
        raise CliError(f"nobody is there to answer; {unasked}", USAGE) from None
    if not sure:
        click.echo(nothing, err=True)
        raise click.exceptions.Exit(INTERRUPTED)
