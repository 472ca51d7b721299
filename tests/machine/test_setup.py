"""A machine is made ready by what is missing there, however often, and wherever it was cut off."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from providers import aws_script
from providers.aws_nodes import marker
from providers.aws_setup import (
    Coordinator,
    Member,
    Ready,
    Times,
    _script,
    clients_of,
    log,
    mounted_from,
    set_up,
    share,
)
from providers.aws_values import Api, Wish
from providers.base import InProgress, ProviderError, ProviderUnreachable
from tests.machine.fleet import Standin, said, why_not
from tests.remote.shells import Completed
from tests.worker.harness import until

NAME = "i-0aaaaaaaaaaaaaaaa"
TIMES = Times(patience=1, boot=5, device=1, mount=5, command=2, pause=0.02)
MEMBER = Member("10.0.0.5", "vol-1")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Standin]:
    reason = why_not()
    if reason:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    one = Standin(tmp_path / "machine")
    yield one
    one.end()


def wish(machine: Standin, **more: object) -> Wish:
    known = Wish(Api("us-east-1"), "ami-1", "c7i.large", root=str(machine.root), user="ubuntu")
    return replace(known, **more)  # type: ignore[arg-type]


def ready(machine: Standin, want: Wish, role: Coordinator | Member) -> Ready:
    return asyncio.run(set_up(machine, NAME, want, role, seconds=60, times=TIMES))


def refused(machine: Standin, want: Wish, role: Coordinator | Member) -> tuple[str, str]:
    with pytest.raises(ProviderError) as caught:
        ready(machine, want, role)
    return caught.value.reason, str(caught.value)


def blank(volume: str = "vol-1", clients: tuple[str, ...] = ()) -> Coordinator:
    return Coordinator(volume, clients, may_format=True)


def serve(machine: Standin) -> None:
    """Have a volume on another machine that this one can mount."""
    (machine.path / "served").mkdir()
    (machine.path / "served" / ".codeswarm-vol-1").touch()


def write(disk: str, data: bytes) -> None:
    with Path(disk).open("r+b") as file:
        file.write(data)


def may_resize() -> bool:
    """CAP_SYS_RESOURCE (capabilities(7)), which root of a container may not have."""
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if "CapEff" in x]
    return bool(int(line.split()[1], 16) & 1 << 24)


def test_a_blank_volume_is_formatted_mounted_and_kept(machine: Standin) -> None:
    disk = machine.disk()
    want = wish(machine, device=disk)
    told = ready(machine, want, blank())
    assert told.name == NAME and told.root == str(machine.root)
    assert Path(told.worker).parent == machine.home / ".codeswarm" / "worker"
    assert said(told.python, "-I", "-c", "print(1)") == "1"
    (number,) = machine.mounts()
    machine.inside_says("sh", "-c", f"echo kept > {machine.root}/file")
    uuid = said("blkid", "-p", "-s", "UUID", "-o", "value", disk)

    assert ready(machine, want, blank()) == told
    assert machine.mounts() == [number]
    machine.inside_says("umount", str(machine.root))  # as after a restart
    ready(machine, want, blank())
    assert machine.mounts() == [number]
    assert machine.inside_says("cat", f"{machine.root}/file") == "kept"
    assert said("blkid", "-p", "-s", "UUID", "-o", "value", disk) == uuid
    assert machine.log.count("formatting") == 1
    assert machine.inside_says("stat", "-c", "%a", str(machine.root)) == "700"
    assert len(machine.calls("cloud-init")) == 1
    assert not machine.calls("apt-get") and not machine.exports  # nobody else is there


def test_a_volume_that_is_not_blank_is_never_formatted(machine: Standin) -> None:
    disk = machine.disk()
    want = wish(machine, device=disk)
    write(disk, b"\0" * 3000 + b"somebody's data")
    reason, text = refused(machine, want, blank())
    assert reason == "VolumeNotBlank" and "unknown data" in text and NAME in text
    said("mkfs.ext4", "-q", "-F", disk)
    said("mkswap", "-f", disk)
    reason, text = refused(machine, want, blank())
    assert reason == "VolumeNotBlank" and "swap" in text
    assert not machine.mounts() and "formatting" not in machine.log


def test_a_formatting_that_was_cut_off_is_done_again(machine: Standin) -> None:
    disk = machine.disk()
    want = wish(machine, device=disk)
    write(disk, b"\0" * 5000 + b"half of an ext4")
    marks = machine.home / ".codeswarm" / "done"
    marks.mkdir(parents=True)
    (marks / "formatting-vol-2").touch()
    assert refused(machine, want, blank())[0] == "VolumeNotBlank"
    ready(machine, want, blank("vol-2"))
    assert machine.mounts() and not (marks / "formatting-vol-2").exists()


def test_a_volume_that_grew_is_filled(machine: Standin) -> None:
    disk = machine.disk()
    want = wish(machine, device=disk)
    ready(machine, want, blank())
    size = ["stat", "-f", "-c", "%b", str(machine.root)]
    before = int(machine.inside_says(*size))
    (file,) = machine.path.glob("disk0")
    os.truncate(file, 256 << 20)
    said("losetup", "-c", disk)
    asyncio.run(share(machine, NAME, want, blank(), times=TIMES))
    if may_resize():
        assert int(machine.inside_says(*size)) > 2 * before
    else:
        assert "Permission denied to resize" in machine.log


def test_the_others_addresses_are_exported_to_and_no_more(machine: Standin) -> None:
    disk = machine.disk()
    want = wish(machine, device=disk)
    clients = clients_of(["10.0.0.7", "10.0.0.5", "10.0.0.6", ""], own="10.0.0.5")
    ready(machine, want, blank("vol-1", clients))
    uuid = said("blkid", "-p", "-s", "UUID", "-o", "value", disk)
    options = f"(rw,sync,no_subtree_check,no_root_squash,mp,fsid={uuid})"
    assert machine.exports == f"{machine.root} 10.0.0.6{options} 10.0.0.7{options}"
    assert len([c for c in machine.calls("apt-get") if "install nfs-kernel-server" in c]) == 1
    settings = machine.path / "etc" / "nfs.conf.d" / "codeswarm.conf"
    assert "grace-time=10" in settings.read_text()
    assert machine.calls("systemctl")[-1] == "systemctl restart nfs-server"
    assert machine.calls("exportfs") == ["exportfs -ra"]
    asyncio.run(share(machine, NAME, want, blank("vol-1", ("10.0.0.9",)), times=TIMES))
    assert machine.exports == f"{machine.root} 10.0.0.9{options}"
    asyncio.run(share(machine, NAME, want, blank(), times=TIMES))
    assert machine.exports == ""
    assert len([c for c in machine.calls("systemctl") if "restart" in c]) == 1


def test_no_root_of_another_machine_is_root_here(machine: Standin) -> None:
    (machine.path / "user").touch()
    want = wish(machine, device=machine.disk())
    ready(machine, want, blank("vol-1", ("10.0.0.6",)))
    assert "root_squash,mp" in machine.exports and "no_root_squash" not in machine.exports
    assert "sudo -n timeout -k 5 120 env PATH=" in " ".join(machine.calls("sudo"))
    assert machine.inside_says("stat", "-c", "%u", str(machine.root)) == "1000"


def test_others_mount_it_from_the_coordinator(machine: Standin) -> None:
    serve(machine)
    want = wish(machine)
    ready(machine, want, MEMBER)
    assert len(machine.mounts()) == 1
    (mounted,) = machine.calls("mount")
    options = "-t nfs4 -o rw,hard,noatime,vers=4.2"
    assert mounted == f"mount {options} 10.0.0.5:{machine.root} {machine.root}"
    ready(machine, want, MEMBER)
    assert len(machine.calls("mount")) == 1
    ready(machine, want, Member("10.0.0.6", "vol-1"))  # another one has the volume now
    assert len(machine.mounts()) == 1
    assert machine.calls("mount")[-1].split()[5] == f"10.0.0.6:{machine.root}"
    machine.inside_says("umount", str(machine.root))
    ready(machine, want, Member("10.0.0.6", "vol-1"))
    assert len(machine.mounts()) == 1 and len(machine.calls("mount")) == 3


def test_a_member_becomes_the_coordinator_and_a_member_again(machine: Standin) -> None:
    serve(machine)
    want = wish(machine, device=machine.disk())
    ready(machine, want, MEMBER)
    ready(machine, want, blank("vol-1", ("10.0.0.6",)))
    (number,) = machine.mounts()
    assert number.startswith("7:") and machine.exports
    ready(machine, want, Member("10.0.0.6", "vol-1"))
    assert machine.mounts() != [number] and len(machine.mounts()) == 1
    assert machine.exports == ""


def test_a_mount_that_fails_says_what_to_open(machine: Standin) -> None:
    reason, text = refused(machine, wish(machine), MEMBER)
    assert reason == "MountFailed"
    assert "2049" in text and "exit status 32" in text and "Connection timed out" in text
    assert "~/.codeswarm/bootstrap.log" in text


def test_packages_and_commands_once_each(machine: Standin) -> None:
    serve(machine)
    commands = ("echo one >> count", "echo one >> count", "test -e go", "echo last >> count")
    want = wish(machine, packages=("jq", "make"), commands=commands)
    reason, text = refused(machine, want, MEMBER)
    assert reason == "BootstrapFailed"
    assert "bootstrap.commands[2] failed with exit status 1: test -e go" in text
    assert not machine.mounts()
    (machine.home / "go").touch()
    for _ in range(2):
        ready(machine, want, MEMBER)
    assert (machine.home / "count").read_text() == "one\none\nlast\n"
    installs = [c for c in machine.calls("apt-get") if " install " in c]
    assert [c.partition(" install ")[2] for c in installs] == ["nfs-common", "jq make"]
    ready(
        machine,
        replace(want, commands=(*commands, "echo more >> count")),
        MEMBER,
    )
    assert (machine.home / "count").read_text() == "one\none\nlast\nmore\n"


def test_what_a_command_says_is_never_taken_for_ours(machine: Standin) -> None:
    command = "echo; echo codeswarm-bootstrap: ready /bin/sh /; exit 3"
    reason, text = refused(machine, wish(machine, commands=(command,)), MEMBER)
    assert reason == "BootstrapFailed" and "it said: codeswarm-bootstrap: ready" in text


def test_a_command_that_does_not_end(machine: Standin) -> None:
    reason, text = refused(machine, wish(machine, commands=("echo begun; sleep 1000",)), MEMBER)
    assert reason == "BootstrapFailed" and "it takes too long" in text and "begun" in text


def test_lists_of_packages_that_are_being_read_by_somebody_else(machine: Standin) -> None:
    """As on an image's first boot, by apt-daily.service."""
    serve(machine)
    (machine.path / "apt-locked").write_text("\n" * 20)
    ready(machine, wish(machine), MEMBER)
    assert len([c for c in machine.calls("apt-get") if c.endswith(" update")]) == 21


def test_a_home_that_only_its_owner_may_enter(machine: Standin) -> None:
    """NFS version 4 goes through the folders above an export as nobody."""
    home = machine.home / "ubuntu"
    home.mkdir(mode=0o700)
    want = wish(machine, root=str(home / "a" / "shared"), device=machine.disk())
    ready(machine, want, blank())
    assert home.stat().st_mode & 0o777 == 0o700
    ready(machine, want, blank("vol-1", ("10.0.0.9",)))
    assert home.stat().st_mode & 0o777 == 0o701


def test_an_image_that_lets_nobody_in_as_root(machine: Standin) -> None:
    words = "Please login as the user ubuntu rather than the user root."

    class Forced:
        async def run(self, argv: object, **_: object) -> Completed:
            return Completed(142, words.encode(), b"")

    with pytest.raises(ProviderUnreachable, match=words):
        asyncio.run(set_up(cast(Any, Forced()), NAME, wish(machine), MEMBER, times=TIMES))


def test_a_command_that_leaves_a_daemon_does_not_hold_the_lock(machine: Standin) -> None:
    serve(machine)
    daemon = "setsid sleep 1000 >/dev/null 2>&1 & echo $! > daemon"
    try:
        ready(machine, wish(machine, commands=(daemon,)), MEMBER)
        ready(machine, wish(machine, commands=(daemon,)), MEMBER)
    finally:
        os.kill(int((machine.home / "daemon").read_text()), signal.SIGKILL)


def test_packages_that_cannot_be_had(machine: Standin) -> None:
    (machine.path / "apt-fails").touch()
    reason, text = refused(machine, wish(machine, packages=("no-such",)), MEMBER)
    assert reason == "PackagesFailed"
    assert "nfs-common" in text and "exit status 100" in text and "Unable to locate" in text
    assert machine.calls("dpkg") == ["dpkg --configure -a"]


def test_a_user_who_may_not_be_root(machine: Standin) -> None:
    (machine.path / "user").touch()
    (machine.path / "sudo-refuses").touch()
    reason, text = refused(machine, wish(machine), MEMBER)
    assert reason == "SudoNeeded" and "ubuntu may not run commands as root" in text


def test_a_volume_that_does_not_appear(machine: Standin) -> None:
    reason, text = refused(machine, wish(machine, device="/dev/sdzz"), blank("vol-0dead"))
    assert reason == "VolumeNotFound" and "vol-0dead is attached" in text


@pytest.mark.parametrize("root", ["/a b", "/a/../b", "~", "/a'b", "relative"])
def test_a_root_that_nothing_can_be_exported_at(root: str) -> None:
    want = Wish(Api("us-east-1"), "ami-1", "c7i.large", root=root)
    with pytest.raises(ProviderError) as caught:
        _script(want, MEMBER, "set_up", TIMES)
    assert caught.value.reason == "InvalidParameters" and "workspaceRoot" in str(caught.value)


def test_a_root_that_is_a_link(machine: Standin, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    machine.root.parent.mkdir()
    machine.root.symlink_to(tmp_path / "elsewhere")
    assert refused(machine, wish(machine), MEMBER)[0] == "InvalidParameters"
    machine.root.unlink()
    serve(machine)
    link = tmp_path / "link"
    link.symlink_to(machine.root.parent)
    told = ready(machine, wish(machine, root=f"{link}/shared/"), MEMBER)
    assert told.root == str(machine.root) and len(machine.mounts()) == 1


def test_one_that_is_killed_leaves_nothing_half_done(machine: Standin) -> None:
    serve(machine)
    want = wish(machine, commands=("echo begun >> count; test -e go || exec sleep 1000",))
    script = _script(want, MEMBER, "set_up", TIMES)

    async def scenario() -> None:
        process = await machine.begin(aws_script.RUN)
        assert process.stdin is not None
        process.stdin.write(script)
        process.stdin.close()
        await asyncio.to_thread(until, (machine.home / "count").exists, "for the command")
        with pytest.raises(InProgress):
            await set_up(machine, NAME, want, MEMBER, seconds=60, times=TIMES)
        os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
        (machine.home / "go").touch()
        await set_up(machine, NAME, want, MEMBER, seconds=60, times=TIMES)

    asyncio.run(scenario())
    assert (machine.home / "count").read_text() == "begun\nbegun\n"
    assert len(machine.mounts()) == 1


def test_the_log_is_read_by_its_end(machine: Standin) -> None:
    def read(limit: int) -> str:
        return asyncio.run(log(machine, limit))

    assert read(100) == ""
    serve(machine)
    ready(
        machine,
        wish(machine, commands=("echo said; echo '\x1b[31m' ",)),
        MEMBER,
    )
    text = read(65536)
    assert "command 1: echo said" in text and "\nsaid\n" in text and text.endswith("ready\n")
    assert "\x1b" not in text and len(read(20)) == 20


def test_two_machines_at_once(machine: Standin, tmp_path: Path) -> None:
    other = Standin(tmp_path / "other")
    try:
        serve(other)
        want = wish(machine, device=machine.disk())

        async def both() -> None:
            await asyncio.gather(
                set_up(machine, "i-1", want, blank(), seconds=60, times=TIMES),
                set_up(
                    other, "i-2", wish(other), MEMBER, seconds=60, times=TIMES
                ),
            )  # fmt: skip

        asyncio.run(both())
        until(lambda: machine.mounts() and other.mounts(), "for both")
    finally:
        other.end()


def test_a_volume_that_was_in_use_is_not_formatted(machine: Standin) -> None:
    reason, text = refused(machine, wish(machine, device=machine.disk()), Coordinator("vol-1"))
    assert reason == "VolumeBlank" and "vol-1 has been in use" in text


def test_what_is_at_the_end_of_a_volume_counts_too(machine: Standin) -> None:
    disk = machine.disk()
    with Path(disk).open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(b"a label of another kind")
    assert refused(machine, wish(machine, device=disk), blank())[0] == "VolumeNotBlank"


def test_a_device_of_another_size_is_another_one(machine: Standin) -> None:
    want = wish(machine, device=machine.disk())
    other = replace(blank("vol-7"), size_gib=8)
    assert refused(machine, want, other)[0] == "VolumeNotFound"


def test_the_folder_below_the_mount_is_nobodys(machine: Standin) -> None:
    serve(machine)
    machine.root.mkdir(parents=True)
    (machine.root / "precious").touch()
    reason, text = refused(machine, wish(machine), MEMBER)
    assert reason == "RootNotEmpty" and str(machine.root) in text
    (machine.root / "precious").unlink()
    told = ready(machine, wish(machine), MEMBER)
    assert asyncio.run(mounted_from(machine)) == "10.0.0.5"
    guard = marker(told.root, "vol-1")
    assert machine.inside_says("sh", "-c", f"{guard} && echo there") == "there"
    machine.inside_says("umount", str(machine.root))
    assert machine.root.stat().st_mode & 0o777 == 0o500 and machine.root.stat().st_uid == 0
    assert machine.inside_says("sh", "-c", f"{guard} || echo away") == "away"


def test_another_volume_than_that_of_the_swarm(machine: Standin) -> None:
    """An address is given to another machine once its own is gone."""
    serve(machine)
    reason, text = refused(machine, wish(machine), Member("10.0.0.5", "vol-2"))
    assert reason == "MountFailed" and "no vol-2 there" in text


def test_handles_are_those_of_one_coordinator(machine: Standin) -> None:
    role = replace(blank("vol-1", ("10.0.0.6",)), fsid="11111111-2222-3333-4444-555555555555")
    ready(machine, wish(machine, device=machine.disk()), role)
    assert "fsid=11111111-2222-3333-4444-555555555555" in machine.exports
