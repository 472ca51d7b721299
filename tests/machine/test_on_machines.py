"""From nothing to workers on two machines that share a volume, over SSH; and what ends them."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from providers.aws_nodes import LOCAL_ROOT, Node, Nodes
from providers.aws_setup import Coordinator, Member, Ready, Times, clients_of, log, set_up
from providers.aws_userdata import HostKey
from providers.aws_values import Instance, Wish
from providers.base import ProviderError, ProviderUnreachable, SwarmHandle
from providers.layout import swarm_parts
from providers.remote_setup import Installed, Place
from providers.ssh import SshHost
from providers.ssh_target import Means, SshTarget
from tests.cloud.machines import ROOT, Cloud, cloud
from tests.cloud.test_machines import attach, boot, volume
from tests.worker.harness import block, user

__all__ = ["cloud"]

SWARM = SwarmHandle("default", "cloud", "0f1e2d3c4b5a")
JOBS = ["cloud-0f1e2d3c-0-1", "cloud-0f1e2d3c-1-1"]
TIMES = Times(patience=5, boot=10, device=10, mount=10)
BELOW = "/".join(swarm_parts(SWARM))
FOLDER = f"{ROOT}/{BELOW}"


class Pair:
    """Two machines, the first with a volume."""

    def __init__(self, cloud: Cloud, ids: list[str], key: HostKey) -> None:
        self.cloud = cloud
        self.ids = ids
        self.addresses = [cloud.machines()[one]["address"] for one in ids]
        self.wish = Wish.of(SwarmHandle("default", "cloud", "u", cloud.parameters()))
        self.volume = volume(cloud, ids[0])
        self.nodes = Nodes(lambda: Means(files=True))
        self.shells = [
            SshHost(
                SshTarget(
                    address,
                    port=cloud.port,
                    user=self.wish.user,
                    identity_file=str(cloud.key),
                    known_hosts=f"[{address}]:{cloud.port} {key.public}\n",
                ),
                Means(files=True),
            )
            for address in self.addresses
        ]

    @property
    def roles(self) -> list[Coordinator | Member]:
        clients = clients_of(self.addresses, self.addresses[0])
        return [
            Coordinator(self.volume, clients, may_format=True, size_gib=8),
            Member(self.addresses[0], self.volume),
        ]

    async def start(self, number: int, there: Ready, job: str) -> Any:
        """What is answered for a worker that is to be started on a machine."""
        order = {
            "jobs": [{"folder": f"{BELOW}/{job}", "job": job, "index": 0}],
            "node": self.ids[number], "coordinator": self.ids[0],
        }  # fmt: skip
        node = self._node(number, there)
        return (await self.nodes.start(node, there.root, self.volume, order))[job]

    async def stop(self, number: int, there: Ready, job: str, *, force: bool) -> Any:
        """What is answered for a worker that is to be ended, asked for until it is gone."""
        node, told = self._node(number, there), None
        for _ in range(100):
            folders = {job: f"{BELOW}/{job}"}
            told = (await self.nodes.stop(node, there.root, folders, force=force))[job]
            if told != "running":
                break
            await asyncio.sleep(0.1)
        return told

    async def clear(self, number: int, there: Ready) -> None:
        await self.nodes.clear(self._node(number, there), there.root)

    def _node(self, number: int, there: Ready) -> Node:
        installed = Installed(Place(there.name, LOCAL_ROOT), there.python, there.worker, LOCAL_ROOT)
        shell, one = self.shells[number], self.ids[number]
        return Node(Instance(one, "running"), one, shell.target, shell, installed)

    async def set_up(self) -> list[Ready]:
        return [
            await set_up(shell, one, self.wish, role, seconds=60, times=TIMES)
            for shell, one, role in zip(self.shells, self.ids, self.roles, strict=True)
        ]

    def make(self, job: str) -> None:
        """A worker's folder, as the attendant makes it."""
        settings = {"job": job, "runtime": "mock", "pollSeconds": 0.05, "heartbeatSeconds": 0.1}
        lines = (
            f"mkdir -p {FOLDER}/{job}/mailbox/inbox {FOLDER}/{job}/mailbox/outbox",
            f"echo '{json.dumps(settings)}' >{FOLDER}/{job}/worker.json",
            f"chown -R ubuntu:ubuntu {ROOT}/default",
        )
        self.cloud.run(self.ids[0], "sh", "-c", "; ".join(lines))

    def note(self, machine: int, job: str, name: str) -> str:
        return self.cloud.run(
            self.ids[machine], "sh", "-c", f"cat {FOLDER}/{job}/{name} 2>/dev/null || :"
        ).strip()

    def prompt(self, machine: int, job: str, content: str) -> None:
        record = shlex.quote(json.dumps(user(content, "u.1")))
        inbox = f"{FOLDER}/{job}/mailbox/inbox/{job}_00.jsonl"
        command = f"printf '%s\\n' {record} >>{inbox}; chown ubuntu:ubuntu {inbox}"
        self.cloud.run(self.ids[machine], "sh", "-c", command)

    def runs(self, machine: int, file: str) -> bool:
        """Whether the process runs whose number stands in a file."""
        script = f'pid=$(cat {file}) && grep -q "^State:.[^ZX]" /proc/$pid/status && echo yes || :'
        return "yes" in self.cloud.run(self.ids[machine], "sh", "-c", script)

    async def begins(self, number: int, job: str) -> None:
        await self.until(lambda: self.note(number, job, "worker.pid"), f"{job} begins")

    async def until(self, what: Callable[[], object], why: str) -> None:
        await asyncio.to_thread(self.cloud.wait, lambda: bool(what()), why)

    async def close(self) -> None:
        for shell in self.shells:
            await shell.close()


def on_two(
    cloud: Cloud, scenario: Callable[[Pair], Coroutine[Any, Any, None]], **more: Any
) -> None:
    async def run() -> None:
        pair = Pair(cloud, *boot(cloud, 2, **more))
        try:
            await scenario(pair)
        finally:
            await pair.close()

    asyncio.run(run())


def test_workers_on_two_machines_share_a_volume(cloud: Cloud) -> None:
    async def scenario(pair: Pair) -> None:
        one, two = await pair.set_up()
        assert (one.root, two.root) == (ROOT, ROOT)
        assert await pair.set_up() == [one, two]
        assert one.worker.startswith("/home/ubuntu/.codeswarm/worker/")
        for job in JOBS:
            pair.make(job)
        for number, there in enumerate((one, two)):
            for _ in range(2):
                assert await pair.start(number, there, JOBS[number]) == "started"
            claim = f"{pair.ids[number]} {JOBS[number]} {pair.ids[0]}"
            assert pair.note(0, JOBS[number], "claim") == claim
        assert await pair.start(0, one, JOBS[1]) == {"claimed": claim}
        for number, job in enumerate(JOBS):
            await pair.begins(number, job)
        cloud.cut(pair.ids[1])
        assert len(cloud.processes(JOBS[1])) == 2
        assert await pair.stop(1, two, JOBS[1], force=True) == "gone"
        assert not cloud.processes(JOBS[1])
        assert pair.note(0, JOBS[1], "ended") == "signal 9"
        assert await pair.stop(0, one, JOBS[0], force=False) == "gone"
        assert pair.note(1, JOBS[0], "ended") == "exit 0"
        assert "formatting" in await log(pair.shells[0])

    on_two(cloud, scenario)


ROOTS_DAEMON = (
    "sudo -n sh -c 'echo $$ > /tmp/daemon-pid; exec setsid sleep 1000' >/dev/null 2>&1 & "
    "until test -s /tmp/daemon-pid; do sleep 0.05; done"
)


@pytest.mark.parametrize("force", [False, True])
def test_what_an_agent_began_as_root_goes_with_its_worker(cloud: Cloud, force: bool) -> None:
    async def scenario(pair: Pair) -> None:
        one, _ = await pair.set_up()
        pair.make(JOBS[0])
        await pair.start(0, one, JOBS[0])
        await pair.begins(0, JOBS[0])
        pair.prompt(0, JOBS[0], block({"run": ROOTS_DAEMON + ("; sleep 1000" * force)}))
        await pair.until(lambda: pair.runs(0, "/tmp/daemon-pid"), "the daemon runs")
        assert await pair.stop(0, one, JOBS[0], force=force) == "gone"
        assert pair.note(0, JOBS[0], "ended") == ("signal 9" if force else "exit 0")
        assert not pair.runs(0, "/tmp/daemon-pid")

    on_two(cloud, scenario)


def test_after_a_restart_all_is_found_wanting(cloud: Cloud) -> None:
    """Nothing is started while nothing is mounted; then a worker's folder is there as it was."""

    async def scenario(pair: Pair) -> None:
        one, _ = await pair.set_up()
        pair.make(JOBS[0])
        await pair.start(0, one, JOBS[0])
        await pair.begins(0, JOBS[0])
        await asyncio.to_thread(cloud.reboot, pair.ids[0])
        await pair.until(lambda: not cloud.processes(JOBS[0]), "its end")
        with pytest.raises(ProviderUnreachable, match="not mounted"):
            await pair.start(0, one, JOBS[0])
        assert "Permission denied" in written_by_the_user(pair)
        await set_up(pair.shells[0], pair.ids[0], pair.wish, pair.roles[0], times=TIMES)
        assert await pair.stop(0, one, JOBS[0], force=True) == "gone"
        assert pair.note(0, JOBS[0], "ended") == "gone"

    on_two(cloud, scenario)


def written_by_the_user(pair: Pair) -> str:
    """What is said where the user who logs in makes a folder below the root."""
    script = f"mkdir {ROOT}/default 2>&1 || :"
    user = ("setpriv", "--reuid=4242", "--clear-groups")
    return pair.cloud.run(pair.ids[0], *user, "sh", "-c", script)


def test_another_machine_takes_the_volume_over(cloud: Cloud) -> None:
    """Its workers are cleared first: what they wrote is there, and they write no more."""

    async def scenario(pair: Pair) -> None:
        _, two = await pair.set_up()
        pair.make(JOBS[1])
        assert await pair.start(1, two, JOBS[1]) == "started"
        await pair.begins(1, JOBS[1])
        await asyncio.to_thread(cloud.kill, pair.ids[0])
        await pair.clear(1, two)
        assert not cloud.processes(JOBS[1])
        await pair.until(lambda: cloud.volumes()[pair.volume]["state"] == "available", "it is free")
        await asyncio.to_thread(attach, cloud, pair.volume, pair.ids[1])
        role = Coordinator(pair.volume)
        assert (await set_up(pair.shells[1], pair.ids[1], pair.wish, role, times=TIMES)) == two
        assert pair.note(1, JOBS[1], "claim").split() == [pair.ids[1], JOBS[1], pair.ids[0]]
        assert await pair.stop(1, two, JOBS[1], force=True) == "gone"
        assert pair.note(1, JOBS[1], "ended") == "gone"

    on_two(cloud, scenario)


def test_a_closed_security_group(cloud: Cloud) -> None:
    async def scenario(pair: Pair) -> None:
        cloud.block_nfs()
        with pytest.raises(ProviderError, match="2049") as caught:
            await pair.set_up()
        assert caught.value.reason == "MountFailed" and pair.ids[1] in str(caught.value)
        cloud.block_nfs(False)
        await pair.set_up()

    on_two(cloud, scenario)
