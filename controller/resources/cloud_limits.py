"""What the settings let a manifest ask of AWS with the controller's own credentials. Pure.

Whoever may create a Swarm uses the controller's account: an instance profile gives its machines
rights, and an endpoint receives what the controller sends, its session's token included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.resources.errors import listed
from controller.resources.settings import AwsSettings


def refusal(
    block: Mapping[str, Any], allowed: AwsSettings, *, trusted: bool
) -> tuple[str, str] | None:
    """Why a provider block is refused: a condition's reason and message; None: it is not.

    Args:
        block: ``spec.provider.aws``.
        allowed: by the settings.
        trusted: whether manifests are those of the user whose credentials these are (the file
            home): endpoints need not be listed then.
    """
    endpoint = str(block.get("endpointUrl") or "")
    free = trusted and allowed.endpoints is None
    if endpoint and not free and not _listed(endpoint, allowed.endpoints or ()):
        return (
            "EndpointNotAllowed",
            f"spec.provider.aws.endpointUrl: {endpoint} is not among the settings' aws.endpoints "
            f"({listed(allowed.endpoints or ()) or 'there are none'}): leave it out for AWS's "
            "own, or have it added there",
        )
    profile = str(block.get("iamInstanceProfile") or "")
    profiles = allowed.instance_profiles
    if profile and profiles is not None and profile not in profiles:
        return (
            "InstanceProfileNotAllowed",
            f"spec.provider.aws.iamInstanceProfile: {profile} is not among the settings' "
            f"aws.instanceProfiles ({listed(profiles) or 'there are none'}): give one of them, "
            "written as it is there, or leave it out",
        )
    return None


def _listed(endpoint: str, endpoints: tuple[str, ...]) -> bool:
    return endpoint.rstrip("/") in {one.rstrip("/") for one in endpoints}
