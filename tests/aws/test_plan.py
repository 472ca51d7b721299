"""Which machines a swarm should launch, end and give the volume to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.aws_plan import Ages, Demand, chosen, decide, places
from providers.aws_values import (
    FORMATTED_TAG,
    IN_USE_TAG,
    KEPT_TAG,
    WISH_TAG,
    YES,
    Api,
    Instance,
    Volume,
    Wish,
)
from providers.base import ProviderError

WISH = Wish(Api("us-east-1"), "ami-1", "c7i.large", "/shared", workers_per_instance=2)
LONG = 10_000.0


def machine(number: int, state: str = "running", *, wish: Wish = WISH, zone: str = "a") -> Instance:
    return Instance(
        f"i-{number}", state, zone=zone, launched_at=float(number), tags={WISH_TAG: wish.digest}
    )


def volume(to: str = "", *, in_use: bool = True, zone: str = "a", id: str = "vol-1") -> Volume:
    return Volume(
        id,
        "in-use" if to else "available",
        zone=zone,
        attached_to=to,
        attachment="attached" if to else "",
        tags={IN_USE_TAG: YES} if in_use else {},
    )


def idle(*machines: Instance, seconds: float = LONG) -> Ages:
    return Ages(idle={m.id: seconds for m in machines}, unwanted=seconds)


def test_nothing_wanted_and_nothing_there_is_left_so() -> None:
    plan = decide(WISH, [], [], Demand(), ages=Ages())
    assert (plan.launch, plan.terminate, plan.create_volume, plan.attach) == (0, (), None, None)


@pytest.mark.parametrize(("workers", "instances"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_as_many_instances_as_the_workers_need(workers: int, instances: int) -> None:
    assert decide(WISH, [], [], Demand(waiting=workers), ages=Ages()).launch == instances


def test_seats_on_booting_machines_count() -> None:
    plan = decide(WISH, [machine(1, "pending")], [], Demand(waiting=3), ages=Ages())
    assert plan.launch == 1


def test_seats_on_machines_of_another_wish_do_not() -> None:
    old = machine(1, wish=replace(WISH, ami="ami-old"))
    demand = Demand(waiting=1, alive={"i-1": 1})
    assert decide(WISH, [old], [volume("i-1")], demand, ages=Ages()).launch == 1


def test_a_volume_is_made_in_the_zone_of_the_first_machine() -> None:
    plan = decide(WISH, [machine(1, "pending", zone="b")], [], Demand(waiting=1), ages=Ages())
    assert plan.create_volume == "b"


def test_the_oldest_running_machine_of_its_zone_gets_the_volume() -> None:
    machines = [machine(1, "pending"), machine(2, zone="b"), machine(3), machine(4)]
    plan = decide(WISH, machines, [volume()], Demand(waiting=8), ages=Ages())
    assert plan.attach == "i-3"


def test_machines_go_where_the_volume_is() -> None:
    assert decide(WISH, [], [volume(zone="c")], Demand(waiting=1), ages=Ages()).zone == "c"


def test_what_is_on_the_volume_is_worth_a_machine() -> None:
    plan = decide(WISH, [], [volume()], Demand(known=False, volume_needed=True), ages=Ages())
    assert plan.launch == 1


@pytest.mark.parametrize("state", ["stopped", "stopping"])
def test_stopped_machines_are_replaced(state: str) -> None:
    plan = decide(WISH, [machine(1, state)], [], Demand(waiting=1), ages=Ages())
    assert plan.terminate == plan.replace == ("i-1",)
    assert plan.launch == 1


def test_empty_machines_end_after_a_while_and_the_newest_first() -> None:
    machines = [machine(1), machine(2), machine(3)]
    demand = Demand(alive={"i-1": 1})
    ages = idle(machines[1], machines[2])
    assert decide(WISH, machines, [volume("i-1")], demand, ages=ages).terminate == ("i-3", "i-2")
    young = idle(machines[1], machines[2], seconds=5.0)
    assert decide(WISH, machines, [volume("i-1")], demand, ages=young).terminate == ()


def test_the_coordinator_stays_while_others_work() -> None:
    machines = [machine(1), machine(2)]
    demand = Demand(alive={"i-2": 1})
    plan = decide(WISH, machines, [volume("i-1")], demand, ages=idle(machines[0]))
    assert plan.terminate == ()


def test_the_last_machine_ends_when_nothing_is_wanted_for_long() -> None:
    one = machine(1)
    plan = decide(WISH, [one], [volume("i-1")], Demand(), ages=idle(one))
    assert (plan.terminate, plan.let_go) == (("i-1",), True)
    held = Demand(volume_needed=True)
    assert decide(WISH, [one], [volume("i-1")], held, ages=idle(one)).terminate == ()


def test_nothing_is_ended_while_the_workers_are_not_known() -> None:
    machines = [machine(1), machine(2), machine(3)]
    plan = decide(WISH, machines, [volume("i-1")], Demand(known=False), ages=idle(*machines))
    assert plan.terminate == ()


def test_an_outdated_coordinator_goes_once_nobody_works() -> None:
    old = machine(1, wish=replace(WISH, ami="ami-old"))
    busy = Demand(waiting=1, alive={"i-2": 1})
    machines = [old, machine(2)]
    assert decide(WISH, machines, [volume("i-1")], busy, ages=idle(old)).terminate == ()
    plan = decide(WISH, machines, [volume("i-1")], Demand(waiting=1), ages=idle(*machines))
    assert "i-1" in plan.terminate


def test_a_machine_that_cannot_be_set_up_is_replaced() -> None:
    ages = Ages(unready={"i-1": LONG})
    plan = decide(WISH, [machine(1)], [], Demand(waiting=1), ages=ages)
    assert (plan.replace, plan.launch) == (("i-1",), 1)


def test_one_that_may_carry_workers_is_not() -> None:
    once_ready = machine(1)
    once_ready = replace(once_ready, tags={**once_ready.tags, "codeswarm.dev/ready": YES})
    demand, ages = Demand(known=False, volume_needed=True), Ages(unready={"i-1": LONG})
    plan = decide(WISH, [once_ready], [volume("i-1")], demand, ages=ages)
    assert plan.terminate == ()


def test_a_number_of_instances_is_kept_to() -> None:
    wish = replace(WISH, instance_count=2)
    plan = decide(wish, [], [], Demand(waiting=7), ages=Ages())
    assert (plan.launch, plan.short) == (2, 3)
    assert decide(wish, [], [], Demand(waiting=1), ages=Ages()).launch == 2


def test_of_two_volumes_the_one_in_use_counts_and_a_blank_one_goes() -> None:
    blank = volume(in_use=False, id="vol-0")
    plan = decide(WISH, [machine(1)], [blank, volume("i-1")], Demand(), ages=Ages())
    assert plan.delete_volumes == ("vol-0",)
    kept = replace(blank, tags={KEPT_TAG: YES})
    plan = decide(WISH, [machine(1)], [kept, volume("i-1")], Demand(), ages=Ages())
    assert plan.delete_volumes == ()


def test_a_volume_that_ever_held_something_is_no_blank_one() -> None:
    """As one that was let go of, beside another that a person made of a snapshot."""
    used = replace(volume(in_use=False, id="vol-0"), tags={FORMATTED_TAG: YES})
    plan = decide(WISH, [machine(1)], [used, volume("i-1")], Demand(), ages=Ages())
    assert plan.delete_volumes == ()


def test_where_no_machine_can_have_the_volume_one_is_launched() -> None:
    elsewhere = machine(1, zone="b")
    plan = decide(WISH, [elsewhere], [volume(in_use=False)], Demand(waiting=1), ages=Ages())
    assert (plan.launch, plan.zone) == (1, "a")


def test_two_volumes_in_use_are_for_a_person_to_settle() -> None:
    with pytest.raises(ProviderError, match="vol-1, vol-2") as caught:
        chosen([volume(), volume(id="vol-2")])
    assert caught.value.reason == "VolumeAmbiguous"


states = st.sampled_from(
    ["pending", "running", "stopping", "stopped", "shutting-down", "terminated"]
)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Instance], list[Volume], Demand, Ages]:
    machines = [
        machine(n, draw(states), zone=draw(st.sampled_from("ab")))
        for n in range(draw(st.integers(0, 5)))
    ]
    running = [m.id for m in machines if m.state == "running"]
    volumes = []
    if draw(st.booleans()):
        to = draw(st.sampled_from(["", *running]))
        volumes = [volume(to, in_use=draw(st.booleans()))]
    alive = {id: draw(st.integers(0, 2)) for id in running}
    demand = Demand(
        draw(st.integers(0, 6)), alive, known=draw(st.booleans()), volume_needed=draw(st.booleans())
    )
    seconds = st.sampled_from([0.0, LONG])
    ages = Ages(
        {m.id: draw(seconds) for m in machines},
        {m.id: draw(seconds) for m in machines},
        draw(seconds),
    )
    return machines, volumes, demand, ages


@given(worlds())
def test_no_machine_with_a_living_worker_is_ended(
    world: tuple[list[Instance], list[Volume], Demand, Ages],
) -> None:
    machines, volumes, demand, ages = world
    machines = [replace(m, tags={**m.tags, "codeswarm.dev/ready": YES}) for m in machines]
    plan = decide(WISH, machines, volumes, demand, ages=ages)
    assert not {id for id, count in demand.alive.items() if count} & set(plan.terminate)


@given(worlds())
def test_the_number_of_machines_settles(
    world: tuple[list[Instance], list[Volume], Demand, Ages],
) -> None:
    """Doing what is decided leads to a world in which nothing more is launched."""
    machines, volumes, demand, ages = world
    plan = decide(WISH, machines, volumes, demand, ages=ages)
    after = [m for m in machines if m.id not in plan.terminate]
    after += [machine(100 + n, "pending") for n in range(plan.launch)]
    again = decide(WISH, after, volumes, demand, ages=Ages())
    assert again.launch == 0
    seats = sum(2 - demand.alive.get(m.id, 0) for m in after if m.live)
    assert seats >= demand.waiting


@given(st.lists(st.integers(0, 3), max_size=5), st.integers(0, 12), st.integers(1, 3))
def test_seats_are_given_once(alive: list[int], waiting: int, each: int) -> None:
    wish = replace(WISH, workers_per_instance=each)
    hosts = [replace(machine(n), tags={WISH_TAG: wish.digest}) for n in range(len(alive))]
    jobs = [f"w-{n}" for n in range(waiting)]
    counts = {h.id: n for h, n in zip(hosts, alive, strict=True)}
    given_seats = places(wish, hosts, machine(0), counts, jobs)
    seated = [job for some in given_seats.values() for job in some]
    assert seated == jobs[: len(seated)] or sorted(seated) == sorted(jobs[: len(seated)])
    free = sum(max(0, each - n) for n in alive)
    assert len(seated) == min(waiting, free)
    assert all(counts[id] + len(some) <= each for id, some in given_seats.items())
