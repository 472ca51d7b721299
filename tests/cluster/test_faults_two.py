"""Two controllers at once on one cluster: one works, and the other never does any harm."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from tests.cluster.faulty import QUICK_LEASE, KubeFaultLab, signal_to
from tests.cluster.proxy import Proxy
from tests.cluster.test_faults_api import a_project, check_all
from tests.faults.support import records


@pytest.fixture(autouse=True)
def quick(faulty: KubeFaultLab) -> None:
    """Nobody waits for long."""
    faulty.times = QUICK_LEASE


def begun(lab: KubeFaultLab, name: str = "demo.t0") -> list[str]:
    """A project in the middle: its first task is done."""
    names = a_project(lab, tasks=8, pause=1)
    lab.wait(lambda: lab.phase_of("Task", name) == "Succeeded", "the first task", 30)
    return names


def epochs(lab: KubeFaultLab) -> list[list[int]]:
    """Of what was delivered, by inbox, in order."""
    inboxes = lab.home.workspaces.glob("*/*/*/mailbox/inbox/*.jsonl")
    return [[r["epoch"] for r in records(inbox.read_bytes())] for inbox in inboxes]


def check_epochs(lab: KubeFaultLab) -> set[int]:
    """Who came later has the last word everywhere; all epochs."""
    found = epochs(lab)
    for inbox in found:
        assert inbox == sorted(inbox)
    return {epoch for inbox in found for epoch in inbox}


def test_the_second_waits_and_goes_on_when_the_first_is_killed(faulty: KubeFaultLab) -> None:
    first = faulty.start()
    second = faulty.start_waiting()
    status, said = faulty.ready(faulty.urls()[-1])
    assert status == 503
    assert str(first.pid) in said
    names = begun(faulty)
    first.kill()
    first.wait()
    check_all(faulty, names)
    assert second.poll() is None
    assert faulty.ready(faulty.urls()[-1])[0] == 200
    assert len(check_epochs(faulty)) == 2


def test_the_first_loses_contact(faulty: KubeFaultLab, proxy: Proxy) -> None:
    first = faulty.start()
    faulty.kubeconfig = faulty.cluster.kubeconfig
    faulty.start_waiting()
    names = begun(faulty)
    proxy.down()
    assert first.wait(20) == 5
    check_all(faulty, names)
    assert "was not renewed in time" in faulty.text()
    assert len(check_epochs(faulty)) == 2


def test_the_first_sleeps_and_wakes_up(faulty: KubeFaultLab, proxy: Proxy) -> None:
    """It writes nothing more, delivers nothing, starts nothing, and ends with a word."""
    first = faulty.start()
    faulty.kubeconfig = faulty.cluster.kubeconfig
    faulty.start_waiting()
    names = begun(faulty)
    signal_to(first, signal.SIGSTOP)
    ups = faulty.text().count("controller is up")
    faulty.wait(lambda: faulty.text().count("controller is up") > ups, "the second to go on", 30)
    now = time.monotonic()
    signal_to(first, signal.SIGCONT)
    assert first.wait(15) == 5
    check_all(faulty, names)
    # What it was about to send when it was stopped is refused by its version.
    writes = [(call, end) for at, call, end in proxy.calls if at > now and call.writes]
    assert [call for call, end in writes if not end.startswith("4")] == []
    assert "was not renewed in time" in faulty.text()
    assert len(check_epochs(faulty)) == 2


def test_somebody_deletes_the_lease(faulty: KubeFaultLab) -> None:
    first = faulty.start()
    faulty.start_waiting()
    names = begun(faulty)
    epoch = epoch_of(faulty.lease())
    faulty.cluster.request("DELETE", faulty.lease_path)
    assert first.wait(15) == 5
    assert "is held by nobody: it was deleted" in faulty.text()
    check_all(faulty, names)
    assert epoch_of(faulty.lease()) > epoch
    assert len(check_epochs(faulty)) == 2


def epoch_of(lease: dict[str, Any]) -> int:
    """A Lease's epoch."""
    return int(lease["metadata"]["annotations"]["codeswarm.dev/epoch"])
