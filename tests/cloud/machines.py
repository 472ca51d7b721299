"""The test cloud with machines: ``Cloud(path)`` is EC2's API and what its instances do.

Every running instance is a machine made of namespaces, with a real sshd at its address (see
``tests.cloud.hypervisor``; what stands in for what cannot be had: ``docs/testing.md``).  Needs
root; its end leaves nothing.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cloud.api import CloudApi
from tests.cloud.image import USER
from tests.cloud.loops import left
from tests.sshd import missing_sshd

ROOT = "/shared/codeswarm"
"""``workspaceRoot``; machines have a root of their own, so that clouds do not meet."""
_TRY = """
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
"""


def missing_machines() -> str:
    """Why no machine can be made here; empty if one can."""
    if os.geteuid() != 0:
        return "machines are made of namespaces, which needs root"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices (/dev/loop-control)"
    search = "/usr/bin:/usr/sbin:/bin:/sbin"
    for program in ("unshare", "nsenter", "setpriv", "mkfs.ext4", "blkid", "python3", "git"):
        if shutil.which(program, path=search) is None:
            return f"{program} is not there (in {search}), which machines need"
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(
            ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "sh", "-ec", _TRY, "sh",
             folder], capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
    if tried.returncode:
        return f"no machine can be made of namespaces: {tried.stderr.strip()}"
    return missing_sshd()


def require_machines() -> None:
    """Skip the test where no machine can be made; in CI that fails it."""
    why = missing_machines()
    if why and os.environ.get("CI"):
        pytest.fail(f"{why}: CI must have it")
    if why:
        pytest.skip(why)


class Cloud(CloudApi):
    """EC2's API, and machines behind its instances."""

    prefix = ("unshare", "--mount")
    options = ("--machines",)

    def __init__(self, path: Path, **knobs: Any) -> None:
        require_machines()
        super().__init__(path, **knobs)

    @property
    def api(self) -> CloudApi:
        """Itself: all of the API's faults."""
        return self

    def parameters(self, **more: Any) -> dict[str, Any]:
        """A complete provider block."""
        own = {"sshUser": USER, "sshPort": self.port, "workspaceRoot": ROOT}
        return super().parameters(**{**own, **more})

    def end(self) -> None:
        """End it, and see that nothing is left. Raises: AssertionError."""
        self.close()
        deadline = time.monotonic() + 10
        while left(self.path) or _of(self.path):
            assert time.monotonic() < deadline, f"left: {left(self.path)} {_of(self.path)}"
            time.sleep(0.02)

    def __exit__(self, *_: Any) -> None:
        self.end()

    # --- machines --------------------------------------------------------------------------------

    def machines(self) -> dict[str, dict[str, Any]]:
        """Those that live, by instance: ``address``, ``public``, ``pid`` (of the first process)."""
        return dict(self.call("machines"))

    def wait_ready(self, *instances: str, seconds: float = 20) -> None:
        """Wait until machines have booted, which is before their sshd's listen."""
        self.wait(
            lambda: all(self.machines().get(i, {}).get("ready") for i in instances),
            f"{', '.join(instances)} boot", seconds,
        )  # fmt: skip

    def run(self, instance: str, *command: str, check: bool = True) -> str:
        """Run a command on a machine, as root, without SSH. Returns: what it printed."""
        pid = self.machines()[instance]["pid"]
        done = subprocess.run(
            ["nsenter", "--target", str(pid), "--mount", "--pid", "--uts", "--ipc", *command],
            capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def file(self, instance: str, path: str) -> Path:
        """A file of a machine, as this process reaches it."""
        return Path(f"/proc/{self.machines()[instance]['pid']}/root") / path.lstrip("/")

    def called(self, instance: str) -> list[str]:
        """Which stand-ins were called on a machine, with their arguments."""
        return self.file(instance, "/var/log/cloud/calls").read_text().splitlines()

    def console(self, instance: str) -> str:
        """What a machine's first process and sshd said."""
        return (self.path / "consoles" / instance).read_text()

    def processes(self, job: str) -> list[int]:
        """Processes of a worker's job on any machine, as the host counts them."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("CODESWARM_JOB_ID") == job:
                    found.append(process.pid)
            except (psutil.Error, OSError):
                continue
        return found

    # --- faults ----------------------------------------------------------------------------------

    def kill(self, instance: str, code: str = "Server.InternalError") -> None:
        """Let a machine die at once, and EC2 say that it is terminated."""
        self.terminate(instance, code, "Internal error", "Server.InternalError")

    def reboot(self, instance: str) -> None:
        """Start a machine anew, with what it had written."""
        before = self.machines()[instance]["pid"]
        self.client().reboot_instances(InstanceIds=[instance])
        self.wait(
            lambda: self.machines().get(instance, {}).get("pid") not in (None, 0, before),
            "it is rebooted",
        )
        self.wait_ready(instance)

    def crash(self, instance: str) -> None:
        """Let a machine shut itself down."""
        self.call("crash", instance_id=instance)

    def cut(self, instance: str) -> int:
        """Kill the SSH connections of a machine. Returns: how many processes served them."""
        return int(self.call("cut", instance_id=instance))

    def refuse_ssh(self, instance: str, seconds: float) -> None:
        """Let nobody log in on a machine for a while; connections stay."""
        self.call("refuse_ssh", instance_id=instance, seconds=seconds)

    def freeze(self, instance: str) -> None:
        """Let a machine stand still."""
        self.call("freeze", instance_id=instance)

    def thaw(self, instance: str) -> None:
        """Let a machine go on."""
        self.call("thaw", instance_id=instance)

    def interrupt_spot(self, instance: str, notice_seconds: float = 2.0) -> None:
        """Announce the end of a spot instance in its metadata; it comes when the time is over."""
        self.call("interrupt_spot", instance_id=instance, notice_seconds=notice_seconds)

    def block_nfs(self, on: bool = True) -> None:
        """Let no machine reach another's NFS server, as a security group may."""
        self.call("block_nfs", on=on)

    def grow_volume(self, volume: str, gib: int) -> None:
        """Make a volume's device larger, as ModifyVolume does."""
        self.call("grow_volume", volume_id=volume, gib=gib)


def _of(path: Path) -> list[int]:
    """Processes that were started for the machines of a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(f"{path}/boxes/" in word for word in process.cmdline()):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


_shared: list[Cloud] = []


@pytest.fixture
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud without anything in it; one server for all tests of this process.

    After the test every instance and volume goes, faults end, and how long things take is as
    before. Whoever names it in a ``conftest.py`` has it.
    """
    if not _shared:
        _shared.append(Cloud(tmp_path_factory.mktemp("cloud"), boot_seconds=0.05))
        atexit.register(_shared[0].end)
    (cloud,) = _shared
    yield cloud
    cloud.clear()
    cloud.call("calm")
