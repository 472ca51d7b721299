"""EC2 by boto3: what the AWS provider asks of it (``providers.aws_port``), each in a request."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from providers import aws_parse as parse
from providers.aws_errors import THROTTLED, code_of, is_denied
from providers.aws_requests import kept_disks, launch_request
from providers.aws_session import LIMITS, AwsSession, Clients, Limits
from providers.aws_values import UID_TAG, Api, Instance, Volume, Wish
from providers.base import ProviderError

FILTER_VALUES = 200
"""EC2 takes no more values for a filter."""
PAGE = 500
IDS = 100
"""Ids in one request."""
THROTTLED_TRIES = 4
_IDS = re.compile(r"\b(?:i|vol)-[0-9a-zA-Z]+")


class Boto:
    """EC2 of one region and endpoint (``providers.aws_port.Ec2``).

    Args:
        api: which.
        limits: of each call.
        may: as ``AwsSession`` has it.
    """

    def __init__(
        self, api: Api, limits: Limits = LIMITS, may: Callable[[], None] = lambda: None
    ) -> None:
        self.session = AwsSession(api, limits, may)
        self.account = ""
        """Id of the account whose credentials these are; empty: not known yet."""
        self._mappings: dict[str, list[dict[str, Any]]] = {}

    @property
    def api(self) -> Api:
        """Which EC2 this is."""
        return self.session.api

    @property
    def calls(self) -> int:
        """How many requests were sent, retries too."""
        return self.session.calls

    @property
    def by_action(self) -> Counter[str]:
        """How many requests were sent, by EC2's name of them."""
        return self.session.by_action

    async def close(self) -> None:
        """End its threads; nothing is sent any more."""
        await self.session.close()

    async def instances(self, uids: Collection[str]) -> list[Instance]:
        """All instances of swarms, by their tag; those that ended lately too."""
        return _instances(await self._listed("describe_instances", f"tag:{UID_TAG}", uids))

    async def volumes(self, uids: Collection[str]) -> list[Volume]:
        """All volumes of swarms, by their tag."""
        return _volumes(await self._listed("describe_volumes", f"tag:{UID_TAG}", uids))

    async def instances_having(self, key: str) -> list[Instance]:
        """All instances that have a tag, whatever its value. Raises: ProviderUnreachable."""
        return _instances(await self._listed("describe_instances", "tag-key", [key]))

    async def volumes_having(self, key: str) -> list[Volume]:
        """All volumes that have a tag, whatever its value. Raises: ProviderUnreachable."""
        return _volumes(await self._listed("describe_volumes", "tag-key", [key]))

    async def run(
        self,
        wish: Wish,
        count: int,
        *,
        token: str,
        tags: Mapping[str, str],
        user_data: str,
        zone: str | None,
    ) -> list[Instance]:
        """Launch up to ``count`` instances, one at least, in one request (``Ec2.run``).

        An answer that is lost is not asked for again here: whoever calls looks at the tags first.
        """
        request = launch_request(
            wish, count, token=token, tags=tags, user_data=user_data, zone=zone
        )
        kept = await self._kept_disks(wish.ami)
        if kept:
            request["BlockDeviceMappings"] = kept
        told = await self._once(
            "RunInstances", lambda client: client("ec2 once").run_instances(**request)
        )
        return [parse.instance(one) for one in told.get("Instances") or ()]

    async def terminate(self, ids: Sequence[str]) -> None:
        """Terminate instances; those that are not known any more are fine (``Ec2.terminate``)."""
        refused: ProviderError | None = None
        for some in chunks(list(dict.fromkeys(ids)), IDS):
            try:
                await self._terminate(some)
            except ProviderError as error:
                if error.reason != "OperationNotPermitted" or len(some) == 1:
                    raise
                # One that is protected keeps the others of its request alive.
                for one in some:
                    try:
                        await self._terminate([one])
                    except ProviderError as its:
                        if its.reason != "OperationNotPermitted":
                            raise
                        refused = its
        if refused is not None:
            raise refused

    async def _terminate(self, ids: list[str]) -> None:
        def work(client: Clients) -> None:
            _with_known(ids, lambda some: client("ec2").terminate_instances(InstanceIds=some))

        await self.session.ask("TerminateInstances", work, effect=True)

    async def tag(self, ids: Sequence[str], tags: Mapping[str, str]) -> None:
        """Set tags of instances or volumes."""
        for some in chunks(list(ids), IDS):
            await self._change("create_tags", Resources=some, Tags=parse.as_tags(tags))

    async def create_volume(
        self, wish: Wish, zone: str, *, token: str, tags: Mapping[str, str]
    ) -> Volume:
        """Create the shared volume in a zone; a lost answer is not asked for again."""
        asked = wish.volume
        request: dict[str, Any] = {
            "AvailabilityZone": zone,
            "Size": asked.size_gib,
            "VolumeType": asked.type,
            "ClientToken": token,
            "TagSpecifications": [{"ResourceType": "volume", "Tags": parse.as_tags(tags)}],
        }
        if asked.iops is not None:
            request["Iops"] = asked.iops
        if asked.throughput is not None:
            request["Throughput"] = asked.throughput
        told = await self._once(
            "CreateVolume", lambda client: client("ec2 once").create_volume(**request)
        )
        return parse.volume({**told, "Tags": told.get("Tags") or parse.as_tags(tags)})

    async def attach(self, volume: str, instance: str, device: str) -> None:
        """Begin to attach a volume; one that is attached there already is fine (``Ec2.attach``)."""
        try:
            await self._change("attach_volume", VolumeId=volume, InstanceId=instance, Device=device)
        except ProviderError as error:
            if error.reason not in ("VolumeInUse", "IncorrectState", "DeviceNameInvalid"):
                raise
            held = await self._volume(volume)
            if held is None or held.attached_to != instance or held.attachment == "detaching":
                raise

    async def detach(self, volume: str, *, force: bool = False) -> None:
        """Begin to detach a volume; one that is attached nowhere is fine."""
        fine = ("IncorrectState", "NotAttached", "VolumeNotFound")
        await self._change("detach_volume", fine, VolumeId=volume, Force=force)

    async def delete_volume(self, volume: str) -> None:
        """Delete a volume; one that is not there is fine."""
        await self._change("delete_volume", ("VolumeNotFound",), VolumeId=volume)

    async def impaired(self, ids: Collection[str]) -> set[str]:
        """Those of these running instances that fail EC2's own checks (``Ec2.impaired``)."""

        def work(client: Clients) -> set[str]:
            found: set[str] = set()

            def look(some: list[str]) -> None:
                told = client("ec2").describe_instance_status(InstanceIds=some)
                for one in told.get("InstanceStatuses") or ():
                    checks = (one.get("SystemStatus") or {}, one.get("InstanceStatus") or {})
                    if any(check.get("Status") == "impaired" for check in checks):
                        found.add(str(one.get("InstanceId")))

            for some in chunks(sorted(set(ids)), IDS):
                _with_known(some, look)
            return found

        return await self.session.ask("DescribeInstanceStatus", work) if ids else set()

    async def exists(self, instance: str) -> bool:
        """Whether EC2 knows an instance, ended or not (``Ec2.exists``)."""

        def work(client: Clients) -> bool:
            try:
                told = client("ec2").describe_instances(InstanceIds=[instance])
            except Exception as error:
                if code_of(error).startswith("InvalidInstanceID"):
                    return False
                raise
            return any(group.get("Instances") for group in told.get("Reservations") or ())

        return await self.session.ask("DescribeInstances", work)

    async def console(self, instance: str) -> str:
        """The last of what an instance printed on its console; empty, where there is none."""

        def work(client: Clients) -> str:
            try:
                told = client("ec2").get_console_output(InstanceId=instance, Latest=True)
            except Exception as error:
                # Only machines of the Nitro system tell the latest.
                if code_of(error) not in ("UnsupportedOperation", "InvalidParameterCombination"):
                    raise
                told = client("ec2").get_console_output(InstanceId=instance)
            return str(told.get("Output") or "")

        return await self.session.ask("GetConsoleOutput", work)

    async def _volume(self, volume: str) -> Volume | None:
        def work(client: Clients) -> Volume | None:
            told = client("ec2").describe_volumes(VolumeIds=[volume])
            found = told.get("Volumes") or ()
            return parse.volume(found[0]) if found else None

        return await self.session.ask("DescribeVolumes", work)

    async def _kept_disks(self, ami: str) -> list[dict[str, Any]]:
        """The disks of an image that would be left over: they are to go with the machine."""
        if ami not in self._mappings:

            def work(client: Clients) -> list[dict[str, Any]]:
                try:
                    told = client("ec2").describe_images(ImageIds=[ami])
                except Exception as error:
                    if is_denied(error) or code_of(error).startswith("InvalidAMIID"):
                        return []  # RunInstances itself says what is wrong
                    raise
                return kept_disks(told.get("Images") or ())

            # Kept, since a request that is repeated must be the same.
            self._mappings[ami] = await self.session.ask("DescribeImages", work)
        return self._mappings[ami]

    async def _listed(
        self, method: str, name: str, values: Collection[str]
    ) -> list[dict[str, Any]]:
        """The pages of a list, filtered."""

        def work(client: Clients) -> list[dict[str, Any]]:
            pages: list[dict[str, Any]] = []
            for some in chunks(sorted(set(values)), FILTER_VALUES):
                pages += (
                    client("ec2")
                    .get_paginator(method)
                    .paginate(
                        Filters=[{"Name": name, "Values": some}],
                        PaginationConfig={"PageSize": PAGE},
                    )
                )
            return pages

        return await self.session.ask(_action(method), work) if values else []

    async def _change(self, method: str, fine: Collection[str] = (), **request: Any) -> None:
        """Send a request that may be sent twice; the reasons in ``fine`` are no failures."""
        try:
            await self.session.ask(
                _action(method),
                lambda client: getattr(client("ec2"), method)(**request),
                effect=True,
            )
        except ProviderError as error:
            if error.reason not in fine:
                raise

    async def _once(self, action: str, work: Callable[[Clients], Any]) -> dict[str, Any]:
        """Send a request that must not be sent twice, unless AWS was too busy to take it."""
        for attempt in range(THROTTLED_TRIES):
            try:
                told: dict[str, Any] = await self.session.ask(action, work, effect=True)
            except ProviderError as error:
                if error.reason != THROTTLED or attempt + 1 == THROTTLED_TRIES:
                    raise
                await asyncio.sleep(random.uniform(0.5, 1.0) * 2**attempt)
            else:
                return told
        raise AssertionError("unreachable")


class Clouds:
    """One ``Boto`` for each region and endpoint.

    Args:
        limits: of each call.
        may: as ``AwsSession`` has it.
        seen: told of each, when it is first asked for.
    """

    def __init__(
        self,
        limits: Limits = LIMITS,
        may: Callable[[], None] = lambda: None,
        seen: Callable[[Api], None] = lambda _: None,
    ) -> None:
        self._limits = limits
        self._may = may
        self._seen = seen
        self._by_api: dict[Api, Boto] = {}

    def of(self, api: Api) -> Boto:
        """The one of a region and endpoint; nothing is sent or imported yet."""
        if api not in self._by_api:
            self._seen(api)
            self._by_api[api] = Boto(api, self._limits, self._may)
        return self._by_api[api]

    def all(self) -> list[Boto]:
        """All that were asked for."""
        return list(self._by_api.values())

    async def close(self) -> None:
        """Close them all."""
        held, self._by_api = self._by_api, {}
        for one in held.values():
            await one.close()


def _action(method: str) -> str:
    """EC2's name of what boto3 calls ``describe_instances``."""
    return "".join(word.capitalize() for word in method.split("_"))


def _instances(pages: Collection[Mapping[str, Any]]) -> list[Instance]:
    return [
        parse.instance(one)
        for page in pages
        for group in page.get("Reservations") or ()
        for one in group.get("Instances") or ()
    ]


def _volumes(pages: Collection[Mapping[str, Any]]) -> list[Volume]:
    return [parse.volume(one) for page in pages for one in page.get("Volumes") or ()]


def _with_known(ids: list[str], call: Callable[[list[str]], object]) -> None:
    """Call with instances' ids, and again without those that EC2 does not know."""
    left = ids
    while left:
        try:
            call(left)
            return
        except Exception as error:
            if not code_of(error).startswith("InvalidInstanceID"):
                raise
            unknown = set(_IDS.findall(str(error))) & set(left)
            if not unknown:
                break
            left = [one for one in left if one not in unknown]
    if len(left) > 1:  # which ones are unknown was not said
        for one in left:
            _with_known([one], call)


def chunks(values: list[str], size: int) -> list[list[str]]:
    """Values in groups of at most ``size``."""
    return [values[start : start + size] for start in range(0, len(values), size)]
