"""Is all there that a swarm on EC2 needs? Asked before anything is paid for.

Few requests, side by side, and none again for minutes.  What the credentials may not look at is
left out: the launch itself says then what is wrong.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from providers import aws_check as check
from providers.aws_api import IDS, Boto, chunks
from providers.aws_errors import Asked, code_of, is_credentials, is_denied, trouble
from providers.aws_quota import quota_code, sharing, vcpus
from providers.aws_session import Clients
from providers.aws_values import Wish
from providers.base import ProviderError, ProviderUnreachable

LOG = logging.getLogger(__name__)
GOOD_SECONDS, BAD_SECONDS = 300.0, 20.0
"""For how long an answer counts."""
PAGES = 20
"""Of instances that run already, at most; more are not counted."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Kept:
    until: float
    warnings: Sequence[str]
    error: ProviderError | None


class Preflight:
    """Looks at wishes, and remembers what it found.

    Args:
        clock: monotonic, seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[tuple[Wish, int], _Kept] = {}

    async def __call__(self, cloud: Boto, wish: Wish, count: int) -> Sequence[str]:
        """Look whether a wish can come true.

        Args:
            cloud: EC2 of its region.
            wish: what each instance and the volume are to be.
            count: how many more instances are to be launched.

        Returns: what may be wrong.
        Raises: ProviderError, with all that is wrong, under the reason of the first;
            ProviderUnreachable, if nothing can be said.
        """
        key = (wish, count)
        kept = self._kept.get(key)
        if kept is None or self._clock() > kept.until:
            kept = await self._look(cloud, wish, count)
            self._kept = {k: one for k, one in self._kept.items() if self._clock() <= one.until}
            self._kept[key] = kept
        if kept.error is not None:
            raise kept.error
        return kept.warnings

    def forget(self) -> None:
        """A launch was refused all the same: look again."""
        self._kept.clear()

    async def _look(self, cloud: Boto, wish: Wish, count: int) -> _Kept:
        facts = await look(cloud, wish)
        wrong = check.problems(wish, count, facts)
        if not wrong:
            warnings = check.warnings(wish, facts)
            for text in warnings:
                LOG.warning("%s", text)
            return _Kept(self._clock() + GOOD_SECONDS, warnings, None)
        texts = list(dict.fromkeys(str(error) for error in wrong))
        message = (
            texts[0]
            if len(texts) == 1
            else "; ".join(f"({number}) {text}" for number, text in enumerate(texts, 1))
        )
        error = ProviderError(wrong[0].reason, message)
        return _Kept(self._clock() + BAD_SECONDS, (), error)


async def look(cloud: Boto, wish: Wish) -> check.Facts:
    """Look everything up. Raises: ProviderUnreachable, ProviderError (``RegionNotFound``)."""
    await caller(cloud)
    try:
        return await _all(cloud, wish)
    except BaseExceptionGroup as several:  # what ``except*`` raises is a group again
        ours = several.subgroup(ProviderError)
        if ours is None:
            raise
        raise ours.exceptions[0] from None


async def _all(cloud: Boto, wish: Wish) -> check.Facts:
    errors: list[ProviderError] = []

    async def ask(action: str, work: Callable[[Clients], T]) -> T | None:
        try:
            return await cloud.session.raw(work)
        except Exception as error:
            _judge(cloud, action, error, errors)
            return None

    async with asyncio.TaskGroup() as group:
        begin = group.create_task
        image = begin(ask("DescribeImages", lambda client: _image(client, wish)))
        subnet = begin(ask("DescribeSubnets", lambda client: _subnet(client, wish)))
        groups = begin(ask("DescribeSecurityGroups", lambda client: _groups(client, wish)))
        kind = begin(ask("DescribeInstanceTypes", lambda client: _type(client, wish)))
        zones = begin(ask("DescribeInstanceTypeOfferings", lambda client: _zones(client, wish)))
        begin(ask("DescribeKeyPairs", lambda client: _key_pair(client, wish)))
        begin(ask("DescribeAvailabilityZones", lambda client: _zone(client, wish)))
        begin(_quietly(cloud, lambda client: _profile(client, wish), errors))
        quota = begin(_quietly(cloud, lambda client: _quota(client, wish), errors))
        in_use = begin(_quietly(cloud, lambda client: _in_use(client, wish), errors))
    return check.Facts(
        image.result(),
        subnet.result(),
        groups.result(),
        kind.result(),
        zones.result(),
        quota.result(),
        in_use.result(),
        errors,
    )


def _judge(cloud: Boto, action: str, error: Exception, errors: list[ProviderError]) -> None:
    """Note what AWS refused. Raises: ProviderUnreachable, if there was no answer."""
    if is_denied(error):
        return
    known = trouble(error, Asked(action, str(cloud.api), effect=bool(code_of(error))))
    if isinstance(known, ProviderUnreachable) or not code_of(error):
        raise known from error
    errors.append(known)


async def _quietly(
    cloud: Boto, work: Callable[[Clients], T], errors: list[ProviderError]
) -> T | None:
    """Ask what is good to know, of services that need not be there."""
    try:
        return await cloud.session.raw(work)
    except Exception as error:
        if code_of(error) == "NoSuchEntity":
            errors.append(trouble(error, Asked("GetInstanceProfile", str(cloud.api), effect=True)))
        elif is_credentials(error):
            raise trouble(error, Asked("a look", str(cloud.api))) from error
        return None


async def caller(cloud: Boto) -> None:
    """Are the credentials good, and is the region there? ``cloud.account`` is known then.

    Raises: ProviderUnreachable, ProviderError (``RegionNotFound``).
    """
    try:
        told = await cloud.session.raw(lambda client: client("sts").get_caller_identity())
        cloud.account = str(told.get("Account") or "")
    except Exception as error:
        api = cloud.api
        known = trouble(error, Asked("GetCallerIdentity", str(api)))
        if code_of(error) and not is_credentials(error) and api.endpoint:
            return  # an endpoint of one's own need not have STS
        unknown = None if code_of(error) else await cloud.session.unknown_region(known)
        if unknown is not None:
            raise ProviderError(unknown.reason, str(unknown)) from error
        raise known from error


def _image(client: Clients, wish: Wish) -> Mapping[str, Any] | None:
    return _first(client("ec2").describe_images(ImageIds=[wish.ami]).get("Images"))


def _subnet(client: Clients, wish: Wish) -> Mapping[str, Any] | None:
    if not wish.subnet:
        return None
    return _first(client("ec2").describe_subnets(SubnetIds=[wish.subnet]).get("Subnets"))


def _groups(client: Clients, wish: Wish) -> list[Mapping[str, Any]] | None:
    if not wish.groups:
        return None
    told = client("ec2").describe_security_groups(GroupIds=list(wish.groups))
    return list(told.get("SecurityGroups") or ())


def _key_pair(client: Clients, wish: Wish) -> None:
    if wish.key_name:
        client("ec2").describe_key_pairs(KeyNames=[wish.key_name])


def _zone(client: Clients, wish: Wish) -> None:
    if wish.zone:
        client("ec2").describe_availability_zones(ZoneNames=[wish.zone])


def _type(client: Clients, wish: Wish) -> Mapping[str, Any] | None:
    told = client("ec2").describe_instance_types(InstanceTypes=[wish.instance_type])
    return _first(told.get("InstanceTypes"))


def _zones(client: Clients, wish: Wish) -> list[str]:
    told = client("ec2").describe_instance_type_offerings(
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": [wish.instance_type]}],
    )
    return [str(one.get("Location")) for one in told.get("InstanceTypeOfferings") or ()]


def _profile(client: Clients, wish: Wish) -> None:
    if wish.profile and not check.offline(wish):
        name = wish.profile.rpartition("/")[2]
        client("iam once").get_instance_profile(InstanceProfileName=name)


def _quota(client: Clients, wish: Wish) -> float | None:
    code = quota_code(wish.instance_type, spot=wish.spot)
    if not code:
        return None
    told = client("service-quotas once").get_service_quota(ServiceCode="ec2", QuotaCode=code)
    return float(told["Quota"]["Value"])


def _in_use(client: Clients, wish: Wish) -> int | None:
    if not quota_code(wish.instance_type, spot=wish.spot):
        return None
    pages = (
        client("ec2")
        .get_paginator("describe_instances")
        .paginate(
            Filters=[{"Name": "instance-state-name", "Values": ["running"]}],
            PaginationConfig={"PageSize": 500, "MaxItems": 500 * PAGES},
        )
    )
    running = [
        one
        for page in pages
        for group in page.get("Reservations") or ()
        for one in group.get("Instances") or ()
    ]
    counted = sharing(running, wish.instance_type, spot=wish.spot)
    # A quota counts the vCPUs that a type has, whatever CPU options an instance was given.
    each: dict[str, int] = {}
    for some in chunks(sorted(counted), IDS):
        told = client("ec2").describe_instance_types(InstanceTypes=some)
        each |= {str(one["InstanceType"]): vcpus(one) for one in told.get("InstanceTypes") or ()}
    return sum(each.get(name, 0) * number for name, number in counted.items())


def _first(found: Sequence[Mapping[str, Any]] | None) -> Mapping[str, Any] | None:
    return found[0] if found else None
