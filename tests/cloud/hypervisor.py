"""What stands behind the instances: a machine made of namespaces for each, volumes of loop devices.

A machine has its own mounts, processes, host name and IPC: a root of its own over that of the
host (overlay; nothing that it writes reaches the host), its own /dev, /run, /tmp and homes, and a
real sshd on its address with the host key of its UserData and the public half of its key pair.
Its end is the end of its first process: the kernel kills all others, and its mounts go.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.cloud.ec2 import World
from tests.cloud.image import configure_ssh, make_image
from tests.cloud.loops import Loop
from tests.cloud.machine import Machine, send
from tests.cloud.nfs import Nfs
from tests.cloud.userdata import UserData, read_user_data

_GIB = 1 << 30


class Machines:
    """The hypervisor of a world.

    Args:
        path: folder for its files.
        world: whose instances these are.
        port: on which all sshd's listen.
        metadata: base URL of the instances' metadata.
    """

    def __init__(self, path: Path, world: World, port: int, metadata: str) -> None:
        self._path = path
        self._world = world
        self._port = port
        self._metadata = metadata
        self._machines: dict[str, Machine] = {}
        self._volumes: dict[str, Loop] = {}
        self._nfs = Nfs(lambda: list(self._machines.values()))
        self._boxes = path / "boxes"
        for folder in (self._boxes, path / "consoles", path / "volumes"):
            folder.mkdir(exist_ok=True)
        # In a mount namespace of this process: what machines write is memory, and goes with it.
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(self._boxes)], check=True)
        # Machines are killed when the thread that started them ends: these do not, before all do.
        self._pool = ThreadPoolExecutor(64, thread_name_prefix="machines")
        self.notices: dict[str, dict[str, str]] = {}
        """What instances are told of their end."""

    # --- for the world ---------------------------------------------------------------------------

    def start(self, instance: Any) -> None:
        """Boot an instance's machine."""
        box, console = self._boxes / instance.id, self._path / "consoles" / instance.id
        machine = Machine(box, console, instance, self._world.knobs.boot_seconds)
        self._machines[instance.id] = machine
        data = read_user_data(instance.user_data)
        keys = list(data.authorized_keys)
        pair = instance.ec2_backend.key_pairs.get(instance.key_name or "")
        if pair is not None:
            keys.append(pair.public_key)
        self._later(self._boot, machine, data, keys)

    def kill(self, instance_id: str) -> None:
        """Kill a machine, and let its NFS clients hang."""
        machine = self._machines.get(instance_id)
        if machine is not None:
            machine.kill()
            self._later(self._nfs.lost, instance_id)

    def alive(self, instance_id: str) -> bool:
        """Whether anything of a machine is still there."""
        machine = self._machines.get(instance_id)
        return machine is not None and machine.alive

    def plug(self, instance_id: str, volume: Any, device: str) -> None:
        """Let a volume appear in a machine."""
        machine = self._machines[instance_id]
        self._later(self._plug, machine, volume.id, int(volume.size), device)

    def unplug(self, instance_id: str, volume_id: str, *, force: bool) -> bool:
        """Let a volume disappear, if it is not mounted there."""
        machine, loop = self._machines.get(instance_id), self._volumes.get(volume_id)
        if machine is None or loop is None or not machine.alive:
            return True
        if not force and any(device == loop.device for device, _ in machine.mounts()):
            return False
        for place in (machine.inside("/dev"), machine.inside("/dev/disk/by-id")):
            for node in place.iterdir():
                if _is(node, loop.device):
                    node.unlink()
        for link in machine.inside("/dev/disk/by-id").iterdir():
            if volume_id.replace("-", "") in link.name:
                link.unlink()
        return True

    def drop(self, volume_id: str) -> None:
        """Delete a volume's file."""
        loop = self._volumes.pop(volume_id, None)
        if loop is not None:
            loop.close()

    def discard(self, instance_id: str) -> None:
        """Delete the root of a machine that is gone for good."""
        machine = self._machines.get(instance_id)
        if machine is not None:
            self._later(shutil.rmtree, machine.box, True)

    def console(self, instance_id: str) -> str:
        """What a machine's first process and its sshd said."""
        machine = self._machines.get(instance_id)
        return machine.console.read_text() if machine and machine.console.exists() else ""

    def fallen(self) -> list[str]:
        """Instances whose machines ended by themselves; each is named once."""
        found = [i for i, machine in self._machines.items() if machine.fell]
        for name in found:
            self._machines[name].ended = True
        return found

    # --- for control -----------------------------------------------------------------------------

    def machines(self) -> dict[str, dict[str, Any]]:
        """Those that live, by instance."""
        return {
            name: {
                "address": m.private,
                "public": m.public,
                "pid": m.pid,
                "ready": m.ready.is_set(),
            }
            for name, m in list(self._machines.items())
            if m.alive
        }

    def cut(self, instance_id: str) -> int:
        """Kill the connections of a machine's sshd. Returns: how many processes of it."""
        servers = self._machines[instance_id].sshd()[1]
        send(servers, signal.SIGKILL)
        return len(servers)

    def refuse_ssh(self, instance_id: str, seconds: float) -> None:
        """Let nobody connect to a machine's sshd for a while; connections stay."""
        machine = self._machines[instance_id]
        gate = machine.inside("/run/refuse-ssh")
        gate.touch()
        send(machine.sshd()[0], signal.SIGKILL)
        timer = threading.Timer(seconds, lambda: gate.unlink(missing_ok=True))
        timer.daemon = True
        timer.start()

    def freeze(self, instance_id: str) -> None:
        """Let a machine stand still: its connections stay, and nobody answers."""
        self._machines[instance_id].freeze()
        self._nfs.lost(instance_id)

    def thaw(self, instance_id: str) -> None:
        """Let a machine go on."""
        self._machines[instance_id].thaw()
        self._nfs.back(instance_id)

    def crash(self, instance_id: str) -> None:
        """Let a machine end of which EC2 does not know why, as after ``poweroff``."""
        machine = self._machines[instance_id]
        machine.fall()
        self._later(self._nfs.lost, instance_id)

    def interrupt_spot(self, instance_id: str, notice_seconds: float) -> None:
        """Announce the end of a spot instance in its metadata, and end it when the time comes."""
        at = time.gmtime(time.time() + notice_seconds)
        self.notices[instance_id] = {
            "action": "terminate",
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", at),
        }
        said = ("Server.SpotInstanceTermination", "Instance terminated by spot")
        timer = threading.Timer(
            notice_seconds,
            lambda: self._world.end(instance_id, *said, "Service initiated ({now})"),
        )
        timer.daemon = True
        timer.start()

    def block_nfs(self, on: bool) -> None:
        """Let no machine reach TCP port 2049 of another, as a security group may."""
        self._nfs.blocked = on

    def grow_volume(self, volume_id: str, gib: int) -> None:
        """Make a volume's device larger, as ModifyVolume does."""
        self._volumes[volume_id].grow(gib * _GIB)

    # --- for machines ----------------------------------------------------------------------------

    def asked(self, instance_id: str, what: str, values: dict[str, str]) -> dict[str, Any]:
        """What a stand-in on a machine asks for."""
        machine = self._machines[instance_id]
        if what == "nfs":
            return self._nfs.export(machine, values["server"], values["path"])
        if what == "mounted":
            self._nfs.mounted(machine, values["server"], values["path"])
        if what == "exported":
            self._nfs.back(instance_id)
        if what == "power-off":
            self.crash(instance_id)
        return {}

    # --- inside ----------------------------------------------------------------------------------

    def close(self) -> None:
        """End all machines, and let go of all volumes."""
        for machine in self._machines.values():
            machine.kill()
        for machine in self._machines.values():
            machine.close()
        self._pool.shutdown(cancel_futures=True)
        for name in list(self._volumes):
            self.drop(name)

    def _later(self, action: Callable[..., None], *arguments: Any) -> None:
        def act() -> None:
            try:
                action(*arguments)
            except Exception as error:
                print(
                    f"{action.__name__}: {type(error).__name__}: {error}",
                    file=sys.stderr,
                    flush=True,
                )

        self._pool.submit(act)

    def _boot(self, machine: Machine, data: UserData, keys: list[str]) -> None:
        url = f"{self._metadata}/{machine.id}"
        upper = machine.box / "upper"
        if not machine.box.exists():
            for folder in (upper, machine.box / "work", machine.box / "root"):
                folder.mkdir(parents=True)
            make_image(upper, url, machine.id)
        addresses = [machine.private, *([machine.public] if machine.public else [])]
        configure_ssh(upper, data, keys, addresses=addresses, port=self._port, url=url)
        machine.start()

    def _plug(self, machine: Machine, volume_id: str, gib: int, device: str) -> None:
        if not machine.ready.wait(20) or machine.ended:
            return
        with self._world.lock:
            loop = self._volumes.get(volume_id)
            if loop is None:
                file = self._path / "volumes" / volume_id
                loop = self._volumes[volume_id] = Loop(file, gib * _GIB)
        if self._world.knobs.xen:
            node = device.replace("/dev/sd", "/dev/xvd")
        else:
            taken = {entry.name for entry in machine.inside("/dev").iterdir()}
            number = next(n for n in range(1, 100) if f"nvme{n}n1" not in taken)
            node = f"/dev/nvme{number}n1"
        os.mknod(machine.inside(node), stat.S_IFBLK | 0o660, loop.device)
        if not self._world.knobs.xen:
            name = f"nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"
            machine.inside(f"/dev/disk/by-id/{name}").symlink_to(f"../../{Path(node).name}")


def _is(node: Path, device: int) -> bool:
    about = node.lstat()
    return stat.S_ISBLK(about.st_mode) and about.st_rdev == device
