"""What Slurm says, understood: states, time limits, queues, accounting, partitions, errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import JobState, OutcomeUnknown, ProviderUnreachable
from providers.slurm_errors import Failed, trouble
from providers.slurm_query import (
    ClusterFacts,
    Node,
    Partition,
    Queued,
    comment_of,
    megabytes,
    parse_accounting,
    parse_config,
    parse_gres,
    parse_nodes,
    parse_partitions,
    parse_queue,
    room,
)
from providers.slurm_state import Standing, standing
from providers.slurm_time import lead_seconds, seconds_of_limit

UID = "0d9f6a1e-1111-4222-8333-444455556666"
JOB = "team-0d9f6a1e-0-1"


@pytest.mark.parametrize(
    ("states", "reason", "expected"),
    [
        ("PENDING", "Resources", Standing(JobState.PENDING, "Resources")),
        ("PD", "(QOSMaxJobsPerUser)", Standing(JobState.PENDING, "QOSMaxJobsPerUser")),
        ("PENDING", "None", Standing(JobState.PENDING, "Queued")),
        (["PENDING"], "Priority", Standing(JobState.PENDING, "Priority")),
        ("RUNNING", "None", Standing(JobState.RUNNING)),
        (["RUNNING", "SIGNALING"], "", Standing(JobState.RUNNING)),
        ("SIGNALING", "None", Standing(JobState.RUNNING)),
        ("RESIZING", "", Standing(JobState.RUNNING)),
        ("CF", "None", Standing(JobState.PENDING, "NodesBoot")),
        (["RUNNING", "CONFIGURING"], "None", Standing(JobState.PENDING, "NodesBoot")),
        ("SUSPENDED", "None", Standing(JobState.RUNNING, "Suspended", frozen=True)),
        ("ST", "", Standing(JobState.RUNNING, "Suspended", frozen=True)),
        ("COMPLETED", "None", Standing(JobState.ENDED, "Completed")),
        ("CANCELLED by 1000", "", Standing(JobState.ENDED, "Cancelled")),
        ("CANCELLED+", "", Standing(JobState.ENDED, "Cancelled")),
        ("TIMEOUT", "TimeLimit", Standing(JobState.ENDED, "TimeLimit")),
        ("NF", "NodeDown", Standing(JobState.ENDED, "NodeFail")),
        ("OUT_OF_MEMORY", "OutOfMemory", Standing(JobState.ENDED, "OutOfMemory")),
        ("PREEMPTED", "None", Standing(JobState.ENDED, "Preempted")),
        ("FAILED", "JobLaunchFailure", Standing(JobState.ENDED, "Failed")),
        ("FAILED", "RaisedSignal:53(Real-time_signal_19)", Standing(JobState.ENDED, "Failed")),
        ("COMPLETING", "TimeLimit", Standing(JobState.ENDED, "TimeLimit", completing=True)),
        ("CG", "None", Standing(JobState.ENDED, "Completing", completing=True)),
        (["TIMEOUT", "COMPLETING"], "", Standing(JobState.ENDED, "TimeLimit", completing=True)),
        (["PENDING", "COMPLETING"], "", Standing(JobState.PENDING, "Queued", completing=True)),
        ("REQUEUE_HOLD", "None", Standing(JobState.PENDING, "RequeueHold")),
        ("NEW_IN_SLURM_42", "None", Standing(JobState.RUNNING)),
    ],
)
def test_every_state_has_its_meaning(
    states: str | list[str], reason: str, expected: Standing
) -> None:
    assert standing(states, reason) == expected


@given(st.text() | st.lists(st.text()), st.text())
def test_no_word_is_too_strange(states: str | list[str], reason: str) -> None:
    assert len(standing(states, reason).reason) <= 200


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("04:00:00", 14400),
        ("2-00:00:00", 172800),
        ("1-12", 129600),
        ("1-12:30", 131400),
        ("UNLIMITED", None),
        ("infinite", None),
        ("soon", None),
        ("", None),
    ],
)
def test_time_limits_are_read_as_sbatch_reads_them(text: str, seconds: int | None) -> None:
    assert seconds_of_limit(text) == seconds


def test_a_worker_is_told_a_while_before_its_limit() -> None:
    assert [lead_seconds(limit) for limit in (60, 600, 3600, 14400)] == [20, 60, 300, 300]
    assert lead_seconds(None) > 0


# --- the queue ---------------------------------------------------------------------------------


def line(
    *, name: str = JOB, comment: str | None = None, state: str = "RUNNING", reason: str = "None",
    node: str = "n1",
) -> str:  # fmt: skip
    """As squeue prints a job of ours."""
    note = comment_of(UID, JOB, "ab12") if comment is None else comment
    return f"17|17|3|1795673812|2|500M|1|gres:gpu:1|main|{state}|{reason}|{node}|{name}|{note}"


def test_a_job_of_ours_is_read() -> None:
    (one,) = parse_queue(line() + "\n")
    assert (one.id, one.uid, one.job, one.token) == (17, UID, JOB, "ab12")
    assert (one.handle, one.submitted, one.cpus, one.memory_mb) == ("job 17_3", 1795673812, 2, 500)
    assert (one.partition, one.node, one.standing) == ("main", "n1", Standing(JobState.RUNNING))


def test_a_job_without_an_array_has_its_own_id() -> None:
    text = line().replace("17|17|3", "17|17|N/A")
    assert parse_queue(text)[0].handle == "job 17"


def test_what_sbatch_was_refused_is_no_job() -> None:
    assert parse_queue(line(state="FAILED", reason="BadConstraints", node="")) == []
    assert parse_queue(line(state="FAILED", reason="NonZeroExitCode", node="n1"))


@given(st.text(), st.text())
def test_names_of_others_are_never_ours(name: str, comment: str) -> None:
    ours = line()
    found = parse_queue("\n".join([line(name=name, comment=comment), ours]))
    if "codeswarm" not in name + comment:
        assert found == parse_queue(ours)


@given(st.text(alphabet="|\n\r ab:1-codeswarm", max_size=400))
def test_any_answer_is_borne(text: str) -> None:
    parse_queue(text)
    parse_config(text)
    parse_partitions(text)
    parse_nodes(text)
    parse_accounting(text, {1: "a"})


def test_a_name_that_is_not_that_of_the_comment_is_not_ours() -> None:
    assert parse_queue(line(name="other")) == []


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4096), ("500M", 500), ("1000", 1000), ("1.50G", 1536), ("100Mc", 100), ("?", 0)],
)
def test_sizes(text: str, size: float) -> None:
    assert megabytes(text) == size


def test_accounting_tells_how_a_forgotten_job_ended() -> None:
    text = (
        f"17|NODE_FAIL|0:0|{JOB}\n17|COMPLETED|0:0|somebody|else\n"
        "18|CANCELLED by 0|0:0|other\nnonsense\n"
    )
    assert parse_accounting(text, {17: JOB, 18: JOB}) == {17: Standing(JobState.ENDED, "NodeFail")}


# --- the cluster -------------------------------------------------------------------------------

CONFIG = """\
Configuration data as of 2026-11-26T06:16:55
AccountingStorageType   = accounting_storage/slurmdbd
MaxArraySize            = 501
SelectType              = select/linear
SelectTypeParameters    = CR_MEMORY
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at host is UP
"""
PARTITIONS = (
    "PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=YES"
    " DefaultTime=NONE MaxTime=UNLIMITED OverSubscribe=NO State=UP TotalCPUs=32\n"
    "PartitionName=gpu AllowAccounts=a,b DenyQos=slow Default=NO DefaultTime=01:00:00"
    " MaxTime=1-00:00:00 OverSubscribe=EXCLUSIVE State=DRAIN\n"
)


def test_the_cluster_describes_itself() -> None:
    assert parse_config(CONFIG) == ClusterFacts("22.05.8", 501, True, True, True)
    assert parse_config("") == ClusterFacts()
    found = parse_partitions(PARTITIONS)
    assert found["main"] == Partition("main", default=True)
    gpu = found["gpu"]
    assert (gpu.state, gpu.max_time, gpu.default_time) == ("DRAIN", 86400, 3600)
    assert (gpu.accounts, gpu.denied_qos, gpu.exclusive) == ({"a", "b"}, {"slow"}, True)


def job(cpus: int = 1, memory: float = 0.0, nodes: int = 1) -> Queued:
    """A job that asks for this much."""
    pending = Standing(JobState.PENDING, "Resources")
    return Queued(1, UID, JOB, "ab", pending, cpus=cpus, memory_mb=memory, nodes=nodes)


nodes_of_two = parse_nodes(
    "n1|8|4000|\nn1|8|4000|gpu:a100:4(S:0-1)\nn2|8+|4000|\nn2|4|8000|gpu:1,shard:2\n"
)


def test_room_is_counted_by_node() -> None:
    held = {"gpu": 4, "gpu:a100": 4}, {"gpu": 1, "shard": 2}
    assert nodes_of_two == [Node("n1", 8, 4000, held[0]), Node("n2", 4, 8000, held[1])]
    plain, memory = ClusterFacts(), ClusterFacts(counts_memory=True)
    main = [Partition("main")]
    assert room(nodes_of_two, plain, main, job(3)) == 3
    assert room(nodes_of_two, plain, main, job(1, 2000)) == 12
    assert room(nodes_of_two, memory, main, job(1, 2000)) == 2 + 4
    assert room(nodes_of_two, ClusterFacts(whole_nodes=True), main, job()) == 2
    assert room(nodes_of_two, plain, [Partition("x", exclusive=True)], job()) == 2


def test_generic_resources_count() -> None:
    plain, main = ClusterFacts(), [Partition("main")]
    like = replace(job(), gres={"gpu": 1})
    assert room(nodes_of_two, plain, main, like) == 4 + 1
    typed = replace(job(), gres={"gpu": 2, "gpu:a100": 2})
    assert room(nodes_of_two, plain, main, typed) == 2
    assert room(nodes_of_two, plain, main, replace(job(), gres={"nic": 1})) == 12, "not known"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gres:gpu:1", {"gpu": 1}),
        ("gres/gpu:tesla:2", {"gpu": 2, "gpu:tesla": 2}),
        ("gpu:a100:4(S:0,1),mps:100", {"gpu": 4, "gpu:a100": 4, "mps": 100}),
        ("gpu", {"gpu": 1}),
        ("N/A", {}),
        ("(null)", {}),
    ],
)
def test_generic_resources_are_read(text: str, found: dict[str, int]) -> None:
    assert parse_gres(text) == found


def test_where_it_cannot_be_counted_there_is_room() -> None:
    plain = ClusterFacts()
    assert room([], plain, [Partition("main")], job()) is None
    assert room(nodes_of_two, plain, [Partition("main", shared=True)], job()) is None
    assert room(nodes_of_two, plain, [Partition("main")], job(nodes=2)) is None


# --- errors ------------------------------------------------------------------------------------

SUBMIT = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize(
    ("err", "reason"),
    [
        (
            "sbatch: error: invalid partition specified: nope\n"
            f"{SUBMIT}Invalid partition name specified\n",
            "PartitionNotFound",
        ),
        (
            f"{SUBMIT}Invalid account or account/partition combination specified\n",
            "AccountNotFound",
        ),
        (f"{SUBMIT}Invalid qos specification\n", "QosNotFound"),
        (
            f"{SUBMIT}Requested time limit is invalid (missing or exceeds some limit)\n",
            "TimeLimitTooLong",
        ),
        (
            f"{SUBMIT}Required partition not available (inactive or drain)\n",
            "PartitionDown",
        ),
        (f"{SUBMIT}Requested node configuration is not available\n", "SubmissionRefused"),
        (
            "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
            f"{SUBMIT}Job violates accounting/QOS policy (job submit limit, user's size and/or "
            "time limits)\n",
            "SubmissionRefused",
        ),
        ("sbatch: unrecognized option '--bogus'\nTry \"sbatch --help\"", "SubmissionRefused"),
        ("sbatch: error: lua: a site's own words\n", "SubmissionRefused"),
        ("", "SubmissionRefused"),
    ],
)
def test_a_refusal_names_what_to_do(err: str, reason: str) -> None:
    error = trouble(Failed("sbatch", 1, err), "lab")
    assert error.reason == reason
    assert not isinstance(error, ProviderUnreachable | OutcomeUnknown)
    assert "sbatch: error" not in str(error).removeprefix("sbatch: ")


@pytest.mark.parametrize("command", ["sbatch", "squeue"])
def test_a_slurmctld_that_is_away_is_no_refusal(command: str) -> None:
    words = "Unable to contact slurm controller (connect failure)"
    error = trouble(Failed(command, 1, f"{command}: error: {words}"), "lab")
    assert isinstance(error, ProviderUnreachable)
    assert error.reason == "SlurmUnreachable"


@pytest.mark.parametrize(
    ("code", "err"),
    [(1, f"{SUBMIT}Socket timed out on send/recv operation\n"), (None, "")],
)
def test_a_submission_without_an_answer_is_in_doubt(code: int | None, err: str) -> None:
    assert isinstance(trouble(Failed("sbatch", code, err), "lab"), OutcomeUnknown)
    assert isinstance(trouble(Failed("squeue", code, err), "lab"), ProviderUnreachable)


def test_a_host_without_slurm_says_so() -> None:
    error = trouble(Failed("squeue", 127, "env: 'squeue': No such file or directory"), "lab")
    assert isinstance(error, ProviderUnreachable)
    assert error.reason == "SlurmNotFound" and "lab" in str(error)


@given(st.text(max_size=2000), st.integers(0, 255))
def test_what_a_command_said_fits_into_a_condition(err: str, code: int) -> None:
    assert len(str(trouble(Failed("sbatch", code, err), "lab"))) < 1000
