"""``codeswarm apply``: make it so, and with ``--wait`` see it through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cli import following, manifests, outcomes
from cli.options import duration
from cli.selectors import reference
from cli.session import session, verb

if TYPE_CHECKING:
    from cli.client import Applied


@verb("apply", makes_home=True)
@manifests.file_options(required=True)
@click.option("--dry-run", is_flag=True, help="Check and tell what would change; change nothing.")
@click.option(
    "--wait", is_flag=True, help="Show what happens until swarms are ready and projects complete."
)
@click.option("--timeout", type=duration, metavar="TIME", help="With --wait: at most so long.")
def apply(
    *, files: tuple[str, ...], recursive: bool, dry_run: bool, wait: bool, timeout: float | None
) -> None:
    """Create or change objects as manifests say; all of them, or none if one is not right.

    What a manifest does not name stays as it is, such as replicas after `codeswarm scale`.
    The first apply starts the controller in the background.

    \b
    Examples:
      codeswarm apply -f swarm.yaml
      codeswarm apply -f manifests/ -R --dry-run
      codeswarm apply -f quickstart.yaml --wait --timeout 10m
      cat swarm.yaml | codeswarm apply -f -
    """
    about = session()
    client = about.client
    documents = manifests.load(files, recursive)
    if dry_run:
        _report(client.apply(documents, namespace=about.namespace, dry_run=True), " (dry run)")
        return
    with following.follower(client) as follower:
        if wait:
            follower.begin(manifests.keys_of(documents, about.namespace))
        applied = client.apply(documents, namespace=about.namespace)
        _report(applied, "")
        client.ensure_controller(following.say)
        if wait:
            keys = [one.key for one in applied if one.key.kind in outcomes.WAITABLE]
            with following.leave_running("everything goes on; `codeswarm status` shows it"):
                following.judge(follower.run(keys, timeout))


def _report(applied: Sequence[Applied], suffix: str) -> None:
    for one in applied:
        click.echo(f"{reference(one.key.kind, one.key.name)} {one.action}{suffix}")
