"""EC2's answers as boto3 gives them, read into our values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from providers.aws_values import Instance, Volume

_TIME = re.compile(r"\((\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2})(?:\.\d+)? (?:GMT|UTC)\)")


def instance(told: Mapping[str, Any]) -> Instance:
    """One instance of DescribeInstances' or RunInstances' answer."""
    transition = str(told.get("StateTransitionReason") or "")
    return Instance(
        id=str(told["InstanceId"]),
        state=str((told.get("State") or {}).get("Name") or ""),
        type=str(told.get("InstanceType") or ""),
        zone=str((told.get("Placement") or {}).get("AvailabilityZone") or ""),
        private_ip=str(told.get("PrivateIpAddress") or ""),
        public_ip=str(told.get("PublicIpAddress") or ""),
        launched_at=seconds(told.get("LaunchTime")),
        ended_at=ended_at(transition),
        spot=told.get("InstanceLifecycle") == "spot",
        state_reason=str((told.get("StateReason") or {}).get("Code") or ""),
        tags=tags(told),
    )


def volume(told: Mapping[str, Any]) -> Volume:
    """One volume of DescribeVolumes' answer, or CreateVolume's."""
    attachments = [
        one for one in told.get("Attachments") or () if one.get("State") not in (None, "detached")
    ]
    held = attachments[0] if attachments else {}
    return Volume(
        id=str(told["VolumeId"]),
        state=str(told.get("State") or ""),
        zone=str(told.get("AvailabilityZone") or ""),
        size_gib=int(told.get("Size") or 0),
        created_at=seconds(told.get("CreateTime")),
        attached_to=str(held.get("InstanceId") or ""),
        attachment=str(held.get("State") or ""),
        tags=tags(told),
    )


def ended_at(transition: str) -> float | None:
    """When an instance's state changed last, where its ``StateTransitionReason`` tells.

    ``User initiated (2026-11-26 10:00:00 GMT)``; empty for a running one, and without a time for
    one that AWS ended.
    """
    found = _TIME.search(transition)
    if found is None:
        return None
    try:
        moment = datetime.strptime(found.group(1), "%Y-%m-%d %H:%M:%S")
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC).timestamp()


def seconds(moment: object) -> float:
    """A time of boto3's as seconds since the epoch; 0.0 where there is none."""
    if not isinstance(moment, datetime):
        return 0.0
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return aware.timestamp()


def tags(told: Mapping[str, Any]) -> dict[str, str]:
    """The tags of anything."""
    return {str(one["Key"]): str(one.get("Value") or "") for one in told.get("Tags") or ()}


def as_tags(given: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as requests want them."""
    return [{"Key": key, "Value": value} for key, value in given.items()]
