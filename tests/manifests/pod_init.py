"""Begins one container of tests/manifests/pod.py: run as root, alone in mounts and pids of its own.

    unshare --mount --pid --fork python3 pod_init.py SPEC

SPEC is a JSON file: ``scratch``, ``mounts`` ({source, target, readOnly}), ``shown`` (folders that
a program needs, though ours are not for everybody), ``users`` (lines for /etc/passwd), ``uid``,
``gid``, ``groups``, ``env``, ``argv``.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
PR_CAPBSET_DROP = 24


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def bind(source: Path, target: Path, *, read_only: bool) -> None:
    target.mkdir(parents=True, exist_ok=True)
    mount("--bind", str(source), str(target))
    if read_only:
        mount("-o", "remount,bind,ro", str(target))


def below(root: Path, path: str) -> Path:
    """The place of an absolute path in another root, that root's own links followed."""
    place = root
    for part in Path(path).parts[1:]:
        place = place / part
        if place.is_symlink():
            inside = "/" / place.parent.relative_to(root) / place.readlink()
            place = below(root, os.path.normpath(inside))
    return place


def make_root(scratch: Path) -> Path:
    """This machine's files, which nothing that is done here changes."""
    mount("-t", "tmpfs", "tmpfs", str(scratch))
    for name in ("upper", "work", "root"):
        (scratch / name).mkdir()
    layers = f"lowerdir=/,upperdir={scratch}/upper,workdir={scratch}/work"
    mount("-t", "overlay", "overlay", "-o", layers, str(scratch / "root"))
    return scratch / "root"


def show(root: Path, path: str) -> None:
    """Have a folder at its place, even where the way there is closed to others."""
    way = Path("/")
    for part in Path(path).parts[1:-1]:
        way = way / part
        if not way.stat().st_mode & 0o001:
            mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(below(root, str(way))))
            break
    bind(Path(path), below(root, path), read_only=True)


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    root = make_root(Path(spec["scratch"]))
    with (root / "etc" / "passwd").open("a") as passwd:
        passwd.write(spec["users"])
    mount("-t", "proc", "proc", str(root / "proc"))
    mount("--rbind", "/dev", str(root / "dev"))
    for path in spec["shown"]:
        show(root, path)
    for item in spec["mounts"]:
        bind(Path(item["source"]), below(root, item["target"]), read_only=item["readOnly"])
    mount("-o", "remount,ro", str(root))
    os.chroot(root)
    os.chdir("/")
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.setgroups(spec["groups"])
    os.setgid(spec["gid"])
    os.setuid(spec["uid"])
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.umask(0o022)
    os.execve(spec["argv"][0], spec["argv"], spec["env"])


if __name__ == "__main__":
    main()
