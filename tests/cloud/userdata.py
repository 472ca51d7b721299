"""What cloud-init would make of an instance's UserData, as far as it concerns SSH."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class UserData:
    """The part that machines take."""

    host_key: str = ""
    """Private; empty: the machine makes one."""
    authorized_keys: tuple[str, ...] = ()


def read_user_data(given: Any) -> UserData:
    """Read it as cloud-init does: what is not ``#cloud-config`` is nothing of this.

    Args:
        given: moto's value, or None.
    """
    if not given:
        return UserData()
    text = base64.b64decode(str(given)).decode()
    if not text.startswith("#cloud-config\n"):
        return UserData()
    said = yaml.safe_load(text) or {}
    keys = said.get("ssh_keys") or {}
    return UserData(
        host_key=keys.get("ed25519_private", ""),
        authorized_keys=tuple(said.get("ssh_authorized_keys") or ()),
    )
