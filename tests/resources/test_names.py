"""Names of objects, jobs, branches and refs, and the workers of a target."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.resources import names
from controller.resources.names import TargetError, TargetMode, TargetWorkers, parse_workers


def test_names_are_those_that_all_parts_share() -> None:
    uid = "0123456789abcdef"
    assert names.task_object_name("greeter", "library") == "greeter.library"
    assert names.task_name_of("greeter.library", "greeter") == "library"
    assert names.child_task_name("hello", 3) == "hello.3"
    assert names.job_name("builders", uid, 2, 7) == "builders-01234567-2-7"
    assert names.job_prefix("b" * 50, uid) == f"{'b' * 30}-01234567"
    assert names.injection_id("uid", 2) == "uid.2"
    assert names.system_injection_id("job") == "job.system"
    assert names.task_branch("greeter", "docs") == "codeswarm/greeter/docs"
    assert names.integration_branch("greeter") == "codeswarm/greeter/integration"
    assert names.attempt_ref("uid", 3) == "refs/codeswarm/uid/3"


@pytest.mark.parametrize(
    ("task_id", "name"),
    [("T-001", "t-001"), ("add parser", "add-parser"), ("a.b/c", "a-b-c"), ("__x__", "x")],
)
def test_a_planners_id_becomes_a_name(task_id: str, name: str) -> None:
    assert names.task_name_from_id(task_id) == name


@pytest.mark.parametrize("task_id", ["integration", "PLAN", "", "日本", "x" * 33])
def test_what_is_no_name_by_itself_gets_a_hash(task_id: str) -> None:
    name = names.task_name_from_id(task_id)
    assert names.is_label(name, 32)
    assert name not in names.RESERVED_TASK_NAMES
    assert name == names.task_name_from_id(task_id)


def test_ids_that_differ_in_case_only_get_two_names() -> None:
    first = names.task_name_from_id("T1")
    second = names.task_name_from_id("t1", {first})
    assert first == "t1" and second != first and second.startswith("t1-")


@given(st.lists(st.text(max_size=60), unique=True, max_size=30))
def test_any_ids_get_distinct_valid_names(ids: list[str]) -> None:
    taken: list[str] = []
    for task_id in ids:
        taken.append(names.task_name_from_id(task_id, taken))
    assert len(set(taken)) == len(ids)
    assert all(names.is_label(n, names.MAX_TASK_NAME) for n in taken)
    assert not names.RESERVED_TASK_NAMES & set(taken)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("all", TargetWorkers(TargetMode.ALL)),
        ("idle", TargetWorkers(TargetMode.IDLE)),
        (3, TargetWorkers(TargetMode.INDICES, (3,))),
        ("3", TargetWorkers(TargetMode.INDICES, (3,))),
        ("0,2-4", TargetWorkers(TargetMode.INDICES, (0, 2, 3, 4))),
        ("4,0-2,1", TargetWorkers(TargetMode.INDICES, (0, 1, 2, 4))),
    ],
)
def test_workers_are_parsed(value: str | int, expected: TargetWorkers) -> None:
    assert parse_workers(value) == expected


@pytest.mark.parametrize("value", ["", "some", "3-1", "1,", "-1", "0-9999", -1, 10000, True, "1-"])
def test_workers_that_mean_nothing_are_refused(value: str | int) -> None:
    with pytest.raises(TargetError):
        parse_workers(value)


@given(st.text(alphabet="0123456789,- alidle٣", max_size=30))
def test_parsing_never_fails_in_another_way(value: str) -> None:
    try:
        found = parse_workers(value)
    except TargetError:
        return
    assert list(found.indices) == sorted(set(found.indices))
    assert len(found.indices) <= names.MAX_TARGET_WORKERS
