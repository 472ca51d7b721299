"""Which processes belong to a job, decided on a process table."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import processes
from providers.identity import Marker
from providers.processes import Entry, Target, belonging

FOLDER = Path("/w/default/team/a")
TARGET = Target("a", FOLDER, worker=10)
MINE = Marker("a", str(FOLDER))


def table(*entries: Entry) -> dict[int, Entry]:
    """A process table."""
    return {entry.pid: entry for entry in entries}


def test_the_tree_the_session_and_the_marked_belong() -> None:
    entries = table(
        Entry(1, 0, 1),
        Entry(10, 1, 10, MINE),
        Entry(11, 10, 10),  # child
        Entry(12, 11, 12),  # grandchild in a session of its own, environment cleared
        Entry(13, 1, 10),  # orphan in the worker's session, environment cleared
        Entry(14, 1, 14, MINE),  # daemon
        Entry(15, 14, 15),  # daemon's child, environment cleared
        Entry(20, 1, 20),
        Entry(21, 20, 20, Marker("b", "/w/default/team/b")),
    )
    assert belonging(entries, [TARGET]) == {10, 11, 12, 13, 14, 15}


def test_a_namesake_of_another_home_does_not_belong() -> None:
    entries = table(Entry(5, 1, 5, Marker("a", "/elsewhere/default/team/a")))
    assert belonging(entries, [TARGET]) == set()


def test_a_dead_workers_number_means_nothing() -> None:
    entries = table(Entry(10, 1, 10), Entry(11, 10, 10))
    assert belonging(entries, [Target("a", FOLDER)]) == set()


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 30), st.sampled_from(["", "a", "b"])),
        max_size=30,
    ),
    st.sets(st.integers(1, 30), max_size=4),
    st.sets(st.integers(1, 30), max_size=6),
)
def test_belonging_is_closed_and_spares(
    rows: list[tuple[int, int, str]], spared: set[int], known: set[int]
) -> None:
    entries = table(
        *(
            Entry(pid, parent, session, Marker(job, "") if job else None)
            for pid, (parent, session, job) in enumerate(rows, 1)
        )
    )
    found = belonging(entries, [TARGET], known=known, spared=spared)
    assert not found & spared
    for entry in entries.values():
        if entry.pid in spared:
            continue
        root = entry.pid in known or entry.pid == 10 or entry.session == 10
        marked = entry.marker is not None and entry.marker.job == "a"
        assert (entry.pid in found) == (root or marked or entry.parent in found)


def test_a_child_begun_during_the_first_look_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has cleared its environment and left the session: only its parent gives it away."""
    living = table(Entry(1, 0, 1), Entry(10, 1, 10, MINE))
    handles: dict[int, Any] = {
        pid: SimpleNamespace(pid=pid, is_running=lambda: True) for pid in (1, 10, 11)
    }
    frozen: set[int] = set()

    def snapshot() -> tuple[dict[int, Entry], dict[int, Any]]:
        seen = dict(living)
        if 10 in living and 10 not in frozen:
            living[11] = Entry(11, 10, 11)
        return seen, handles

    def send(pid: int, number: signal.Signals, proven: Callable[[], bool]) -> bool:
        assert proven()
        if number is signal.SIGSTOP:
            frozen.add(pid)
        else:
            living.pop(pid)
            for child in [entry for entry in living.values() if entry.parent == pid]:
                living[child.pid] = Entry(child.pid, 1, child.session)
        return True

    monkeypatch.setattr(processes, "snapshot", snapshot)
    monkeypatch.setattr(processes, "_send", send)
    monkeypatch.setattr(processes, "reap", lambda process: None)
    processes.kill_all([Target("a", FOLDER)])
    assert set(living) == {1}
