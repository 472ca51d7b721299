"""Set-up logs of machines as transcripts: every line is there, under the time that it names."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.machine_logs import EVENT, is_machine, transcript

MACHINE = "i-0aa0aa0aa0aa0aa0a"


def records(text: str, at: float = 5.0) -> list[dict[str, Any]]:
    """What a log becomes."""
    return [json.loads(line) for line in transcript(MACHINE, text, at).splitlines()]


def test_lines_have_the_time_of_the_stamp_before_them() -> None:
    found = records("torn\n2026-01-02T03:04:05Z installing\nSetting up git\n\n")
    assert [(one["ts"], one["data"]["text"]) for one in found] == [
        (5.0, "torn"),
        (1767323045.0, "installing"),
        (1767323045.0, "Setting up git"),
    ]
    assert {one["event"] for one in found} == {EVENT}


def test_a_time_that_is_none_is_passed_over() -> None:
    assert records("2026-99-02T03:04:05Z x")[0]["ts"] == 5.0


@given(st.text())
def test_whatever_a_machine_says_becomes_records(text: str) -> None:
    assert all(isinstance(one["data"]["text"], str) for one in records(text))


def test_jobs_are_no_machines() -> None:
    assert is_machine(MACHINE)
    assert not any(map(is_machine, ("i-1a2b3c4d-0-1", "i-", "i-xyz", f"{MACHINE}\n", "../x")))
