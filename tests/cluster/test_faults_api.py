"""The way to the API server is broken: away for a while, expired, silent, busy, losing answers."""

from __future__ import annotations

import time

import pytest

from tests.cluster.faulty import QUICK_LEASE, KubeFaultLab, forgiving
from tests.cluster.proxy import Answer, Call, Cut, Fault, Proxy, chance
from tests.faults.support import USE, check_branches, check_turns, check_usage, check_workers
from tests.lab import prompt, script, swarm, work

SEED = 20260802
SEEDS = [SEED, *(pytest.param(SEED + n, marks=pytest.mark.soak) for n in range(1, 12))]


def at_random(call: Call) -> bool:
    """Requests on our kinds and what belongs to them; the Lease is left alone."""
    return not call.path.endswith("/leases/codeswarm-controller")


def a_project(lab: KubeFaultLab, tasks: int = 10, pause: float = 0) -> list[str]:
    """A project of some tasks, all of them after the first."""
    repository = lab.repository()
    names = [f"t{number}" for number in range(tasks)]
    listed = [
        work(n, USE, f"sleep: {pause}", depends_on=names[:1] if n != names[0] else [])
        for n in names
    ]
    lab.apply(swarm(replicas=3), lab.project(repository, tasks=listed), prompt("p", script(USE)))
    return names


def check_all(lab: KubeFaultLab, names: list[str]) -> None:
    """Nothing lost, nothing doubled, and nothing unseemly in the log."""
    lab.converge(lambda: lab.phase_of("Project", "demo") == "Completed", "the project", 90)
    lab.converge(lambda: lab.phase_of("Task", "p") == "Succeeded", "the prompt")
    for name in (*(f"demo.{n}" for n in names), "p"):
        assert [a.get("class") for a in lab.attempts(name)] == [None], name
    assert all(turn.complete for turn in check_turns(lab).values())
    check_usage(lab, "demo")
    check_workers(lab)
    check_branches(lab, lab.path / "repo.git", "demo", names)
    lab.check_log()


REFUSALS: dict[Fault, float] = {
    Answer(409, "Conflict"): 0.06,
    Answer(422, "Invalid"): 0.03,
    Answer(429, "TooManyRequests", after="1"): 0.03,
    Answer(500, "InternalError"): 0.03,
    Answer(503, "ServiceUnavailable"): 0.03,
}


@pytest.mark.parametrize("seed", SEEDS)
def test_refusals_at_random(faulty: KubeFaultLab, proxy: Proxy, seed: int) -> None:
    proxy.rules.append(chance(seed, REFUSALS, at_random))
    faulty.start()
    names = a_project(faulty)
    check_all(faulty, names)


@pytest.mark.parametrize("seed", SEEDS)
def test_answers_that_get_lost(faulty: KubeFaultLab, proxy: Proxy, seed: int) -> None:
    faults: dict[Fault, float] = {Cut(forwarded=True): 0.15, Cut(): 0.05}
    proxy.rules.append(chance(seed, faults, at_random))
    faulty.start()
    names = a_project(faulty)
    check_all(faulty, names)


def test_the_server_is_away_for_a_while(faulty: KubeFaultLab, proxy: Proxy) -> None:
    faulty.start()
    names = a_project(faulty)
    faulty.converge(lambda: faulty.phase_of("Task", "demo.t0") == "Succeeded", "the first task")
    proxy.down()
    wait_seconds(5)
    proxy.up()
    check_all(faulty, names)
    assert faulty.text().count("controller is up") == 1, "it had no need to begin anew"


def test_the_server_is_away_for_longer_than_the_lease(faulty: KubeFaultLab, proxy: Proxy) -> None:
    """The controller ends in time; what workers do meanwhile is found when one begins again."""
    faulty.times = QUICK_LEASE
    first = faulty.start()
    names = a_project(faulty)
    faulty.converge(lambda: faulty.phase_of("Task", "demo.t0") == "Succeeded", "the first task")
    proxy.down()
    began = time.monotonic()
    assert first.wait(15) == 5
    assert time.monotonic() - began < QUICK_LEASE["controller.runtime.lease:DURATION_SECONDS"]
    assert "was not renewed in time" in faulty.text().splitlines()[-1]
    assert faulty.processes(), "workers run on"
    proxy.up()
    check_all(faulty, names)


def test_expired_watches_and_what_went_meanwhile(faulty: KubeFaultLab, proxy: Proxy) -> None:
    """Versions are too old, so kopf lists anew; the only Task is gone by then, its turn is not."""
    faulty.start()
    faulty.apply(swarm(replicas=1), prompt("p", script(USE, "sleep: 100")))
    faulty.converge(lambda: faulty.attempts("p") and usage_of(faulty, "p"), "the turn to begin")
    faulty.wait(lambda: proxy.streams() == 5, "all streams", 10)
    proxy.expire()
    faulty.wait(lambda: proxy.streams() == 0, "the streams to end", 10)
    faulty.patch("Task", "p", {"metadata": {"finalizers": None}})
    forgiving(faulty, "Task", "p")
    faulty.apply(swarm(replicas=2))
    proxy.renew()
    faulty.converge(
        lambda: faulty.state("Swarm", "builders").get("idleReplicas") == 2, "the turn to end"
    )
    faulty.apply(prompt("q", script(USE)))
    faulty.converge(lambda: faulty.phase_of("Task", "q") == "Succeeded", "the next prompt")
    assert faulty.text().count("controller is up") == 1
    faulty.check_log()


def test_a_watch_that_goes_silent(faulty: KubeFaultLab, proxy: Proxy) -> None:
    """Its connection stays, and nothing comes any more: after a while it is begun anew."""
    faulty.times = {"controller.runtime.kube_watch:SILENT_SECONDS": 3}
    faulty.start()
    faulty.apply(swarm(replicas=1))
    faulty.converge(lambda: faulty.phase_of("Swarm", "builders") == "Running", "the swarm")
    proxy.hush()
    faulty.apply(prompt("p", script(USE)))
    faulty.wait(lambda: proxy.silenced, "something to be held back", 10)
    proxy.speak()
    faulty.converge(lambda: faulty.phase_of("Task", "p") == "Succeeded", "the prompt", 20)
    assert faulty.text().count("controller is up") == 1
    faulty.check_log()


def test_an_error_in_a_watch(faulty: KubeFaultLab, proxy: Proxy) -> None:
    """Other than 410, that is the end for kopf: the controller ends too, with a line."""
    faulty.start()
    faulty.apply(swarm(replicas=1))
    faulty.converge(lambda: faulty.phase_of("Swarm", "builders") == "Running", "the swarm")
    proxy.say(500, "etcdserver: request timed out", "tasks")
    faulty.apply(prompt("p", script(USE)))
    faulty.converge(lambda: faulty.phase_of("Task", "p") == "Succeeded", "the prompt")
    assert "the watches ended" in faulty.text() and "etcdserver" in faulty.text()
    faulty.check_log()


def usage_of(lab: KubeFaultLab, name: str) -> object:
    """A Task's usage so far."""
    return lab.state("Task", name).get("usage")


def wait_seconds(seconds: float) -> None:
    """Let the fault last."""
    time.sleep(seconds)
