"""Whether EC2 can ever do what a manifest asks: judged from what was looked up, before it costs.

Pure.  What could not be looked up, because the credentials may not, is None and judges nothing.
Where a look is ours, the message names the code with which AWS itself would refuse.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from providers.aws_errors import FIELD
from providers.aws_quota import quota_code, vcpus
from providers.aws_values import PREFIX, VolumeWish, Wish
from providers.base import ProviderError

NFS_PORT = 2049
_PROFILE = re.compile(r"[\w+=,.@-]{1,128}")
_PROFILE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:instance-profile/[\w+=,.@/-]+")
_DEVICE = re.compile(r"/dev/(?:sd[b-z]|xvd[b-z][a-z]?)\d{0,2}")
_USERS = (
    (r"ubuntu", "ubuntu"),
    (r"^(?:al20\d\d|amzn)", "ec2-user"),
    (r"^debian", "admin"),
    (r"^rhel", "ec2-user"),
    (r"^rocky", "rocky"),
    (r"^(?:fedora|centos)", ""),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What EC2 told, as boto3 gives it; None: it could not be asked."""

    image: Mapping[str, Any] | None = None
    subnet: Mapping[str, Any] | None = None
    groups: Sequence[Mapping[str, Any]] | None = None
    type: Mapping[str, Any] | None = None
    zones: Collection[str] | None = None
    """Availability zones in which the type is offered."""
    quota: float | None = None
    """vCPUs of the type's family that may run."""
    in_use: int | None = None
    """vCPUs of it that run."""
    errors: Sequence[ProviderError] = field(default_factory=tuple)
    """What AWS itself refused while it was asked."""


def offline(wish: Wish) -> list[ProviderError]:
    """What is wrong with a wish whoever is asked."""
    found = []
    if wish.profile is not None and not (
        _PROFILE_ARN.fullmatch(wish.profile)
        if wish.profile.startswith("arn:")
        else _PROFILE.fullmatch(wish.profile)
    ):
        found.append(
            _wrong(
                "InstanceProfileNotFound",
                "iamInstanceProfile",
                f"{wish.profile!r} is no instance profile (InvalidParameterValue)",
                "give its name, or its ARN (arn:aws:iam::ACCOUNT:instance-profile/NAME)",
            )
        )
    if not _DEVICE.fullmatch(wish.device):
        found.append(
            _wrong(
                "DeviceNameInvalid",
                "deviceName",
                f"{wish.device} is no name for a second volume (InvalidParameterValue)",
                "give one of /dev/sdf to /dev/sdp",
            )
        )
    words = volume_problem(wish.volume)
    if words:
        found.append(_wrong("VolumeInvalid", "volume", f"{words} (InvalidParameterValue)", ""))
    found += [
        _wrong(
            "TagsInvalid",
            "tags",
            f"{key!r} cannot be a tag of yours (InvalidParameterValue)",
            f"a key has 1 to 128 characters and begins neither with aws: nor with {PREFIX}",
        )
        for key, _ in wish.tags
        if key.lower().startswith("aws:") or key.startswith(PREFIX) or not 1 <= len(key) <= 128
    ]
    return found


def volume_problem(volume: VolumeWish) -> str:
    """What does not go together in a volume; empty: it does.

    The ranges are those of "Amazon EBS volume types" (EBS user guide); AWS alone judges maxima that
    it keeps raising.
    """
    kind, size, iops = volume.type, volume.size_gib, volume.iops
    ratio = {"io1": 50, "io2": 1000}.get(kind, 0)
    wrong = (
        (
            volume.throughput is not None and kind != "gp3",
            f"throughput is for gp3, not for {kind}: leave it out",
        ),
        (
            iops is not None and kind not in ("gp3", "io1", "io2"),
            f"iops is for gp3, io1 and io2, not for {kind}: leave it out",
        ),
        (iops is None and ratio > 0, f"type {kind} needs iops: give it, or type gp3"),
        (
            size > 16384 and kind in ("gp2", "io1", "st1", "sc1"),
            f"{kind} has at most 16384 GiB: give a smaller sizeGib",
        ),
        (
            size < 125 and kind in ("st1", "sc1"),
            f"{kind} has at least 125 GiB: give a larger sizeGib",
        ),
        (
            ratio > 0 and (iops or 0) > ratio * size,
            f"{kind} has at most {ratio} iops a GiB: give at most {ratio * size}",
        ),
    )
    found = next((words for is_so, words in wrong if is_so), "")
    if not found and kind == "gp3":
        return _gp3_problem(size, iops or 3000, volume.throughput)
    return found


def _gp3_problem(size: int, iops: int, throughput: int | None) -> str:
    if iops < 3000:
        return "gp3 has at least 3000 iops: give more, or leave it out"
    if iops > max(3000, 500 * size):
        return f"gp3 has at most 500 iops a GiB: give at most {max(3000, 500 * size)}"
    if throughput is not None and throughput > iops / 4:
        return (
            "gp3 has at most 0.25 MiB/s for each of its iops: give throughput at most "
            f"{iops // 4}, or more iops"
        )
    return ""


def problems(wish: Wish, count: int, facts: Facts) -> list[ProviderError]:
    """Everything that is wrong, the first being what to mend first.

    Args:
        wish: what is asked.
        count: how many more instances are to be launched.
        facts: what was looked up.
    """
    return [
        *facts.errors,
        *offline(wish),
        *_image(wish, facts),
        *_network(wish, count, facts),
        *_type(wish, facts),
        *_quota(wish, count, facts),
    ]


def _image(wish: Wish, facts: Facts) -> list[ProviderError]:
    image, found = facts.image, []
    if image is None:
        return []
    if image.get("State") not in (None, "available"):
        found.append(
            _wrong(
                "ImageNotFound",
                "amiId",
                f"{wish.ami} is {image.get('State')} (InvalidAMIID.Unavailable)",
                "give an image that is available",
            )
        )
    if str(image.get("Platform") or "").lower() == "windows":
        found.append(
            _wrong("ImageUnsuitable", "amiId", f"{wish.ami} is Windows", "give an image of Linux")
        )
    has = image.get("Architecture")
    runs = ((facts.type or {}).get("ProcessorInfo") or {}).get("SupportedArchitectures") or []
    if has and runs and has not in runs:
        found.append(
            _wrong(
                "ArchitectureMismatch",
                "amiId",
                f"{wish.ami} is for {has}, and {wish.instance_type} runs {', '.join(runs)} "
                "(InvalidParameterValue)",
                "give an image for this processor, or another instanceType",
            )
        )
    taken = {str(one.get("DeviceName")) for one in image.get("BlockDeviceMappings") or ()}
    if wish.device in taken:
        found.append(
            _wrong(
                "DeviceNameInvalid",
                "deviceName",
                f"{wish.ami} has a disk {wish.device} of its own (InvalidParameterValue)",
                "give one of /dev/sdf to /dev/sdp",
            )
        )
    return found


def _network(wish: Wish, count: int, facts: Facts) -> list[ProviderError]:
    subnet, found = facts.subnet, []
    if subnet is not None:
        zone, free = subnet.get("AvailabilityZone"), subnet.get("AvailableIpAddressCount")
        if wish.zone and zone and zone != wish.zone:
            found.append(
                _wrong(
                    "ZoneNotFound",
                    "availabilityZone",
                    f"{wish.subnet} is in {zone}, not in {wish.zone} (InvalidParameterValue)",
                    f"give {zone}, or leave it out, or give another subnetId",
                )
            )
        if isinstance(free, int) and free < count:
            found.append(
                _wrong(
                    "SubnetFull",
                    "subnetId",
                    f"{wish.subnet} has {free} free addresses, and {count} are needed "
                    "(InsufficientFreeAddressesInSubnet)",
                    "give a larger subnet, or fewer instances",
                )
            )
    networks = {str(one.get("VpcId")) for one in facts.groups or () if one.get("VpcId")}
    if subnet is not None and subnet.get("VpcId"):
        networks.add(str(subnet["VpcId"]))
    if len(networks) > 1:
        found.append(
            _wrong(
                "SecurityGroupMismatch",
                "securityGroupIds",
                f"they and the subnet are in different networks: {', '.join(sorted(networks))} "
                "(InvalidParameter)",
                "give security groups of the subnet's own VPC",
            )
        )
    return found


def _type(wish: Wish, facts: Facts) -> list[ProviderError]:
    found = []
    zone = wish.zone or (facts.subnet or {}).get("AvailabilityZone")
    if facts.zones is not None:
        where = f"in {zone}" if zone else "in this region"
        if not facts.zones or (zone and zone not in facts.zones):
            others = ", ".join(sorted(facts.zones)) or "none of its zones"
            found.append(
                _wrong(
                    "InstanceTypeNotOffered",
                    "instanceType",
                    f"{wish.instance_type} is not offered {where} (Unsupported); it is in {others}",
                    "give another instanceType, or a subnetId or availabilityZone where it is",
                )
            )
    uses = (facts.type or {}).get("SupportedUsageClasses") or []
    if wish.spot and uses and "spot" not in uses:
        found.append(
            _wrong(
                "InstanceTypeNotOffered",
                "spot",
                f"{wish.instance_type} is not offered as spot instance (Unsupported)",
                "set spot: false, or give another instanceType",
            )
        )
    return found


def _quota(wish: Wish, count: int, facts: Facts) -> list[ProviderError]:
    each = vcpus(facts.type or {})
    if facts.quota is None or facts.in_use is None or not each or not count:
        return []
    needed = each * count
    if facts.in_use + needed <= facts.quota:
        return []
    code = "MaxSpotInstanceCountExceeded" if wish.spot else "VcpuLimitExceeded"
    return [
        _wrong(
            "QuotaExceeded",
            "instanceType",
            f"{count} x {wish.instance_type} need {needed} vCPUs, {facts.in_use} run already, and "
            f"this account's quota {quota_code(wish.instance_type, spot=wish.spot)} is "
            f"{facts.quota:g} ({code})",
            "end other instances, set fewer replicas, or ask for a higher quota (Service Quotas, "
            "Amazon EC2)",
        )
    ]


def warnings(wish: Wish, facts: Facts) -> list[str]:
    """What may be as it should, but often is not."""
    found = []
    name = str((facts.image or {}).get("Name") or "")
    for pattern, user in _USERS:
        if name and re.search(pattern, name, re.IGNORECASE):
            if user and user != wish.user:
                found.append(
                    f"{FIELD}.sshUser is {wish.user}; images like {name} let in {user} usually"
                )
            break
    if facts.groups:
        if not _opens(facts.groups, wish.ssh_port):
            found.append(
                f"{FIELD}.securityGroupIds: none of them lets TCP port {wish.ssh_port} in "
                "(SSH from the controller or its jump host)"
            )
        if not _opens(facts.groups, NFS_PORT):
            found.append(
                f"{FIELD}.securityGroupIds: none of them lets TCP port {NFS_PORT} in (NFS among "
                "the instances of a swarm): allow it from the group itself"
            )
    if facts.image is None:
        found.append("the image could not be looked at (ec2:DescribeImages)")
    return found


def _opens(groups: Sequence[Mapping[str, Any]], port: int) -> bool:
    return any(
        str(rule.get("IpProtocol")) == "-1"
        or (
            str(rule.get("IpProtocol")) in ("tcp", "6")
            and int(rule.get("FromPort", 0)) <= port <= int(rule.get("ToPort", 65535))
        )
        for group in groups
        for rule in group.get("IpPermissions") or ()
    )


def _wrong(reason: str, where: str, words: str, what: str) -> ProviderError:
    return ProviderError(reason, f"{FIELD}.{where}: {words}{': ' if what else ''}{what}")
