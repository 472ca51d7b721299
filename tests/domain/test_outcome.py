"""What a finished turn means."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.outcome import (
    Outcome,
    Verdict,
    interruption_class,
    is_excused,
    lost,
    read_git,
    settle,
)
from controller.domain.retry import FailureClass

BASE, HEAD = "a" * 40, "b" * 40
GIT: dict[str, Any] = {
    "base_commit": BASE,
    "head_commit": HEAD,
    "attempt_ref": "refs/codeswarm/u/1",
    "branch": "codeswarm/p/t",
    "pushed": True,
    "files_changed": ["a.py"],
    "files_changed_count": 1,
}


def completed(**report: Any) -> dict[str, Any]:
    """A completed turn whose answer ends with this report."""
    return {"status": "completed", "answer": "ok\nTASK_RESULT\n" + json.dumps(report)}


def test_done_and_pushed_is_a_success_with_what_git_says() -> None:
    found = settle(completed(status="done", notes="n"), GIT, "work")
    assert found.verdict is Verdict.SUCCESS
    assert found.failure is None
    assert found.git is not None
    assert (found.git.head_commit, found.git.files_changed) == (HEAD, ("a.py",))
    assert found.result is not None
    assert found.result.notes == "n"
    assert found.warnings == ()


def test_git_is_right_where_the_report_differs() -> None:
    report = completed(
        status="done",
        head_commit="c" * 40,
        base_commit=BASE[:8],
        branch="other",
        files_changed=["a.py", "b.py"],
    )
    found = settle(report, GIT, "work")
    assert found.verdict is Verdict.SUCCESS
    assert found.git is not None
    assert found.git.head_commit == HEAD
    assert len(found.warnings) == 3
    assert "cccccccccccc" in found.warnings[0]
    assert "other" in found.warnings[1]
    assert "b.py" in found.warnings[2]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I am done.", "ResultMissing"),
        ("TASK_RESULT\n{", "ResultMalformed"),
        (None, "ResultMissing"),
    ],
)
@pytest.mark.parametrize("kind", ["work", "integration"])
def test_no_report_is_never_a_success(answer: str | None, reason: str, kind: str) -> None:
    found = settle({"status": "completed", "answer": answer}, GIT, kind)
    assert found.verdict is Verdict.FAILURE
    assert found.failure is FailureClass.TASK
    assert found.reason == reason
    assert found.git is not None, "where its commits are is kept all the same"


def test_an_integration_without_an_agent_needs_no_report_but_a_right_one() -> None:
    turn = {"status": "completed", "answer": "3 branches merged"}
    merged = {**GIT, "merges": [{"task": "t", "commit": HEAD, "state": "merged"}]}
    found = settle(turn, merged, "integration", report_required=False)
    assert found.verdict is Verdict.SUCCESS
    assert found.git is not None
    assert found.git.merges == (("t", HEAD, "merged"),)
    broken = {"status": "completed", "answer": "TASK_RESULT\n{"}
    again = settle(broken, merged, "integration", report_required=False)
    assert again.reason == "ResultMalformed"
    unpushed = settle(turn, {**merged, "pushed": False}, "integration", report_required=False)
    assert unpushed.verdict is Verdict.FAILURE


@pytest.mark.parametrize(
    ("status", "verdict", "reason"),
    [
        ("blocked", Verdict.ATTENTION, "Blocked"),
        ("needs_followups", Verdict.ATTENTION, "NeedsFollowups"),
        ("failed", Verdict.FAILURE, "ReportedFailed"),
    ],
)
def test_other_reports(status: str, verdict: Verdict, reason: str) -> None:
    found = settle(completed(status=status, notes="needs a key"), GIT, "work")
    assert (found.verdict, found.reason) == (verdict, reason)
    assert found.failure is FailureClass.TASK
    assert "needs a key" in found.message


@pytest.mark.parametrize("task", [None, {}, {**GIT, "head_commit": "HEAD"}, {**GIT, "pushed": 1}])
def test_done_without_proof_from_git_is_no_success(task: dict[str, Any] | None) -> None:
    found = settle(completed(status="done"), task, "work")
    assert found.verdict is Verdict.FAILURE
    assert found.failure is FailureClass.INFRASTRUCTURE
    assert found.reason in ("GitReportMissing", "NotPushed")


def test_a_prompt_needs_neither() -> None:
    found = settle({"status": "completed", "answer": "Hello."}, None, "prompt")
    assert (found.verdict, found.answer) == (Verdict.SUCCESS, "Hello.")


def test_a_plan_is_read_here() -> None:
    tasks = [{"task_id": "T-1", "prompt": "do it"}]
    answer = "TASK_GRAPH_JSON\n" + json.dumps({"tasks": tasks})
    found = settle({"status": "completed", "answer": answer}, None, "plan")
    assert found.verdict is Verdict.SUCCESS
    assert found.plan is not None
    assert found.plan.tasks[0].name == "t-1"
    bad = settle({"status": "completed", "answer": "no"}, None, "plan")
    assert (bad.reason, bad.failure) == ("PlanMissing", FailureClass.TASK)


def test_a_long_plan_is_read_whole_and_a_report_at_the_end_of_a_long_answer() -> None:
    tasks = [{"task_id": f"T-{n}", "prompt": "x" * 500} for n in range(1000)]
    answer = "TASK_GRAPH_JSON\n" + json.dumps({"tasks": tasks})
    found = settle({"status": "completed", "answer": answer}, None, "plan")
    assert found.plan is not None
    assert len(found.plan.tasks) == 1000
    turn = completed(status="done")
    turn["answer"] = "x" * 5_000_000 + "\n" + turn["answer"]
    assert settle(turn, GIT, "work").verdict is Verdict.SUCCESS


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("task", FailureClass.TASK),
        ("infrastructure", FailureClass.INFRASTRUCTURE),
        ("quota", FailureClass.QUOTA),
        ("overloaded", FailureClass.INFRASTRUCTURE),
        ("out_of_memory", FailureClass.INFRASTRUCTURE),
        ("auth", FailureClass.CREDENTIAL),
        ("branch_conflict", FailureClass.INFRASTRUCTURE),
        ("new-class", FailureClass.INFRASTRUCTURE),
        (None, FailureClass.INFRASTRUCTURE),
    ],
)
def test_errors_have_classes(name: str | None, failure: FailureClass) -> None:
    error = {"class": name, "message": "why", "retry_after_seconds": 7}
    found = settle({"status": "failed", "error": error}, None, "work")
    assert (found.verdict, found.failure) == (Verdict.FAILURE, failure)
    assert (found.message, found.retry_after) == ("why", 7.0)


@pytest.mark.parametrize(
    ("reason", "failure"),
    [
        ("Timeout", FailureClass.TIMEOUT),
        ("Stalled", FailureClass.TIMEOUT),
        ("Cancelled", FailureClass.CANCELLED),
        ("Superseded", FailureClass.SUPERSEDED),
        ("Suspended", FailureClass.SUPERSEDED),
        ("Refused", FailureClass.REFUSED),
        ("Whatever", FailureClass.INFRASTRUCTURE),
        ("", FailureClass.INFRASTRUCTURE),
    ],
)
def test_interruptions_have_classes(reason: str, failure: FailureClass) -> None:
    turn = {"status": "interrupted", "reason": reason}
    assert settle(turn, None, "work").failure is failure
    as_error = {"status": "failed", "reason": reason, "error": {"class": "interrupted"}}
    assert settle(as_error, None, "work").failure is failure
    assert interruption_class(reason) is failure


def test_our_own_reason_for_an_interruption_counts_more_than_the_workers() -> None:
    turn = {"status": "interrupted", "reason": "Cancelled"}
    found = settle(turn, None, "work", interrupt_reason="Timeout")
    assert (found.failure, found.reason) == (FailureClass.TIMEOUT, "Timeout")


def test_a_turn_that_was_done_before_the_interruption_came_counts() -> None:
    found = settle(completed(status="done"), GIT, "work", interrupt_reason="Timeout")
    assert found.verdict is Verdict.SUCCESS


def test_a_lost_worker() -> None:
    found = lost("WorkerLost", "signal 9")
    assert (found.verdict, found.failure) == (Verdict.FAILURE, FailureClass.INFRASTRUCTURE)


def test_counts_and_lists_are_bounded() -> None:
    facts = read_git({**GIT, "files_changed": ["f"] * 500 + [1], "files_changed_count": -3})
    assert facts is not None
    assert len(facts.files_changed) == 200
    assert facts.files_changed_count == 500
    long = settle(
        {"status": "failed", "error": {"class": "task", "message": "x" * 10**6}}, None, "w"
    )
    assert len(long.message) == 1024


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda v: st.lists(v, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["status", "answer", "error", "class", "message", "retry_after_seconds", "reason",
             "base_commit", "head_commit", "files_changed", "merges", "pushed", "task"]
        ),
        v | st.sampled_from(["completed", "failed", "interrupted", BASE, HEAD]),
        max_size=6,
    ),
    max_leaves=12,
)  # fmt: skip
records = junk.filter(lambda v: isinstance(v, dict))


@given(records, st.none() | records, st.sampled_from(["work", "integration", "plan", "prompt"]))
def test_no_record_makes_it_fail(turn: Any, task: Any, kind: str) -> None:
    found = settle(turn, task, kind)
    assert isinstance(found, Outcome)
    if found.verdict is Verdict.SUCCESS:
        assert turn["status"] == "completed"
        assert kind == "prompt"
    else:
        assert found.reason
        assert found.message
        assert found.failure is not None


@pytest.mark.parametrize(
    ("reason", "began_late", "excused"),
    [
        ("TimeLimit", False, False),
        ("TimeLimit", True, True),
        ("SpotInterruption", False, True),
        ("Stopped", False, True),
        ("WorkerLost", True, False),
    ],
)
def test_who_was_stopped_from_outside_has_not_failed(
    reason: str, began_late: bool, excused: bool
) -> None:
    """But for who had all the time that there is; another spot instance has no less or more."""
    found = settle({"status": "interrupted", "reason": reason}, GIT, "work")
    assert found.failure is FailureClass.INFRASTRUCTURE
    assert is_excused(found, began_late=began_late) == excused
