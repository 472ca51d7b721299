"""How a swarm's provider is reached: keys and known hosts as they are now; places and kinds that
change."""

from __future__ import annotations

import json
from base64 import b64encode

from tests.lab import prompt, swarm
from tests.reconcile.test_contact import SLURM

KEYED = {"slurm": {**SLURM["slurm"], "sshKeyFrom": {"secretKeyRef": {"name": "ssh", "key": "id"}}}}
LONG = "\n".join(f"host{n} ssh-ed25519 {'A' * 68}" for n in range(40))


def reached(**more):
    """A provider block with another way in."""
    return {"slurm": {**SLURM["slurm"], **more}}


def swarm_class(name, provider):
    return {
        "apiVersion": "codeswarm.dev/v1alpha1", "kind": "SwarmClass",
        "metadata": {"name": name}, "spec": {"provider": provider},
    }  # fmt: skip


def secret(text="key"):
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ssh", "namespace": "default"},
        "data": {"id": b64encode(text.encode()).decode()},
    }  # fmt: skip


def test_every_call_has_the_key_as_it_is_now(play):
    async def scenario(rig):
        rig.store.put(secret("first"))
        rig.apply(swarm(replicas=1, provider=KEYED))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        assert rig.cluster.handles[-1].secrets == {"sshKey": "first"}
        rig.store.put_update({**rig.get("Secret", "ssh"), "data": secret("second")["data"]})
        await rig.until(lambda: rig.cluster.handles[-1].secrets["sshKey"] == "second", "the new")
        rig.apply(prompt("p"))
        await rig.phase("Task", "p", "Succeeded")
        assert rig.swarm()["incarnations"] == 1, "another key gives nobody another worker"
        assert "second" not in json.dumps(rig.get("Swarm", "builders"))

    play(scenario)


def test_a_swarm_that_goes_with_its_key_is_still_wound_up(play):
    """As with ``kubectl delete -f`` of both: the key that let us in last does so to the end."""

    async def scenario(rig):
        rig.store.put(secret())
        rig.apply(swarm(replicas=1, provider=KEYED))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        rig.delete("Secret", "ssh")
        rig.delete("Swarm", "builders")
        await rig.until(lambda: rig.get("Swarm", "builders") is None, "its end", 30)
        assert rig.cluster.handles[-1].secrets == {"sshKey": "key"}
        assert not rig.ctx.let_in, "nor is it kept any longer"

    play(scenario)


def test_a_key_that_is_missing_is_said(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1, provider=KEYED))
        await rig.until(lambda: rig.condition("Swarm", "builders", "Accepted"), "a verdict")
        found = rig.condition("Swarm", "builders", "Accepted")
        assert (found["status"], found["reason"]) == ("False", "SecretNotFound")
        assert "sshKeyFrom" in found["message"]
        rig.store.put(secret())
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        rig.delete("Secret", "ssh")
        await rig.until(
            lambda: rig.condition("Swarm", "builders", "Accepted")["status"] == "False", "the loss"
        )
        found = rig.condition("Swarm", "builders", "ProviderReachable")
        assert (found["status"], found["reason"]) == ("False", "SecretNotFound")
        await rig.crash()  # who is started anew has never had the key
        rig.delete("Swarm", "builders")
        rig.start()
        await rig.pass_time(60)
        assert rig.condition("Swarm", "builders", "ProviderReachable")["reason"] == "SecretNotFound"
        rig.store.put(secret())
        await rig.until(lambda: rig.get("Swarm", "builders") is None, "its end")
        assert not rig.cluster.live()

    play(scenario)


def test_another_way_in_replaces_nobody_and_another_place_does(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1, provider=SLURM))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        config = rig.cluster.live()[0].request.config
        assert str(rig.path) not in json.dumps(config), "our paths mean nothing there"
        rig.apply(swarm(replicas=1, provider={"slurm": {**SLURM["slurm"], "port": 2222}}))
        await rig.pass_time(10)
        assert rig.swarm()["incarnations"] == 1
        rig.apply(swarm(replicas=1, provider={"slurm": {**SLURM["slurm"], "partition": "big"}}))
        await rig.until(lambda: rig.swarm()["incarnations"] == 2, "another worker")

    play(scenario)


def test_a_long_list_of_known_hosts_is_used_whole(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1, provider=reached(knownHosts=LONG)), prompt("p"))
        await rig.phase("Task", "p", "Succeeded")
        handle = rig.ctx.handle_of(next(iter(rig.ctx.world.swarms)))[0]
        assert handle.parameters["knownHosts"] == LONG
        rig.cluster.handles.clear()
        rig.delete("Swarm", "builders")
        await rig.until(lambda: rig.get("Swarm", "builders") is None, "its end")
        assert all(h.parameters["knownHosts"] == LONG for h in rig.cluster.handles)

    play(scenario)


def test_a_deleted_swarm_is_reached_by_the_way_that_spec_says_now(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1, provider=reached(knownHosts="old key")))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        rig.cluster.cut = True
        await rig.pass_time(30)
        rig.delete("Swarm", "builders")
        await rig.pass_time(30)
        rig.patch("Swarm", "builders", provider=reached(knownHosts="new key"))
        rig.cluster.cut = False
        rig.cluster.handles.clear()
        await rig.until(lambda: rig.get("Swarm", "builders") is None, "its end")
        assert {h.parameters["knownHosts"] for h in rig.cluster.handles} == {"new key"}

    play(scenario)


def test_a_class_of_another_kind_moves_its_workers(play):
    async def scenario(rig):
        rig.apply(swarm_class("one", {"local": {}}), swarm_class("two", SLURM))
        spec = swarm(replicas=1)
        del spec["spec"]["provider"]
        spec["spec"]["className"] = "one"
        rig.apply(spec)
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        spec["spec"]["className"] = "two"
        rig.apply(spec)
        await rig.until(rig.cluster.live, "a worker there")
        await rig.pass_time(30)
        assert not rig.provider.live()

    play(scenario)
