"""Conditions: order, reasons, and the time of the last flip."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.resources.conditions import (
    OWNED,
    STATUSES,
    find,
    initial_conditions,
    is_true,
    set_condition,
)


def test_the_time_moves_only_when_the_status_flips() -> None:
    one = set_condition([], "Ready", "False", "Starting", "", generation=1, now="t1")
    two = set_condition(one, "Ready", "False", "Waiting", "m", generation=2, now="t2")
    three = set_condition(two, "Ready", "True", "Ready", "", generation=2, now="t3")
    assert [c[0]["lastTransitionTime"] for c in (one, two, three)] == ["t1", "t1", "t3"]
    assert two[0]["reason"] == "Waiting" and two[0]["observedGeneration"] == 2
    assert one[0]["reason"] == "Starting"


def test_order_stays_and_others_are_left_alone() -> None:
    conditions = initial_conditions("Task", generation=1, now="t1")
    changed = set_condition(conditions, "Running", "True", "Turn", "", generation=1, now="t2")
    assert [c["type"] for c in changed] == list(OWNED["Task"])
    assert [c for c in changed if c["type"] != "Running"] == [
        c for c in conditions if c["type"] != "Running"
    ]


def test_find_and_is_true() -> None:
    conditions = set_condition([], "Ready", "True", "Ready", "", generation=1, now="t1")
    assert find(conditions, "Ready") is conditions[0]
    assert find(conditions, "Other") is None
    assert is_true(conditions, "Ready") and not is_true(conditions, "Other")


@pytest.mark.parametrize(("status", "reason"), [("true", "Fine"), ("True", "")])
def test_what_is_no_condition_is_refused(status: str, reason: str) -> None:
    with pytest.raises(ValueError, match="condition Ready"):
        set_condition([], "Ready", status, reason, "", generation=1, now="t")


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(STATUSES)), max_size=20))
def test_there_is_one_of_each_type_whatever_is_set(steps: list[tuple[str, str]]) -> None:
    conditions: list[dict[str, object]] = []
    flips: dict[str, str] = {}
    for i, (type, status) in enumerate(steps):
        if not any(c["type"] == type and c["status"] == status for c in conditions):
            flips[type] = f"t{i}"
        conditions = set_condition(conditions, type, status, "Some", "", generation=1, now=f"t{i}")
    assert [c["type"] for c in conditions] == list(flips)
    assert {c["type"]: c["lastTransitionTime"] for c in conditions} == flips
