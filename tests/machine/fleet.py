"""Machines to be made ready: each a mount namespace with its own home, /etc and block device.

Real are the shell, mkfs, blkid, mount and the device (a loop device on a sparse file).  Package
manager, systemd, cloud-init, sudo, exportfs and NFS are scripts that write down how they were
called; "NFS" is a bind mount of a folder.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from providers.base import ProviderUnreachable
from tests.remote.shells import Completed
from tests.worker.harness import until

LOG = 'echo "$(basename "$0") $*" >> "$STANDINS/calls"\n'
SCRIPTS = {
    "apt-get": """
case "$*" in *" update") [ -s "$STANDINS/apt-locked" ] || exit 0
  sed -i 1d "$STANDINS/apt-locked"
  echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 77 (apt-get)"
  exit 100 ;; esac
case "$*" in *" install "*) ;; *) exit 0 ;; esac
[ ! -s "$STANDINS/apt-locked" ] || { echo "E: Unable to locate package"; exit 100; }
[ ! -e "$STANDINS/apt-fails" ] || { echo "E: Unable to locate package"; exit 100; }
case "$*" in *nfs-kernel-server*) printf '#!/bin/sh\\n%s' "$LOG" > "$STANDINS/bin/exportfs"
  chmod +x "$STANDINS/bin/exportfs" ;; esac
case "$*" in *nfs-common*) printf '#!/bin/sh\\n' > "$STANDINS/bin/mount.nfs4"
  chmod +x "$STANDINS/bin/mount.nfs4" ;; esac
""",
    "dpkg": "",
    "cloud-init": "",
    "loginctl": "",
    "systemctl": """
case "$*" in
  *is-active*) [ -e "$STANDINS/active" ] || exit 3 ;;
  restart*) touch "$STANDINS/active" ;;
  *is-enabled*) exit 1 ;;
esac
""",
    "sudo": '[ -e "$STANDINS/sudo-refuses" ] && exit 1\nshift\nexec "$@"\n',
    "id": """
if [ -e "$STANDINS/user" ] && [ "$1" = -u ]; then echo 1000; else exec /usr/bin/id "$@"; fi
""",
    "mount": """
case "$*" in
  *nfs4*) for last; do :; done
    [ -d "$STANDINS/served" ] || { echo "mount.nfs4: Connection timed out"; exit 32; }
    exec /usr/bin/mount --bind "$STANDINS/served" "$last" ;;
esac
exec /usr/bin/mount "$@"
""",
}
IN_A_MACHINE = """
mount --make-rprivate / && cp -a /etc/. "$1" && mount --bind "$1" /etc && mkdir -p /etc/exports.d &&
touch "$2" && exec sleep infinity
"""


class Standin:
    """A machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.home = path / "home"
        self.root = path / "mnt" / "shared"
        for folder in ("home", "etc", "bin"):
            (path / folder).mkdir(parents=True)
        for name, text in SCRIPTS.items():
            script = path / "bin" / name
            script.write_text(f"#!/bin/sh\n{LOG}{text}")
            script.chmod(0o755)
        self.disks: list[str] = []
        self.process = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--kill-child",
                "--fork",
                "sh",
                "-c",
                IN_A_MACHINE,
                "sh",
                str(path / "etc"),
                str(path / "up"),
            ],
            stderr=subprocess.PIPE,
        )
        until((path / "up").exists, "for the namespace")
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        self.inside = children.split()[0]
        self.env = {
            "PATH": f"{path}/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "STANDINS": str(path),
            "LOG": LOG,
        }

    async def run(
        self, argv: Sequence[str], *, input: bytes = b"", seconds: float, repeatable: bool = False
    ) -> Completed:
        """As ``providers.shell.Shell``."""
        process = await self.begin(argv)
        try:
            async with asyncio.timeout(seconds):
                out, err = await process.communicate(input)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise ProviderUnreachable("CommandTimedOut", "too late") from None
        assert process.returncode is not None
        return Completed(process.returncode, out, err)

    async def begin(self, argv: Sequence[str]) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *("nsenter", "-t", self.inside, "--mount", f"--wdns={self.home}", *argv),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=self.env,
            start_new_session=True,
        )

    async def open(self, argv: Sequence[str]) -> object:
        raise NotImplementedError

    def disk(self, mebibytes: int = 64) -> str:
        """A blank disk; its device."""
        path = self.path / f"disk{len(self.disks)}"
        with path.open("wb") as file:
            file.truncate(mebibytes << 20)
        self.disks.append(said("losetup", "-f", "--show", str(path)))
        return self.disks[-1]

    def calls(self, word: str) -> list[str]:
        """How a stand-in was called."""
        path = self.path / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.split(" ")[0] == word]

    def inside_says(self, *argv: str) -> str:
        return said("nsenter", "-t", self.inside, "--mount", *argv)

    def mounts(self) -> list[str]:
        """Devices that are mounted at the root, the topmost last."""
        lines = Path(f"/proc/{self.inside}/mountinfo").read_text().splitlines()
        return [line.split()[2] for line in lines if line.split()[4] == str(self.root)]

    @property
    def log(self) -> str:
        return (self.home / ".codeswarm" / "bootstrap.log").read_text()

    @property
    def exports(self) -> str:
        path = self.path / "etc" / "exports.d" / "codeswarm.exports"
        return path.read_text().strip() if path.exists() else ""

    def end(self) -> None:
        self.process.kill()
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.process.wait()
        for disk in self.disks:
            until(lambda disk=disk: released(disk), f"for {disk}")  # type: ignore[misc]


def released(disk: str) -> bool:
    done = subprocess.run(["losetup", "-d", disk], check=False, capture_output=True)
    gone = b"No such device" in done.stderr
    listed = subprocess.run(["losetup", disk], check=False, capture_output=True)
    return gone or listed.returncode != 0


def said(*argv: str) -> str:
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def why_not() -> str:
    """Why there can be no such machines here; empty: there can."""
    if os.geteuid() != 0:
        return "only root may make namespaces and loop devices"
    lacking = [n for n in ("unshare", "nsenter", "losetup", "mkfs.ext4") if not shutil.which(n)]
    if lacking:
        return f"{', '.join(lacking)} is not installed"
    done = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True)
    loop = subprocess.run(["losetup", "-f"], check=False, capture_output=True)
    return (done.stderr + loop.stderr).decode() if done.returncode or loop.returncode else ""
