"""What a worker's folder and EC2 together say of it."""

from __future__ import annotations

import pytest

from providers.aws_values import Instance
from providers.aws_view import claim_of, judge
from providers.base import JobState, JobStatus
from providers.remote_values import JobFacts

NODE, LEADER = "i-node", "i-leader"


def folder(claim: str | None = f"{NODE} t {LEADER}", **more: object) -> JobFacts:
    given = {
        "job": "w-0-1", "prepared": True, "claim": claim, "failure": None, "begun": True,
        "heartbeat": 5.0, "ended": None, **more,
    }  # fmt: skip
    return JobFacts(**given)  # type: ignore[arg-type]


def seen(one: JobFacts, state: str = "running", reason: str = "") -> JobStatus | None:
    machine = Instance(NODE, state, state_reason=reason)
    return judge(one, {NODE: machine}, LEADER)


def test_a_worker_that_began_runs_where_it_says() -> None:
    status = seen(folder())
    assert status == JobStatus("w-0-1", JobState.RUNNING, "", 5.0, NODE)


def test_one_on_the_coordinator_frees_no_machine() -> None:
    machines = {id: Instance(id, "running") for id in (NODE, LEADER)}
    on_leader = judge(folder(f"{LEADER} t {LEADER}"), machines, LEADER)
    elsewhere = judge(folder(), machines, LEADER)
    assert on_leader is not None and on_leader.anchored
    assert elsewhere is not None and not elsewhere.anchored


def test_one_whose_folder_nobody_took_may_be_launched() -> None:
    assert seen(folder(claim=None, begun=False)) is None
    assert seen(folder(claim="", begun=False)) is None


def test_one_that_was_claimed_and_has_not_begun_is_about_to() -> None:
    status = seen(folder(begun=False))
    assert status is not None
    assert (status.state, status.reason) == (JobState.PENDING, "Starting")


def test_one_that_nobody_may_take_has_ended() -> None:
    status = seen(folder(claim="cancelled", begun=False))
    assert status is not None
    assert (status.state, status.reason) == (JobState.ENDED, "Cancelled")


def test_its_own_word_counts_before_the_machine() -> None:
    status = seen(folder(ended="exit 3"), "terminated")
    assert status is not None
    assert (status.state, status.reason) == (JobState.ENDED, "exit 3")


def test_why_it_could_not_begin_is_told() -> None:
    status = seen(folder(begun=False, failure=("PythonNotFound", "there is none")))
    assert status is not None
    assert (status.reason, status.message) == ("PythonNotFound", "there is none")


@pytest.mark.parametrize(
    ("state", "code", "reason"),
    [
        ("terminated", "Client.UserInitiatedShutdown", "InstanceTerminated"),
        ("terminated", "Server.SpotInstanceTermination", "SpotInterruption"),
        ("stopped", "Client.UserInitiatedShutdown", "InstanceStopped"),
    ],
)
def test_a_machine_that_ended_ends_its_workers(state: str, code: str, reason: str) -> None:
    status = seen(folder(), state, code)
    assert status is not None
    assert (status.state, status.reason) == (JobState.ENDED, reason)


@pytest.mark.parametrize("state", ["running", "stopping", "shutting-down", "pending"])
def test_one_that_is_about_to_end_still_has_them(state: str) -> None:
    status = seen(folder(), state)
    assert status is not None
    assert status.state is JobState.RUNNING


def test_a_machine_that_nobody_knows_is_gone() -> None:
    status = judge(folder(), {}, LEADER)
    assert status is not None
    assert (status.state, status.reason) == (JobState.ENDED, "InstanceGone")


def test_another_coordinator_has_none_of_the_workers_of_the_last() -> None:
    status = judge(folder(), {NODE: Instance(NODE, "running")}, "i-next")
    assert status is not None
    assert (status.state, status.reason) == (JobState.ENDED, "CoordinatorLost")


@pytest.mark.parametrize("text", [None, "", "cancelled", "one two", "one two three four"])
def test_only_three_words_are_a_claim(text: str | None) -> None:
    assert claim_of(text) is None
