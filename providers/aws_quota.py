"""Which of an account's quotas an instance type counts under, and how much of it is used. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

_LETTERS = re.compile(r"[a-z]+")
_STANDARD = frozenset({"a", "c", "d", "h", "i", "m", "r", "t", "z", "im", "is"})
_QUOTAS: Mapping[str, tuple[str, str]] = {
    "standard": ("L-1216C47A", "L-34B43A08"),
    "g": ("L-DB2E81BA", "L-3819A6DF"),
    "p": ("L-417A185B", "L-7212CCBC"),
    "f": ("L-74FC7D96", "L-88CF9481"),
    "x": ("L-7295265B", "L-E3A00192"),
    "inf": ("L-1945791B", "L-B5D1601B"),
    "trn": ("L-2C3B7624", "L-6B0D517C"),
    "dl": ("L-6E869C2A", "L-85EED4F7"),
    "u": ("L-43DA4232", ""),
    "hpc": ("L-F7808C92", ""),
}
"""Service Quotas' codes of running on-demand and spot vCPUs, by family of instance types."""


def family(instance_type: str) -> str:
    """Under which of Service Quotas' families an instance type counts; empty: it is not known."""
    found = _LETTERS.match(instance_type)
    letters = found.group() if found else ""
    if letters in _STANDARD:
        return "standard"
    if letters in ("g", "gr", "vt"):
        return "g"
    return letters if letters in _QUOTAS else ""


def quota_code(instance_type: str, *, spot: bool) -> str:
    """Service Quotas' code for instances like this; empty: it is not known."""
    of_family = _QUOTAS.get(family(instance_type), ("", ""))
    # P5 has a spot quota of its own, and others will.
    known = not (spot and family(instance_type) == "p" and instance_type[1:2] > "4")
    return of_family[1 if spot else 0] if known else ""


def vcpus(described: Mapping[str, Any]) -> int:
    """vCPUs of an instance type as DescribeInstanceTypes has it; 0: it does not say."""
    return int((described.get("VCpuInfo") or {}).get("DefaultVCpus") or 0)


def sharing(
    instances: Collection[Mapping[str, Any]], instance_type: str, *, spot: bool
) -> Counter[str]:
    """How many instances of each type count under the same quota.

    Args:
        instances: running ones, as DescribeInstances has them.
        instance_type: whose quota.
        spot: whether it is the one of spot instances.
    """
    return Counter(
        str(one.get("InstanceType"))
        for one in instances
        if family(str(one.get("InstanceType") or "")) == family(instance_type)
        and (one.get("InstanceLifecycle") == "spot") == spot
    )
