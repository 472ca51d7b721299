"""Swarms on machines that cost: what is under way is no trouble, and none is left behind."""

from __future__ import annotations

from providers.base import ProviderError, ProviderUnreachable
from tests.lab import prompt, swarm
from tests.reconcile.renter import AWS

ARCHIVED = {"gracePeriodSeconds": 45, "archive": True}


async def running(rig, replicas=1, **spec):
    """A swarm whose workers are all ready."""
    rig.apply(swarm(replicas=replicas, **{"provider": AWS, **spec}))
    await rig.until(lambda: rig.swarm().get("readyReplicas") == replicas, "workers")
    return rig.get("Swarm", "builders")["metadata"]["uid"]


def annotate(rig, name):
    obj = rig.get("Swarm", "builders")
    obj["metadata"].setdefault("annotations", {})[f"codeswarm.dev/{name}"] = "true"
    rig.store.put_update(obj)


async def gone(rig, seconds=60.0):
    await rig.until(lambda: rig.get("Swarm", "builders") is None, "its end", seconds)


def seen(rig):
    """The parameters with which it was asked last."""
    return rig.cloud.handles[-1].parameters


def ready(rig):
    return rig.condition("Swarm", "builders", "Ready")


def reachable(rig):
    return rig.condition("Swarm", "builders", "ProviderReachable")["status"]


def event(rig, reason):
    (found,) = [e for e in rig.store.events() if e.reason == reason]
    return found.message


# --- coming ------------------------------------------------------------------------------------


def test_machines_that_boot_are_progress(play):
    async def scenario(rig):
        rig.cloud.boots_seconds = 60
        rig.apply(swarm(replicas=2, provider=AWS))
        await rig.until(lambda: rig.swarm().get("progress"), "progress")
        assert rig.swarm()["progress"] == "InstancesBooting: 0 of 2 run"
        assert rig.swarm()["phase"] == "Launching"
        assert rig.swarm()["reason"] == "InstancesBooting"
        found = rig.condition("Swarm", "builders", "Available")
        assert (found["status"], found["reason"]) == ("False", "InstancesBooting")
        assert "0 of 2 run" in found["message"]
        assert {row["phase"] for row in rig.swarm()["workers"]} == {"Launching"}
        await rig.until(lambda: rig.swarm()["phase"] == "Running", "workers", 70)
        assert "progress" not in rig.swarm()
        assert 25 <= rig.cloud.calls.count("wait") <= 40, "asked every 2 s"
        assert not [e for e in rig.store.events() if e.type == "Warning"]

    play(scenario)


def test_booting_for_too_long_is_told_then_given_up_and_tried_anew(play):
    async def scenario(rig):
        rig.cloud.boots_seconds = 10_000
        limits = {"softTimeoutSeconds": 30, "hardTimeoutSeconds": 90}
        rig.apply(swarm(replicas=1, provider=AWS, launch=limits))
        await rig.until(lambda: rig.swarm().get("workers"), "a first worker")
        first = rig.swarm()["workers"][0]["job"]
        await rig.until(
            lambda: rig.condition("Swarm", "builders", "Available")["reason"] == "LaunchDelayed",
            "the delay to be told", 40,
        )  # fmt: skip
        assert "0 of 1 run" in rig.condition("Swarm", "builders", "Available")["message"]
        assert rig.reasons()["WorkerLost"] == 0
        await rig.until(lambda: rig.reasons()["WorkerLost"], "it to be given up", 70)
        assert "LaunchDeadlineExceeded" in event(rig, "WorkerLost")
        assert f"stop {first} force" in rig.cloud.calls
        assert rig.swarm()["launchFailures"] == 1
        await rig.until(
            lambda: [r for r in rig.swarm()["workers"] if r["job"] != first], "another try", 10
        )
        assert len(rig.cloud.rented[rig.get("Swarm", "builders")["metadata"]["uid"]]) == 1

    play(scenario)


def test_what_is_rented_may_change_without_another_worker(play):
    async def scenario(rig):
        await running(rig)
        aws = {
            **AWS["aws"], "volume": {"sizeGib": 200, "deleteOnTermination": True},
            "tags": {"team": "research"}, "deviceName": "/dev/sdg", "instanceCount": 3,
            "workersPerInstance": 2, "sshPort": 2222, "sshUser": "admin", "usePrivateIp": True,
        }  # fmt: skip
        rig.patch("Swarm", "builders", provider={"aws": aws})
        await rig.until(lambda: seen(rig)["deviceName"] == "/dev/sdg", "the new parameters")
        await rig.pass_time(30)
        assert rig.swarm()["incarnations"] == 1
        rig.patch("Swarm", "builders", provider={"aws": {**aws, "instanceType": "c7i.xlarge"}})
        await rig.until(lambda: rig.swarm()["incarnations"] == 2, "another worker")

    play(scenario)


def test_the_volume_goes_as_the_last_manifest_says(play):
    async def scenario(rig):
        await running(rig)
        await rig.crash()
        aws = {**AWS["aws"], "volume": {"deleteOnTermination": True}}
        rig.patch("Swarm", "builders", provider={"aws": aws})
        rig.delete("Swarm", "builders")
        rig.start()
        await gone(rig)
        assert seen(rig)["volume"]["deleteOnTermination"]

    play(scenario)


def test_another_endpoint_is_another_place(play):
    async def scenario(rig):
        uid = await running(rig)
        (old,) = rig.cloud.there(uid)
        there = {**AWS["aws"], "endpointUrl": "http://127.0.0.1:5000"}
        rig.patch("Swarm", "builders", provider={"aws": there})
        await rig.until(lambda: rig.cloud.removals, "the machines there to go")
        await rig.until(lambda: rig.swarm()["phase"] == "Running", "the new place", 60)
        assert old.id not in {m.id for m in rig.cloud.there(uid)}

    play(scenario)


# --- going -------------------------------------------------------------------------------------


def test_machines_end_before_the_swarm_is_gone(play):
    async def scenario(rig):
        uid = await running(rig, 2)
        rig.cloud.ends_seconds = 30
        rig.delete("Swarm", "builders")
        await rig.until(lambda: ready(rig)["reason"] == "MachinesEnding", "it to be told", 20)
        assert reachable(rig) == "True"
        assert "2 machines" in ready(rig)["message"]
        await gone(rig)
        assert not rig.cloud.there(uid)
        assert set(rig.cloud.removals) == {False}
        assert not [e for e in rig.store.events() if e.type == "Warning"]

    play(scenario)


def test_that_they_go_is_decided_once_and_a_restart_changes_nothing(play):
    async def scenario(rig):
        await running(rig)
        rig.cloud.ends_seconds = 30
        rig.delete("Swarm", "builders")
        await rig.until(lambda: rig.cloud.removals, "their end to begin")
        rig.cloud.cut = True  # nobody answers on machines that are shutting down
        await rig.crash()
        rig.start()
        await gone(rig, 40)
        assert set(rig.cloud.removals) == {False}, "the volume goes as the manifest says"

    play(scenario)


def test_a_failing_archive_is_tried_until_the_grace_is_over(play):
    async def scenario(rig):
        await running(rig, termination=ARCHIVED)
        rig.cloud.archive_error = ProviderError("ArchiveExists", "there is one already")
        rig.delete("Swarm", "builders")
        await rig.until(lambda: ready(rig)["reason"] == "ArchiveExists", "it to be told", 10)
        assert "there is one already; the machines stay until 20" in ready(rig)["message"]
        await rig.pass_time(35)
        assert not rig.cloud.removals
        await gone(rig, 30)
        assert 15 <= rig.cloud.calls.count("archive failed") <= 30
        assert set(rig.cloud.removals) == {True}, "the volume holds what was not archived"
        assert "there is one already" in event(rig, "ArchiveFailed")
        assert "there is one already" in event(rig, "VolumeKept")

    play(scenario)


def test_an_archive_that_fails_after_the_grace_is_tried_once_more(play):
    async def scenario(rig):
        rig.cloud.turn_seconds = 10_000
        await running(rig, termination={"gracePeriodSeconds": 1, "archive": True})
        rig.apply(prompt("p"))
        await rig.phase("Task", "p", "Running")
        rig.cloud.archive_error = ProviderError("ArchiveFailed", "cut")
        rig.delete("Swarm", "builders")
        await gone(rig)
        assert rig.cloud.calls.count("archive failed") == 2

    play(scenario)


def test_an_archive_that_comes_in_the_end_lets_the_volume_go(play):
    async def scenario(rig):
        await running(rig, termination=ARCHIVED)
        rig.cloud.archive_error = ProviderError("ArchiveFailed", "cut")
        rig.delete("Swarm", "builders")
        await rig.until(lambda: ready(rig)["reason"] == "ArchiveFailed", "a failure")
        rig.cloud.archive_error = None
        await gone(rig)
        assert set(rig.cloud.removals) == {False}
        assert rig.reasons()["Archived"] == 1

    play(scenario)


def test_where_nothing_is_to_be_archived_nothing_waits(play):
    async def scenario(rig):
        await running(rig, termination=ARCHIVED)
        rig.cloud.archive_error = ProviderError("NothingToArchive", "there is no volume")
        rig.delete("Swarm", "builders")
        await gone(rig, 20)
        assert rig.cloud.calls.count("archive failed") == 1
        assert set(rig.cloud.removals) == {False}
        assert not rig.reasons()["VolumeKept"]

    play(scenario)


def test_force_ends_machines_without_contact_to_them(play):
    async def scenario(rig):
        uid = await running(rig, 2, termination=ARCHIVED)
        rig.cloud.turn_seconds = 10_000
        rig.apply(prompt("p"))
        await rig.phase("Task", "p", "Running")
        rig.cloud.cut = True
        await rig.pass_time(10)
        looks = len(rig.cloud.handles)
        annotate(rig, "force")
        rig.delete("Swarm", "builders")
        await gone(rig, 20)
        assert not rig.cloud.there(uid)
        assert set(rig.cloud.removals) == {True}, "an archive was asked for, and there is none"
        assert "archive" not in rig.cloud.calls
        assert len(rig.cloud.handles) == looks, "its workers are not asked any more"
        await rig.until(lambda: rig.task("p")["reason"] == "SwarmNotFound", "the task to wait", 20)

    play(scenario)


def test_force_does_not_wait_for_a_look_that_hangs(play):
    async def scenario(rig):
        uid = await running(rig)
        rig.cloud.hangs = True
        await rig.pass_time(90)
        assert reachable(rig) == "False"
        await rig.pass_time(10)  # the next look waits by now
        rig.delete("Swarm", "builders")
        await rig.pass_time(1)
        annotate(rig, "force")
        await gone(rig, 15)
        assert not rig.cloud.there(uid)

    play(scenario)


def test_force_where_nothing_is_to_be_kept_keeps_nothing(play):
    async def scenario(rig):
        await running(rig)
        annotate(rig, "force")
        rig.delete("Swarm", "builders")
        await gone(rig, 20)
        assert set(rig.cloud.removals) == {False}

    play(scenario)


def test_without_contact_machines_go_after_ten_minutes_and_the_volume_stays(play):
    async def scenario(rig):
        uid = await running(rig)
        rig.cloud.cut = True
        rig.delete("Swarm", "builders")
        await rig.pass_time(590)
        assert len(rig.cloud.there(uid)) == 1
        assert reachable(rig) == "False"
        await gone(rig, 30)
        assert not rig.cloud.there(uid)
        assert set(rig.cloud.removals) == {True}
        assert "does not answer" in event(rig, "VolumeKept")

    play(scenario)


def test_what_lets_machines_must_answer_before_the_swarm_goes(play):
    async def scenario(rig):
        uid = await running(rig)
        rig.cloud.cut = rig.cloud.away = True
        annotate(rig, "force")
        rig.delete("Swarm", "builders")
        await rig.pass_time(3600)
        assert rig.get("Swarm", "builders") is not None
        found = rig.condition("Swarm", "builders", "ProviderReachable")
        assert (found["status"], found["reason"]) == ("False", "ExpiredToken")
        rig.cloud.away = False
        await gone(rig)
        assert not rig.cloud.there(uid)

    play(scenario)


def test_abandoned_machines_are_ended_if_that_can_be_done(play):
    async def scenario(rig):
        uid = await running(rig)
        rig.cloud.cut = True
        annotate(rig, "abandon")
        rig.delete("Swarm", "builders")
        await gone(rig, 20)
        assert not rig.cloud.there(uid)
        assert set(rig.cloud.removals) == {True}
        assert not rig.reasons()["Abandoned"]

    play(scenario)


def test_abandoned_machines_that_cannot_be_ended_are_named(play):
    async def scenario(rig):
        await running(rig)
        job = rig.swarm()["workers"][0]["job"]
        rig.cloud.cut = rig.cloud.away = True
        annotate(rig, "abandon")
        rig.delete("Swarm", "builders")
        await gone(rig, 20)
        text = event(rig, "Abandoned")
        assert job in text
        assert "codeswarm doctor --aws" in text

    play(scenario)


def test_a_provider_that_is_not_here_any_more_holds_what_it_has_started(play):
    async def scenario(rig):
        await running(rig)
        await rig.crash()
        rig.start()
        rig.ctx.providers = {"local": rig.provider}
        rig.delete("Swarm", "builders")
        await rig.pass_time(3600)
        found = rig.condition("Swarm", "builders", "ProviderReachable")
        assert found["reason"] == "ProviderNotAvailable"
        assert "--abandon" in found["message"]
        annotate(rig, "abandon")
        await gone(rig)
        assert rig.reasons()["Abandoned"] == 1

    play(scenario)


def test_a_swarm_that_never_had_machines_needs_nobody(play):
    async def scenario(rig):
        rig.cloud.cut = rig.cloud.away = True
        rig.apply(swarm(replicas=1, provider=AWS))
        await rig.until(lambda: rig.swarm().get("conditions"), "a status")
        rig.delete("Swarm", "builders")
        await gone(rig, 10)

    play(scenario)


def test_a_swarm_that_moves_ends_its_machines_first(play):
    async def scenario(rig):
        uid = await running(rig)
        rig.cloud.ends_seconds = 20
        (old,) = rig.cloud.there(uid)
        rig.patch("Swarm", "builders", provider={"aws": {**AWS["aws"], "workspaceRoot": "/else"}})
        await rig.until(lambda: ready(rig)["reason"] == "MachinesEnding", "the old place", 20)
        assert reachable(rig) == "True"
        await rig.until(lambda: rig.swarm()["phase"] == "Running", "the new place", 60)
        (new,) = rig.cloud.there(uid)
        assert new.id != old.id
        assert not [e for e in rig.store.events() if e.type == "Warning"]

    play(scenario)


def test_an_archive_whose_machine_has_yet_to_boot_has_not_failed(play):
    async def scenario(rig):
        await running(rig, termination=ARCHIVED)
        booting = ProviderUnreachable("CoordinatorBooting", "1 instance, 1 booting")
        rig.cloud.archive_error = booting
        rig.delete("Swarm", "builders")
        await rig.pass_time(200)
        assert not rig.cloud.removals
        assert "the machines stay until" in ready(rig)["message"]
        rig.cloud.archive_error = None
        await gone(rig)
        assert rig.reasons()["Archived"] == 1
        assert set(rig.cloud.removals) == {False}

    play(scenario)


def test_what_is_refused_for_ever_ends_with_the_machines(play):
    async def scenario(rig):
        uid = await running(rig)
        rig.cloud.observe_error = ProviderError("VolumeAmbiguous", "two volumes are in use")
        rig.delete("Swarm", "builders")
        await rig.pass_time(590)
        assert len(rig.cloud.there(uid)) == 1
        await gone(rig, 30)
        assert not rig.cloud.there(uid)
        assert set(rig.cloud.removals) == {True}
        assert "two volumes are in use" in event(rig, "VolumeKept")

    play(scenario)


def test_abandoned_machines_whose_end_is_refused_are_named(play):
    async def scenario(rig):
        uid = await running(rig)
        (machine,) = rig.cloud.there(uid)
        rig.cloud.remove_error = ProviderError("PermissionDenied", "ec2:TerminateInstances")
        rig.delete("Swarm", "builders")
        await rig.pass_time(700)
        assert reachable(rig) == "False"
        annotate(rig, "abandon")
        await gone(rig, 100)
        text = event(rig, "Abandoned")
        assert "ec2:TerminateInstances" in text
        assert machine.id in text

    play(scenario)


def test_how_it_ends_is_what_the_manifest_said_last(play):
    async def scenario(rig):
        await running(rig)
        await rig.crash()
        rig.patch("Swarm", "builders", termination=ARCHIVED)
        rig.delete("Swarm", "builders")
        rig.start()
        await gone(rig)
        assert rig.reasons()["Archived"] == 1

    play(scenario)


def test_machines_are_minded_though_their_swarm_is_refused(play):
    async def scenario(rig):
        await running(rig)
        rig.patch("Swarm", "builders", replicas=0)
        await rig.until(lambda: not rig.swarm()["workers"], "them to go", 60)
        rig.patch("Swarm", "builders", className="nowhere")
        await rig.until(lambda: rig.swarm().get("reason") == "SwarmClassNotFound", "the refusal")
        await rig.crash()
        looks = len(rig.cloud.handles)
        rig.start()
        await rig.pass_time(40)
        assert len(rig.cloud.handles) > looks, "whoever ends idle machines is at work again"
        assert rig.swarm()["reason"] == "SwarmClassNotFound"
        assert rig.condition("Swarm", "builders", "Accepted")["status"] == "False"

    play(scenario)
