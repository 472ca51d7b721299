"""Facts from mail: the same for every order, repetition and tearing of the same records."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.usage import total
from controller.reconcile.turns import MAX_SESSIONS, Turns, parse

JOB = "builders-12345678-0-1"
TURNS = ("uid-a.1", "uid-b.1", f"{JOB}.system")


def line(seq, event, data, injection):
    record = {"seq": seq, "ts": 0.0, "job_id": JOB, "node_id": "n", "injection_id": injection,
              "event": event, "data": data}  # fmt: skip
    return json.dumps(record).encode()


words = st.text(max_size=5)
commits = st.sampled_from(["a" * 40, "b" * 40])
tokens = st.fixed_dictionaries({"input": st.integers(0, 99), "output": st.integers(0, 9)})
events = st.one_of(
    st.tuples(st.just("turn_started"), st.just({"attempt": 1})),
    st.tuples(st.just("task_started"), st.fixed_dictionaries({"base_commit": commits})),
    st.tuples(st.just("assistant"), st.fixed_dictionaries({"text": words})),
    st.tuples(
        st.just("usage"),
        st.fixed_dictionaries(
            {"session": st.sampled_from("st"), "model": st.just("m"), "total": tokens}
        ),
    ),
    st.tuples(
        st.just("command_completed"),
        st.fixed_dictionaries(
            {
                "source": st.just("merge"),
                "task": st.sampled_from("xyz"),
                "state": st.sampled_from(["conflict", "resolved"]),
            }
        ),
    ),
    st.tuples(st.just("exec_approval_required"), st.fixed_dictionaries({"request_id": words})),
    st.tuples(
        st.just("task_complete"),
        st.fixed_dictionaries({"head_commit": commits, "pushed": st.just(True)}),
    ),
    st.tuples(
        st.just("thread_status"),
        st.fixed_dictionaries({"status": st.sampled_from(["idle", "stopped"])}),
    ),
    st.tuples(
        st.just("turn_complete"),
        st.fixed_dictionaries({"status": st.just("completed"), "answer": words}),
    ),
)
outboxes = st.lists(st.tuples(events, st.sampled_from(TURNS)), max_size=25).map(
    lambda items: [line(n, e, d, i) for n, ((e, d), i) in enumerate(items, 1)]
)


def read(lines):
    turns = Turns()
    for data in lines:
        record = parse(data)
        if record is not None:
            turns.apply(JOB, record, 1.0)
    return turns


def facts(turns):
    """Everything but which event came last, which is only told to people."""
    worker = turns.workers.get(JOB)
    seen = {name: asdict(turn) for name, turn in turns.turns.items()}
    for turn in seen.values():
        turn["approvals"] = sorted(turn["approvals"])
    return seen, (worker.ready, worker.stopped) if worker else None


@given(outboxes, st.randoms(use_true_random=False))
def test_order_repetition_and_torn_lines_change_nothing(lines, chance):
    expected = facts(read(lines))
    mixed = lines + [data for data in lines if chance.random() < 0.5]
    mixed += [data[: chance.randrange(len(data))] for data in lines if chance.random() < 0.5]
    chance.shuffle(mixed)
    assert facts(read(mixed)) == expected


@given(outboxes, st.randoms(use_true_random=False))
def test_what_comes_again_later_brings_no_turn_back(lines, chance):
    expected = read(lines)
    repeated = []
    for number, data in enumerate(lines):
        repeated += [data, data[: chance.randrange(len(data))]]
        repeated += [old for old in lines[:number] if chance.random() < 0.2]
    turns = read(repeated)
    assert facts(turns) == facts(expected)
    running = {job: set(worker.running) for job, worker in turns.workers.items()}
    assert running == {job: set(worker.running) for job, worker in expected.workers.items()}


@given(outboxes)
@settings(max_examples=50)
def test_a_turn_that_is_forgotten_stays_forgotten(lines):
    turns = read(lines)
    for injection in list(turns.turns):
        turns.forget(injection)
    again = read_into(turns, lines)
    assert not again.turns
    assert not any(worker.active for worker in again.workers.values())


def read_into(turns, lines):
    for data in lines:
        record = parse(data)
        if record is not None:
            turns.apply(JOB, record, 2.0)
    return turns


def test_totals_of_sessions_that_start_again_add_up():
    use = lambda n, session, count: line(  # noqa: E731
        n, "usage", {"session": session, "model": "m", "total": {"input": count}}, TURNS[0]
    )
    turns = read([use(1, "s", 100), use(2, "s", 250), use(3, "t", 30), use(4, "s", 100)])
    assert total(turns.turns[TURNS[0]].usage).input == 280


def test_a_session_that_is_known_counts_on_when_there_are_too_many():
    use = lambda n, session, count: line(  # noqa: E731
        n, "usage", {"session": session, "model": "m", "total": {"input": count}}, TURNS[0]
    )
    many = [use(n, f"{n:03}", 1) for n in range(MAX_SESSIONS + 50)]
    turns = read([*many, use(999, "000", 7)])
    assert total(turns.turns[TURNS[0]].usage).input == MAX_SESSIONS - 1 + 7


def test_the_system_prompt_makes_no_worker_ready():
    turns = read([line(1, "turn_started", {"attempt": 1}, TURNS[2])])
    assert not turns.workers[JOB].ready
    assert turns.workers[JOB].active == TURNS[2]


def test_a_record_of_another_job_is_passed_over():
    forged = json.loads(line(1, "turn_complete", {"status": "completed"}, TURNS[0]))
    forged["job_id"] = "builders-12345678-1-1"
    turns = Turns()
    assert turns.apply(JOB, forged, 1.0) is None
    assert not turns.turns


def test_lines_that_are_no_records():
    good = json.loads(line(1, "usage", {}, TURNS[0]))
    for bad in (
        b"", b"{", b"[]", b"null", b"\xff", b'{"event": "usage"}', b"[" * 100_000,
        json.dumps({**good, "event": "nonsense"}).encode(),
        json.dumps({**good, "data": []}).encode(),
        json.dumps({**good, "injection_id": 7}).encode(),
    ):  # fmt: skip
        assert parse(bad) is None


def test_what_is_not_a_number_keeps_its_place_before_all_others():
    record = json.loads(line(1, "assistant", {"text": "first"}, TURNS[0]))
    odd = {**record, "seq": "x", "data": {"text": "odd"}}
    for order in ([record, odd], [odd, record]):
        turns = Turns()
        for item in order:
            turns.apply(JOB, item, 1.0)
        assert turns.turns[TURNS[0]].answer == "first"
    assert replace(turns.turns[TURNS[0]]).injection == TURNS[0]
