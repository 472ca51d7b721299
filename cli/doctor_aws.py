"""``codeswarm doctor --aws``: what Codeswarm has on EC2, whose it is, and the end of what is not.

EC2 is asked here, with this user's own credentials, not through the controller.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from cli import ages, style
from cli.confirming import confirm
from cli.errors import FAILURE
from cli.table import cell, render
from providers.aws_api import Boto, Clouds
from providers.aws_places import Places, place_in
from providers.aws_preflight import caller
from providers.aws_sweep import Found, Standing, removable, remove, survey
from providers.aws_values import Api
from providers.base import ProviderError

if TYPE_CHECKING:
    from cli.session import Session

_TONES = {Standing.LEFT: "FAIL", Standing.HOLDS: "WARN", Standing.KEPT: "WARN"}
_COLUMNS = ("ID", "WHAT", "STATE", "SWARM", "AGE", "IS")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for on the command line."""

    regions: Sequence[str] = ()
    endpoint: str | None = None
    remove: bool = False
    volumes: bool = False
    """Those too that were kept on purpose, or may hold work."""
    yes: bool = False


def run(about: Session, wanted: Wanted) -> None:
    """Look, say, and remove if asked to. Raises: Exit with 1, if something is left over."""
    named = [Api(region, wanted.endpoint) for region in dict.fromkeys(wanted.regions)]
    swarms = _apis(about)
    places = list(dict.fromkeys(named or [*swarms, *_remembered(about)]))
    if not places:
        click.echo("no region is known: no swarm here is or was on AWS; name one with --region")
        return
    trouble = asyncio.run(_all(about, wanted, places, must=frozenset(named or swarms)))
    if trouble:
        raise click.exceptions.Exit(FAILURE)


async def _all(
    about: Session, wanted: Wanted, places: Sequence[Api], must: Collection[Api]
) -> bool:
    """Whether something is left over, or could not be looked at."""
    clouds, homes = Clouds(), _identities(about)
    trouble = False
    try:
        for api in places:
            cloud = clouds.of(api)
            try:
                found = await _look(about, cloud, homes)
            except ProviderError as error:
                level = "FAIL" if api in must else "WARN"
                click.echo(f"{style.phase(level):<4}  {cell(f'{api}: {error}')}")
                trouble = trouble or api in must
                continue
            _show(api, cloud.account, found)
            if wanted.remove:
                trouble = await _remove(cloud, found, wanted) or trouble
            else:
                trouble = trouble or bool(removable(found, volumes=False))
    finally:
        await clouds.close()
    return trouble


async def _look(about: Session, cloud: Boto, homes: Collection[str]) -> list[Found]:
    async def known() -> frozenset[str]:
        return frozenset(str(o["metadata"]["uid"]) for o in about.client.list("Swarm", None))

    await caller(cloud)
    return await survey(cloud, homes, known)


def _show(api: Api, account: str, found: Sequence[Found]) -> None:
    where = f"{api}, account {account}" if account else str(api)
    if not found:
        click.echo(f"{style.phase('OK'):<4}  {where}: nothing of Codeswarm's is there")
        return
    counts = Counter(one.standing for one in found)
    said = ", ".join(f"{counts[kind]} {kind}" for kind in Standing if counts[kind])
    level = "FAIL" if counts[Standing.LEFT] else "OK"
    click.echo(f"{style.phase(level):<4}  {where}: {said}")
    rows = [
        (one.id, one.what, one.state, one.swarm, ages.human(time.time() - one.begun), one.standing)
        for one in found
    ]
    for line in render(_COLUMNS, rows).splitlines():
        click.echo(f"      {line}")


async def _remove(cloud: Boto, found: Sequence[Found], wanted: Wanted) -> bool:
    """Remove what is left over; whether something still is."""
    chosen = removable(found, volumes=wanted.volumes)
    spared = len(removable(found, volumes=True)) - len(chosen)
    if spared:
        click.echo(f"      {spared} volume(s) kept or with work are left: --volumes takes them too")
    if not chosen:
        return False
    instances = sum(one.kind == "instance" for one in chosen)
    volumes = len(chosen) - instances
    if not wanted.yes:
        confirm(
            f"End {instances} instance(s) and delete {volumes} volume(s) in {cloud.api}?",
            unasked="--yes removes without asking",
            nothing="nothing was removed",
        )
    left = await remove(cloud, chosen)
    for words in left:
        click.echo(f"{style.phase('FAIL'):<4}  {cell(words)}")
    if not left:
        click.echo(f"      {instances} instance(s) ended, {volumes} volume(s) deleted")
    return bool(left)


def _apis(about: Session) -> list[Api]:
    """Where the swarms that there are have their machines.

    On a cluster only what the controller has accepted: an endpoint may be anybody's.
    """
    found: list[Api] = []
    for swarm in about.client.list("Swarm", None):
        found += place_in((swarm.get("status") or {}).get("effective") or {})
        if not about.in_cluster:
            found += place_in(swarm.get("spec") or {})
    return list(dict.fromkeys(found))


def _remembered(about: Session) -> list[Api]:
    return [] if about.in_cluster else Places(about.home.aws_places).all()


def _identities(about: Session) -> frozenset[str]:
    """By which names the home marks what is its own."""
    if not about.in_cluster:
        return frozenset({about.home.identity})
    from cli.kube_client import KubeClient
    from cli.kube_controller import Controller

    client = about.client
    assert isinstance(client, KubeClient)
    return Controller(client.server, about.namespace).identities()
