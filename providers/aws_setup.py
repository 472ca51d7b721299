"""Making a machine ready for workers, over SSH; ``providers.aws_script`` is what is done there.

Everything may be cut off anywhere and be done again; who finds a set-up under way waits a little,
then says so (``InProgress``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass

from providers import aws_script
from providers.aws_values import Wish
from providers.base import InProgress, ProviderError, ProviderUnreachable
from providers.remote_setup import CANDIDATES, Place, install
from providers.shell import Completed, Shell
from worker.wire import clean

SECONDS = 840.0
"""For one attempt, users' commands and packages included."""
QUICK_SECONDS = 120.0
OWN_FOLDER = "~/.codeswarm"
"""On the machine's own disk: what must work without the shared volume lies there."""
_PLAIN = re.compile(r"(/|~/)[\w./+@=,~-]*\Z", re.ASCII)
_MAX_SAID = 600
_OURS = re.compile(r"\d{4}-\d\d-\d\dT[\d:]{8}Z ", re.ASCII)
"""A line of the script's own log: its time would make the same failure another one each time."""


@dataclass(frozen=True, slots=True)
class Coordinator:
    """The machine that the volume is attached to: it mounts it, and exports it to the others."""

    volume: str
    """Id of the volume."""
    clients: tuple[str, ...] = ()
    """Private addresses that may mount it."""
    fsid: str = ""
    """A UUID: its handles are good under this one only.  Empty: the file system's own."""
    may_format: bool = False
    """Whether it was never in use, so that it is formatted if there is nothing on it."""
    size_gib: int = 0
    """Its size; 0: not told."""


@dataclass(frozen=True, slots=True)
class Member:
    """A machine that mounts the volume from the coordinator."""

    coordinator: str
    """Its private address."""
    volume: str
    """Id of the volume that is expected there."""


Role = Coordinator | Member


@dataclass(frozen=True, slots=True)
class Ready:
    """A machine that workers can be started on."""

    name: str
    """Of the machine, for messages: an instance id."""
    python: str
    """Of 3.9 or newer, absolute."""
    root: str
    """``workspaceRoot``, absolute, without symlinks: the volume is mounted there."""
    worker: str
    """The worker's file, on the machine's own disk."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long may be waited there, seconds."""

    patience: float = 60.0
    """For another set-up that is under way."""
    boot: float = 300.0
    """For cloud-init."""
    device: float = 120.0
    """For the volume to appear."""
    mount: float = 60.0
    command: float = 600.0
    """For each of the user's commands."""
    lock: float = 300.0
    """For another apt-get that holds the lock of its lists."""
    pause: float = 3.0
    """Before it is asked again."""


async def set_up(
    shell: Shell,
    name: str,
    wish: Wish,
    role: Role,
    *,
    seconds: float = SECONDS,
    times: Times | None = None,
) -> Ready:
    """Have a machine ready: packages, the user's commands, the volume, the worker's file.

    Processes that use what is mounted at the root from elsewhere have been ended by the caller.

    Args:
        shell: of the machine.
        name: of the machine, for messages.
        wish: the manifest's provider block.
        role: what it is to the shared volume.
        seconds: for all of it.
        times: for parts of it.

    Raises: ProviderError (``SudoNeeded``, ``PackagesFailed``, ``PythonNotFound``,
        ``BootstrapFailed``, ``VolumeNotFound``, ``VolumeNotBlank``, ``VolumeBlank``,
        ``VolumeFailed``, ``RootNotEmpty``, ``MountFailed``, ``ExportFailed``,
        ``InvalidParameters``); InProgress; what the shell raises; what ``remote_setup.install``
        raises.
    """
    script = _script(wish, role, "set_up", times or Times())
    python, root = await _run(shell, name, wish, script, seconds)
    place = Place(name, OWN_FOLDER, python=python)
    there = await install(shell, place)
    return Ready(name, there.python, root, there.path)


async def share(
    shell: Shell, name: str, wish: Wish, role: Coordinator, *, times: Times | None = None
) -> None:
    """Have the coordinator export the volume to exactly these clients, and fill a grown volume.

    Raises: as ``set_up``.
    """
    script = _script(wish, role, "share", times or Times())
    await _run(shell, name, wish, script, SECONDS)


async def mounted_from(shell: Shell) -> str:
    """The address of the coordinator whose export a machine has mounted; empty: of none.

    Nothing is asked of the file system, which may hang.  Raises: what the shell raises.
    """
    mark = 'cut -d " " -f 1 "$HOME/.codeswarm/done/mounted" 2>/dev/null || :'
    done = await shell.run(["sh", "-c", mark], seconds=QUICK_SECONDS, repeatable=True)
    return _plain(done.out.decode(errors="replace")).strip()


async def log(shell: Shell, limit: int = 65536) -> str:
    """The end of a machine's bootstrap log; empty: there is none yet.

    Args:
        shell: of the machine.
        limit: bytes.

    Raises: what the shell raises.
    """
    tail = f'tail -c "$1" "$HOME/.codeswarm/{aws_script.LOG}" 2>/dev/null || :'
    done = await shell.run(
        ["sh", "-c", tail, "sh", str(limit)], seconds=QUICK_SECONDS, repeatable=True
    )
    return _plain(done.out.decode(errors="replace"))


def _script(wish: Wish, role: Role, main: str, times: Times) -> bytes:
    """Raises: ProviderError (``InvalidParameters``)."""
    if not _PLAIN.match(wish.root) or ".." in wish.root.split("/"):
        raise ProviderError(
            "InvalidParameters",
            f"aws.workspaceRoot: {wish.root!r} cannot be exported by NFS: use letters, digits and "
            "any of ._/+@=,-",
        )
    packages = " ".join(sorted(wish.packages))
    values: dict[str, str | int] = {
        "volume": role.volume,
        "role": "coordinator" if isinstance(role, Coordinator) else "member",
        "root": wish.root,
        "device": wish.device,
        "packages": packages,
        "packages_mark": hashlib.sha256(packages.encode()).hexdigest()[:16],
        "pythons": " ".join(CANDIDATES),
        "patience": round(times.patience),
        "boot_seconds": round(times.boot),
        "device_seconds": round(times.device),
        "mount_seconds": round(times.mount),
        "command_seconds": round(times.command),
        "lock_seconds": round(times.lock),
        "pause_seconds": f"{times.pause:g}",
    }
    if isinstance(role, Coordinator):
        values |= {
            "clients": " ".join(sorted(set(role.clients))),
            "fsid": role.fsid,
            "may_format": "yes" if role.may_format else "",
            "size_bytes": role.size_gib << 30,
        }
    else:
        values |= {"coordinator": role.coordinator}
    return aws_script.text(values, wish.commands, main).encode()


async def _run(
    shell: Shell, name: str, wish: Wish, script: bytes, seconds: float
) -> tuple[str, str]:
    """Run a script; the Python and the root that it found. Raises: as ``set_up``."""
    done = await shell.run(aws_script.RUN, input=script, seconds=seconds, repeatable=True)
    word, _, rest = _answer(done.out).partition(" ")
    if word == "ready":
        python, _, root = rest.partition(" ")
        return python, root
    if word == "busy":
        raise InProgress("Bootstrapping", f"{name}: a set-up is under way there")
    if word == "failed":
        reason, _, rest = rest.partition(" ")
        status, _, what = rest.partition(" ")
        raise _failed(name, wish, (reason, status, what), _said(done.out))
    raise _silent(name, done)


def _answer(out: bytes) -> str:
    """The last line that is ours, without its mark."""
    for line in reversed(out.decode(errors="replace").splitlines()):
        if line.startswith(aws_script.MARK):
            return _plain(line[len(aws_script.MARK) :]).strip()
    return ""


def _said(out: bytes) -> str:
    """What stands after our last line: the end of what a step said, without our own words."""
    lines: list[str] = []
    for line in out.decode(errors="replace").splitlines():
        if line.startswith(aws_script.MARK):
            lines.clear()
        else:
            lines.append(_plain(line).strip())
    return " | ".join(line for line in lines if line and not _OURS.match(line))[-_MAX_SAID:]


def _silent(name: str, done: Completed) -> ProviderUnreachable:
    # An image may let nobody in as root, and say so on the output (cloud-init's disable_root).
    told = done.err.strip() or done.out.strip()
    words = _plain(told.decode(errors="replace")).strip()[-_MAX_SAID:]
    return ProviderUnreachable(
        "LoginFailed",
        f"{name}: the set-up ended before it said anything (exit status {done.code}): "
        f"{words or 'no message'}",
    )


def _failed(name: str, wish: Wish, told: tuple[str, str, str], said: str) -> ProviderError:
    """A failure of a step, in a sentence that says what would be right."""
    reason, status, what = told
    sentence = _SENTENCES.get(reason)
    if sentence is None:
        reason, sentence = "BootstrapFailed", "{what}: {code}"
    number = int(what) if what.isdigit() and len(what) < 6 else 0
    code = f"exit status {status}" if status.isdigit() else "an error"
    if reason == "BootstrapFailed" and status == _TIMED_OUT:
        code += " (it takes too long: it was ended, or says so itself)"
    command = wish.commands[number - 1] if 0 < number <= len(wish.commands) else what
    text = sentence.format(
        what=what, code=code, user=wish.user, root=wish.root, index=number - 1,
        command=command.splitlines()[0][:120] if command else "",
    )  # fmt: skip
    tail = f"; it said: {said}" if said else ""
    return ProviderError(
        reason,
        f"{name}: {text}{tail}; all of it: `codeswarm logs` of the "
        f"swarm, or {OWN_FOLDER}/{aws_script.LOG} there",
    )


_TIMED_OUT = "124"  # timeout(1)
_SENTENCES = {
    "SudoNeeded": (
        "{user} may not run commands as root there without a password ({what}: {code}): let "
        "sshUser be one who may, as the image's own user may by default"
    ),
    "PackagesFailed": (
        "packages could not be installed ({what}: {code}): does the machine reach its package "
        "mirrors (a NAT or a VPC endpoint where it has no public address), and do they have such "
        "a package? An image that has git, Python 3.9 and the NFS tools needs none"
    ),
    "PythonNotFound": (
        "there is no Python 3.9 or newer, and none could be installed (tried: {what}): take a "
        "newer image, or install one by bootstrap.commands"
    ),
    "BootstrapFailed": "bootstrap.commands[{index}] failed with {code}: {command}",
    "VolumeNotFound": (
        "{what} is attached, but does not appear as a device: check deviceName, and whether the "
        "image knows EBS volumes of this instance type (NVMe)"
    ),
    "VolumeNotBlank": (
        "the volume holds something other than an ext4 file system ({what}), and is not formatted: "
        "save what is on it, or have it deleted"
    ),
    "VolumeBlank": (
        "{what} has been in use, but there is nothing on it any more, and it is not formatted "
        "again: restore it from a snapshot, or delete the swarm and begin anew"
    ),
    "RootNotEmpty": (
        "workspaceRoot: there are files in {what} already, which the volume would hide: name "
        "another folder, or remove them"
    ),
    "VolumeFailed": "the volume cannot be used ({what}: {code})",
    "MountFailed": (
        "the shared volume cannot be mounted at {root} ({what}: {code}): the machines' security "
        "groups must let TCP port 2049 through among themselves"
    ),
    "HomeNotWritable": "{what} cannot be made or written to: {user} needs a home folder",
    "ExportFailed": "the volume cannot be exported by NFS ({what}: {code})",
    "InvalidParameters": "workspaceRoot: no volume can be mounted at {what}: it is no plain folder",
}


def _plain(text: str) -> str:
    """What a machine said, without control characters."""
    return "".join(c for c in clean(text) if c.isprintable() or c in "\n\t")


def clients_of(addresses: Collection[str], own: str) -> tuple[str, ...]:
    """The addresses to export to: those of all the swarm's machines but the coordinator's own."""
    return tuple(sorted({one for one in addresses if one and one != own}))
