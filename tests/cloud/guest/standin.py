#!/usr/bin/python3
"""Stand-ins for what a machine of the test cloud cannot have: one file, called by many names.

There are no packages to install, no systemd, no cloud-init and no NFS in the kernel.  Each call is
noted in ``/var/log/cloud/calls``.  NFS: the server's side keeps its exports as the real exportfs
does; a client asks the hypervisor, which looks whether that server would let it in, for the device
of the server's file system, and mounts that.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

PACKAGES = Path("/usr/lib/cloud-packages")
"""What the packages of the same names install."""
EXPORTS = Path("/run/nfs/exports")
SERVING = Path("/run/nfs/serving")
ENABLED = Path("/etc/nfs-server-enabled")
"""It then starts at boot."""
FINISHED = Path("/var/lib/cloud/instance/boot-finished")
UNITS = ("nfs-server", "nfs-kernel-server", "nfs-server.service", "nfs-kernel-server.service")
FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "sync": 16, "noatime": 1024}
OPTIONS = re.compile(
    r"(rw|ro|hard|soft|softerr|bg|fg|intr|nointr|noatime|nodiratime|relatime|async|sync|nosuid|nodev"
    r"|noexec|exec|suid|dev|auto|noauto|nofail|_netdev|lock|nolock|ac|noac|cto|nocto|sharecache"
    r"|nosharecache|defaults|x-.*|(nfs)?vers=(4|4\.0|4\.1|4\.2)|minorversion=\d|proto=tcp6?|port=\d+"
    r"|(timeo|retrans|rsize|wsize|nconnect|retry|acregmin|acregmax|acdirmin|acdirmax|actimeo)=\d+"
    r"|sec=sys|clientaddr=.*|lookupcache=.*|local_lock=.*)"
)


def apt_get(arguments: list[str]) -> int:
    """``apt-get install`` and ``update``; packages named ``no-such-...`` do not exist."""
    words = [word for word in arguments if not word.startswith("-") and "::" not in word]
    if not words or words[0] != "install":
        return 0
    for name in words[1:]:
        if name.startswith("no-such"):
            print(f"E: Unable to locate package {name}", file=sys.stderr)
            return 100
    for name in words[1:]:
        packed = PACKAGES / name
        if packed.is_dir():
            subprocess.run(["cp", "-a", f"{packed}/.", "/"], check=True)
        print(f"Setting up {name} ...")
        if name == "nfs-kernel-server":  # Debian's packages start what they bring
            systemctl(["enable", "--now", "nfs-server"])
    return 0


def systemctl(arguments: list[str]) -> int:
    """Of the NFS server; other units are taken as they are."""
    words = [word for word in arguments if not word.startswith("-")]
    verb, units = (words or ["status"])[0], words[1:]
    if not any(unit in UNITS for unit in units):
        return 0
    if not Path("/usr/sbin/exportfs").exists():
        print(f"Failed to {verb} nfs-server.service: Unit nfs-server.service not found.")
        return 5
    if verb in ("is-active", "is-enabled"):
        on = (SERVING if verb == "is-active" else ENABLED).exists()
        if "-q" not in arguments and "--quiet" not in arguments:
            print({"is-active": ("inactive", "active")}.get(verb, ("disabled", "enabled"))[on])
        return 0 if on else 3 if verb == "is-active" else 1
    if verb == "enable":
        ENABLED.touch()
    if verb == "disable":
        ENABLED.unlink(missing_ok=True)
    if verb in ("start", "restart", "reload") or (verb == "enable" and "--now" in arguments):
        SERVING.touch()
        return exportfs(["-r"])
    if verb == "stop" or (verb == "disable" and "--now" in arguments):
        SERVING.unlink(missing_ok=True)
    return 0


def exportfs(arguments: list[str]) -> int:
    """``-r`` takes what the files say, ``-ua`` takes all away; without any, lists."""
    flags = "".join(word[1:] for word in arguments if word.startswith("-"))
    if "u" in flags:
        EXPORTS.write_text("")
        return 0
    if not flags or flags == "v":
        print(EXPORTS.read_text() if EXPORTS.exists() else "", end="")
        return 0
    files = [Path("/etc/exports"), *sorted(Path("/etc/exports.d").glob("*.exports"))]
    lines, failed = [], 0
    for file in files:
        for line in file.read_text().splitlines() if file.exists() else []:
            words = shlex.split(line.partition("#")[0])
            if words and not Path(words[0]).is_dir():
                print(f"exportfs: Failed to stat {words[0]}: No such file or directory")
                failed = 1
                continue
            for client in words[1:]:
                host, _, options = client.partition("(")
                if "mp" in options.rstrip(")").split(",") and not Path(words[0]).is_mount():
                    print(f"exportfs: {words[0]} is not a mountpoint, and not exported")
                    continue
                lines.append(f"{words[0]} {host} {options.rstrip(')')}\n")
    spare = EXPORTS.with_suffix(".new")
    spare.write_text("".join(lines))
    spare.rename(EXPORTS)
    about = json.loads(Path("/etc/cloud-instance").read_text())
    _ask(about["hypervisor"], "exported", {})
    return failed


def boot(_: list[str]) -> int:
    """What is enabled starts."""
    if ENABLED.exists():
        SERVING.touch()
        exportfs(["-r"])
    return 0


def cloud_init(arguments: list[str]) -> int:
    """``cloud-init status [--wait]``."""
    while "--wait" in arguments and not FINISHED.exists():
        time.sleep(0.02)
    print(f"status: {'done' if FINISHED.exists() else 'running'}")
    return 0


def mount_nfs(arguments: list[str]) -> int:
    """What mount(8) calls: ``source folder [-flags] [-o options]``."""
    source, folder, *rest = arguments
    given = rest[rest.index("-o") + 1].split(",") if "-o" in rest else []
    for option in given:
        if not OPTIONS.fullmatch(option):
            return _no("an incorrect mount option was specified")
    server, _, path = source.partition(":")
    about = json.loads(Path("/etc/cloud-instance").read_text())
    answer = _ask(about["hypervisor"], "nfs", {"server": server, "path": path})
    if "error" in answer:
        return _no(answer["error"])
    device = Path("/run/nfs/devices", source)
    device.parent.mkdir(parents=True, exist_ok=True)
    if not device.exists():
        os.mknod(device, stat.S_IFBLK | 0o600, os.makedev(answer["major"], answer["minor"]))
    os.chdir("/run/nfs/devices")  # mountinfo then shows the source word for word, as of NFS
    flags = sum(FLAGS.get(option, 0) for option in given)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), folder.encode(), b"ext4", flags, b""):
        return _no(os.strerror(ctypes.get_errno()))
    _ask(about["hypervisor"], "mounted", {"server": server, "path": folder})
    return 0


def power_off(_: list[str]) -> int:
    """Whatever it is called by."""
    about = json.loads(Path("/etc/cloud-instance").read_text())
    _ask(about["hypervisor"], "power-off", {})
    return 0


def _no(why: str) -> int:
    print(f"mount.nfs4: {why}", file=sys.stderr)
    return 32


def _ask(url: str, what: str, values: dict[str, str]) -> dict:
    body = json.dumps(values).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"{url}/{what}", body, method="POST")
    with opener.open(request, timeout=30) as answer:
        return json.loads(answer.read())


CALLS = {
    "apt-get": apt_get,
    "systemctl": systemctl,
    "cloud-standin": boot,
    "exportfs": exportfs,
    "cloud-init": cloud_init,
    "mount.nfs4": mount_nfs,
    "mount.nfs": mount_nfs,
    "poweroff": power_off,
    "shutdown": power_off,
}


def main() -> int:
    """Note the call, and do it."""
    name = Path(sys.argv[0]).name
    with open("/var/log/cloud/calls", "a") as log:
        log.write(shlex.join([name, *sys.argv[1:]]) + "\n")
    return CALLS[name](sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
