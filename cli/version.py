"""``codeswarm version``."""

from __future__ import annotations

import platform

import click

from cli.session import verb


def product_version() -> str:
    """The installed version; ``unknown`` in a checkout that is not installed."""
    from importlib import metadata

    try:
        return metadata.version("codeswarm")
    except metadata.PackageNotFoundError:
        return "unknown"


@verb("version")
def version() -> None:
    """Print the version of Codeswarm, and of the Python that runs it.

    \b
    Example:
      codeswarm version
    """
    click.echo(f"codeswarm {product_version()} (Python {platform.python_version()})")
