"""What RunInstances is asked, from a wish. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from providers import aws_parse as parse
from providers.aws_values import HOME_TAG, HOST_KEY_TAG, PREFIX, UID_TAG, WISH_TAG, Wish

ROOT_OF_TAG = f"{PREFIX}root-volume"
"""On root volumes, with the swarm's uid: they are no swarm's shared volume."""


def launch_request(
    wish: Wish,
    count: int,
    *,
    token: str,
    tags: Mapping[str, str],
    user_data: str,
    zone: str | None,
) -> dict[str, Any]:
    """What RunInstances is asked. Pure.

    Instances that are reached at public addresses are asked one for; those that are reached at
    private ones have what their subnet gives them.  For spot instances EC2 itself says what a
    shutdown does: it ends them.
    """
    request: dict[str, Any] = {
        "ImageId": wish.ami,
        "InstanceType": wish.instance_type,
        "MinCount": 1,
        "MaxCount": count,
        "ClientToken": token,
        "UserData": user_data,
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "InstanceMetadataTags": "disabled",
        },
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": parse.as_tags(some)}
            for kind, some in (("instance", tags), ("volume", root_tags(tags)))
            if some
        ],
    }
    if wish.spot:
        request["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {
                "SpotInstanceType": "one-time",
                "InstanceInterruptionBehavior": "terminate",
            },
        }
    else:
        request["InstanceInitiatedShutdownBehavior"] = "terminate"
    if wish.key_name:
        request["KeyName"] = wish.key_name
    if wish.profile:
        kind = "Arn" if wish.profile.startswith("arn:") else "Name"
        request["IamInstanceProfile"] = {kind: wish.profile}
    if zone:
        request["Placement"] = {"AvailabilityZone": zone}
    if wish.subnet and not wish.private_ip:
        interface: dict[str, Any] = {
            "DeviceIndex": 0,
            "SubnetId": wish.subnet,
            "AssociatePublicIpAddress": True,
            "DeleteOnTermination": True,
        }
        if wish.groups:
            interface["Groups"] = list(wish.groups)
        request["NetworkInterfaces"] = [interface]
        return request
    if wish.subnet:
        request["SubnetId"] = wish.subnet
    if wish.groups:
        request["SecurityGroupIds"] = list(wish.groups)
    return request


def root_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of an instance's own disks: whose they are, but not a swarm's shared volume's."""
    ours = {HOST_KEY_TAG, WISH_TAG, UID_TAG}
    made = {key: value for key, value in tags.items() if key not in ours}
    if HOME_TAG in tags and UID_TAG in tags:
        made[ROOT_OF_TAG] = tags[UID_TAG]
    return made


def kept_disks(images: Collection[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The disks of images, as DescribeImages has them, that would be left over: now they go too."""
    made = []
    for image in images:
        for one in image.get("BlockDeviceMappings") or ():
            disk = one.get("Ebs") or {}
            if one.get("DeviceName") and disk.get("DeleteOnTermination") is False:
                same = {key: disk[key] for key in ("VolumeSize",) if key in disk}
                changed = {"DeleteOnTermination": True, **same}
                made.append({"DeviceName": one["DeviceName"], "Ebs": changed})
    return made
