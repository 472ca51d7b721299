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
@click.option("--aws", is_flag=True, help="What there is on EC2, and what no swarm owns any more.")
@click.option(
    "--region",
    "regions",
    multiple=True,
    metavar="REGION",
    help="With --aws: look there. Default: wherever this home has or had machines.",
)
@click.option("--endpoint-url", metavar="URL", help="With --region: another endpoint of AWS's API.")
@click.option("--remove", is_flag=True, help="With --aws: end what is left over, after a question.")
@click.option(
    "--volumes",
    is_flag=True,
    help="With --remove: volumes too that were kept on purpose or may hold work.",
)
@click.option("-y", "--yes", is_flag=True, help="With --remove: do not ask.")
def doctor(
    *,
    aws: bool,
    regions: tuple[str, ...],
    endpoint_url: str | None,
    remove: bool,
    volumes: bool,
    yes: bool,
) -> None:
    """Check Python, git, the home, the controller, disk space and left-over workers; in a cluster
    the server, its kinds, your rights, the controller and whether transcripts can be read. With
    --aws: what Codeswarm has on EC2.

    Exits with 1 when something fails that Codeswarm cannot do without, or something is left over.

    \b
    Examples:
      codeswarm doctor
      codeswarm doctor --context team -n agents
      codeswarm doctor --aws --region eu-central-1
      codeswarm doctor --aws --remove
    """
    if not aws and (regions or endpoint_url or remove or volumes or yes):
        raise click.UsageError("--region, --endpoint-url, --remove, --volumes, --yes go with --aws")
    if endpoint_url and not regions:
        raise click.UsageError("--endpoint-url goes with --region")
    if (volumes or yes) and not remove:
        raise click.UsageError("--volumes and --yes go with --remove")
    if aws:
        from cli import doctor_aws

        doctor_aws.run(session(), doctor_aws.Wanted(regions, endpoint_url, remove, volumes, yes))
        return
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
