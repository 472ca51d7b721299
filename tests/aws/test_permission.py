"""What may be begun on EC2 while a controller holds its lease, and when it is about to lose it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from controller.runtime import lease
from providers.aws_state import SiteState
from providers.base import ProviderUnreachable

LATEST_RENEWAL = lease.RENEW_SECONDS + lease._REQUEST_SECONDS
"""So old is what was renewed last, when the API server takes its time."""


def may(left: float) -> None:
    SiteState.may(cast(Any, SimpleNamespace(around=SimpleNamespace(left=lambda: left))))


def test_a_lease_that_is_renewed_in_time_lets_everything_be_begun() -> None:
    may(lease.DURATION_SECONDS - lease.MARGIN_SECONDS - LATEST_RENEWAL)


def test_nothing_is_begun_when_it_is_about_to_be_lost() -> None:
    with pytest.raises(ProviderUnreachable) as caught:
        may(1.0)
    assert caught.value.reason == "LeaseTooShort"
