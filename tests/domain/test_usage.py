"""Usage that counts once, whatever is replayed."""

import random

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.usage import (
    MAX_COUNT,
    ZERO,
    Entry,
    Source,
    Usage,
    add,
    by_model,
    entries_from_status,
    entries_to_status,
    entry,
    fold,
    from_status,
    from_tokens,
    merge,
    merge_since,
    to_status,
    total,
)

usages = st.builds(Usage, *[st.integers(0, 1000)] * 6)
sources = st.builds(
    Source, st.integers(1, 3), st.sampled_from(["j1", "j2"]), st.sampled_from(["s1", "s2"])
)
ledgers = st.lists(st.builds(Entry, sources, st.sampled_from(["m", "n"]), usages), max_size=8)


@given(ledgers, ledgers, ledgers)
def test_merging_is_idempotent_commutative_and_associative(
    a: list[Entry], b: list[Entry], c: list[Entry]
) -> None:
    assert merge(a, a) == merge(a)
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


growth = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 100), st.integers(0, 50)), min_size=1, max_size=8
)


@given(st.lists(growth, min_size=1, max_size=4), st.randoms(use_true_random=False), st.data())
def test_any_replay_of_an_outbox_changes_nothing(
    sessions: list[list[tuple[int, int, int]]], rng: random.Random, data: st.DataObject
) -> None:
    outbox: list[Entry] = []
    true = ZERO
    for number, steps in enumerate(sessions):
        so_far = ZERO
        for read, written, reasoned in steps:
            so_far += Usage(read, 0, 0, written, reasoned, read + written)
            outbox.append(Entry(Source(1, "j", f"s{number}"), "m", so_far))
        true += so_far
    ledger = merge(outbox)
    assert total(ledger) == true
    cut = data.draw(st.integers(0, len(outbox)))
    for replay in (outbox[:cut], outbox[cut:], outbox, list(reversed(outbox))):
        assert merge(ledger, replay) == ledger
    shuffled = outbox * 2
    rng.shuffle(shuffled)
    arrived: tuple[Entry, ...] = ()
    for record in shuffled:
        arrived = merge(arrived, [record])
    assert arrived == ledger


@given(ledgers, st.integers(1, 4))
def test_folding_keeps_the_sum_and_late_records_are_dropped(raw: list[Entry], keep: int) -> None:
    ledger = merge(raw)
    kept, folded = fold(ledger, ZERO, keep)
    assert add([folded, total(kept)]) == total(ledger)
    assert merge_since(keep, kept, ledger) == kept


@given(ledgers)
def test_status_round_trip(raw: list[Entry]) -> None:
    for found in merge(raw):
        status = entries_to_status([found])
        assert entries_from_status(found.source.attempt, found.source.job, status) == (found,)
    assert from_status(to_status(total(raw))) == total(raw)
    assert from_status(None) == ZERO
    assert add(by_model(raw).values()) == add(found.usage for found in raw)


def test_a_workers_record() -> None:
    found = entry(
        2,
        "job",
        {
            "session": "s",
            "model": "gpt",
            "total": {"input": 10, "cached_input": 4, "output": 3, "reasoning_output": 1},
        },
    )
    assert found.source == Source(2, "job", "s")
    assert found.usage == Usage(10, 4, 0, 3, 1, 13)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
                    lambda v: st.lists(v) | st.dictionaries(st.sampled_from(
                        ["input", "output", "total", "session", "model"]), v)))  # fmt: skip
def test_nonsense_is_no_usage_and_never_raises(value: object) -> None:
    usage = from_tokens(value)
    assert all(0 <= n <= 2 * MAX_COUNT for n in to_status(usage).values())
    if isinstance(value, dict):
        entry(1, "j", value)


def test_long_names_do_not_meet() -> None:
    a = entry(1, "j", {"session": "s" * 500 + "a", "total": {"input": 1}})
    b = entry(1, "j", {"session": "s" * 500 + "b", "total": {"input": 1}})
    assert len(merge([a, b])) == 2
    assert len(a.source.session) <= 128
