"""The cloud that tests share."""

from __future__ import annotations

from tests.cloud.machines import cloud

__all__ = ["cloud"]
