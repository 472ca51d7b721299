"""``codeswarm worker-host``: local workers for a controller in another container."""

from __future__ import annotations

from pathlib import Path

import click

from cli.session import verb


@verb("worker-host", no_args_is_help=True)
@click.option(
    "--socket",
    type=click.Path(path_type=Path, resolve_path=True),
    required=True,
    metavar="PATH",
    help="Unix socket to listen at (mode 0660).",
)
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path, resolve_path=True),
    required=True,
    metavar="DIR",
    help="Folder of workers, shared git objects and archives.",
)
@click.option(
    "--allow-uid",
    "uids",
    type=click.IntRange(0),
    required=True,
    multiple=True,
    metavar="N",
    help="User whose processes may speak to it; may be given several times.",
)
@click.option(
    "--workspace-root",
    "workspace_roots",
    type=click.Path(file_okay=False, path_type=Path, resolve_path=True),
    multiple=True,
    metavar="DIR",
    help="Folder below which a swarm's local.workspaceRoot may be; may be given several times.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long workers get to end when the host is stopped.",
)
def worker_host(
    *,
    socket: Path,
    root: Path,
    uids: tuple[int, ...],
    workspace_roots: tuple[Path, ...],
    grace: float,
) -> int:
    """Run local workers for a controller in another container.

    The controller finds it by the variable CODESWARM_WORKER_HOST. SIGTERM ends it, and its
    workers with it.

    \b
    Example:
      codeswarm worker-host --socket /run/codeswarm/host.sock --root /var/lib/codeswarm/work \\
        --allow-uid 10001
    """
    import logging
    import sys

    from providers.host import HostSettings, run

    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    return run(HostSettings(socket, root, frozenset(uids), workspace_roots, grace))
