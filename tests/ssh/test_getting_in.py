"""Getting in: keys of hosts, keys of ours, and hosts that are not as they should be.

Each failure has a reason of its own and says what to do.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from providers.base import ProviderUnreachable
from providers.ssh import SshHost
from providers.ssh_target import Means, SshTarget
from tests.ssh.hosts import failure, target_of, using
from tests.sshd import HOST, Sshd, free_port


async def who(host: SshHost) -> str:
    return (await host.run(["whoami"], seconds=20)).out.decode().strip()


def reason(target: SshTarget, **settings: object) -> tuple[str, str]:
    error = failure(target, **settings)
    assert isinstance(error, ProviderUnreachable)
    assert "PRIVATE KEY" not in str(error)
    return error.reason, str(error)


# --- the host ------------------------------------------------------------------------------------


def test_a_host_that_does_not_exist(login_host: Sshd) -> None:
    told, text = reason(target_of(login_host, loginHost="no-such-host.invalid"))
    assert told == "HostNotFound" and "no-such-host.invalid" in text


def test_a_port_where_nobody_listens(login_host: Sshd) -> None:
    port = free_port()
    told, text = reason(target_of(login_host, port=port))
    assert told == "ConnectionRefused" and f"{HOST}:{port}" in text


def test_a_host_that_takes_connections_and_says_nothing(login_host: Sshd) -> None:
    with socket.create_server((HOST, 0)) as silent:
        target = target_of(login_host, port=silent.getsockname()[1])
        assert reason(target, connect_seconds=0.3)[0] == "ConnectTimedOut"
        assert reason(target, seconds=0.5)[0] == "ConnectTimedOut"


def test_something_that_is_no_ssh_server(login_host: Sshd) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        speaker = subprocess.Popen(
            [
                "python3",
                "-c",
                "import socket,sys; s=socket.socket(fileno=int(sys.argv[1]))\n"
                "while 1: s.accept()[0].sendall(b'220 mail\\r\\n' * 2000)",
                str(other.fileno()),
            ],
            pass_fds=[other.fileno()],
        )
        try:
            assert reason(target_of(login_host, port=port))[0] == "ConnectionLost"
        finally:
            speaker.kill()
            speaker.wait()


def test_an_unknown_host_key(login_host: Sshd, tmp_path: Path) -> None:
    empty = tmp_path / "known_hosts"
    told, text = reason(target_of(login_host, knownHostsFile=str(empty)))
    assert told == "HostKeyUnknown"
    assert re.search(r"ssh-ed25519 SHA256:\S{43}", text)
    assert f"`ssh-keyscan -t ed25519 -p {login_host.port} {HOST} >> {empty}`" in text


def test_what_the_message_says_puts_an_unknown_host_right(login_host: Sshd, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    target = target_of(login_host, knownHostsFile=str(file))
    command = re.search(r"`(ssh-keyscan .*?)`", reason(target)[1])
    assert command is not None
    subprocess.run(command[1], shell=True, check=True, stderr=subprocess.DEVNULL)
    assert using(target, who) == login_host.user


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_host_key_that_changed(tmp_path: Path, kind: str) -> None:
    with Sshd(tmp_path / "a") as sshd:
        target = target_of(sshd)
        before = _fingerprint(sshd.host_key)
        sshd.rekey(kind)
        told, text = reason(target)
        assert told == "HostKeyChanged"
        assert before in text and _fingerprint(sshd.host_key) in text
        forget = re.search(r"`(ssh-keygen -R .*?)`", text)
        scan = re.search(r"`(ssh-keyscan .*?)`", text)
        assert forget is not None and scan is not None
        for command in (forget[1], scan[1]):
            subprocess.run(command, shell=True, check=True, capture_output=True)
        assert using(target, who) == sshd.user


def _fingerprint(key: Path) -> str:
    command = ["ssh-keygen", "-l", "-f", f"{key}.pub"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[1]


def test_a_revoked_host_key(login_host: Sshd, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    line = login_host.known_hosts.read_text()
    file.write_text(f"{line}@revoked {line}")
    told, text = reason(target_of(login_host, knownHostsFile=str(file)))
    assert told == "HostKeyChanged" and "revoked" in text


def test_known_hosts_as_a_text(login_host: Sshd) -> None:
    text = login_host.known_hosts.read_text()
    assert using(target_of(login_host, knownHostsFile=None, knownHosts=text), who)
    told, words = reason(target_of(login_host, knownHosts=""))
    assert told == "HostKeyUnknown" and "knownHosts" in words
    told, words = reason(target_of(login_host, knownHosts=f"{text}\nsecret\n"))
    assert told == "SshConfigInvalid" and "line 3" in words and "secret" not in words


def test_a_known_hosts_file_with_hashed_names_and_a_damaged_line(
    login_host: Sshd, tmp_path: Path
) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(login_host.known_hosts.read_text())
    subprocess.run(["ssh-keygen", "-H", "-f", str(file)], check=True, capture_output=True)
    assert HOST not in file.read_text()
    file.write_text(f"|1|damaged\n@nonsense a b\n{file.read_text()}")
    assert using(target_of(login_host, knownHostsFile=str(file)), who)


# --- our keys ------------------------------------------------------------------------------------


def test_a_key_that_is_refused(login_host: Sshd) -> None:
    key = login_host.make_key("stranger")
    told, text = reason(target_of(login_host, identityFile=str(key)))
    assert told == "AuthenticationFailed"
    assert str(key) in text and "authorized_keys" in text


def test_a_refused_key_is_not_tried_again_at_once_and_works_once_it_may(tmp_path: Path) -> None:
    with Sshd(tmp_path / "a") as sshd:
        sshd.deauthorize()

        async def main(host: SshHost) -> None:
            for _ in range(5):
                with pytest.raises(ProviderUnreachable, match="none of our keys"):
                    await host.run(["true"], seconds=20)
            assert sshd.connections() == 1, (
                "a host that bans whoever fails often would have banned us"
            )
            sshd.authorize()
            host._line.not_before = 0.0  # the pause is over
            assert await who(host) == sshd.user

        using(target_of(sshd), main, lasting_seconds=60.0)


def test_a_key_file_that_is_not_there(login_host: Sshd, tmp_path: Path) -> None:
    told, text = reason(target_of(login_host, identityFile=str(tmp_path / "none")))
    assert told == "KeyUnusable" and "no such file" in text


def test_a_key_file_that_holds_no_key(login_host: Sshd, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret-token\n")
    told, text = reason(target_of(login_host, identityFile=str(file)))
    assert told == "KeyUnusable" and "s3cret" not in text


def test_a_key_as_a_text(login_host: Sshd) -> None:
    key = login_host.key.read_text()
    target = target_of(login_host, identityFile=None, sshKey=key)
    assert "PRIVATE" not in repr(target) and using(target, who) == login_host.user
    told, text = reason(target_of(login_host, sshKey="s3cret"))
    assert told == "KeyUnusable" and "s3cret" not in text and "sshKeyFrom" in text


def test_a_protected_key_needs_an_agent(login_host: Sshd, agent: Path) -> None:
    key = login_host.make_key("protected", passphrase="abcdef")
    login_host.authorize(key)
    target = target_of(login_host, identityFile=str(key))
    told, text = reason(target)
    assert told == "KeyUnusable" and f"ssh-add {key}" in text
    told, text = reason(target_of(login_host, sshKey=key.read_text()))
    assert told == "KeyUnusable" and "without a passphrase" in text

    means = Means(agent=str(agent), files=True)
    told, text = reason(target, means=means)
    assert told == "KeyUnusable" and f"ssh-add {key}" in text
    _add(agent, login_host.key)
    assert reason(target, means=means)[0] == "KeyUnusable", "another key of the agent's was used"
    _add(agent, key, passphrase="abcdef")
    assert using(target, who, means=means) == login_host.user


def test_keys_of_the_agent_alone(login_host: Sshd, agent: Path) -> None:
    _add(agent, login_host.key)
    target = target_of(login_host, identityFile=None)
    assert using(target, who, means=Means(agent=str(agent), files=True)) == login_host.user
    told, text = reason(target, means=Means(agent=f"{agent}.gone", files=True))
    assert told == "AuthenticationFailed" and "agent" in text


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real ssh-agent without keys; and a home without any."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "agent"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield path
    process.kill()
    process.wait()


def _add(agent: Path, key: Path, *, passphrase: str = "") -> None:
    ask = agent.with_name("ask")
    ask.write_text(f"#!/bin/sh\necho '{passphrase}'\n")
    ask.chmod(0o700)
    subprocess.run(
        ["ssh-add", "-q", str(key)],
        env={
            **os.environ,
            "SSH_AUTH_SOCK": str(agent),
            "SSH_ASKPASS": str(ask),
            "SSH_ASKPASS_REQUIRE": "force",
        },
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )


# --- the user's configuration --------------------------------------------------------------------


def _configured(path: Path, text: str) -> Means:
    file = path / "config"
    file.write_text(text)
    return Means(config=file, files=True)


def test_an_alias_with_all_that_belongs_to_it(login_host: Sshd, tmp_path: Path) -> None:
    means = _configured(
        tmp_path,
        f"""
        Host lab
          HostName {HOST}
          Port {login_host.port}
          User {login_host.user}
          IdentityFile {tmp_path}/not-there
          IdentityFile {login_host.key}
          UserKnownHostsFile {login_host.known_hosts}
          ForwardAgent yes
          RequestTTY force
          RemoteCommand false
          SomethingOfTomorrow yes
        """,
    )
    assert using(SshTarget("lab"), who, means=means) == login_host.user
    elsewhere = replace(SshTarget("lab"), port=free_port())
    assert reason(elsewhere, means=means)[0] == "ConnectionRefused", (
        "the manifest goes before the configuration"
    )


def test_host_keys_are_verified_whatever_the_configuration_says(
    login_host: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for setting in ("UserKnownHostsFile none", "UserKnownHostsFile /dev/null"):
        means = _configured(tmp_path, f"Host *\n StrictHostKeyChecking no\n {setting}\n")
        target = target_of(login_host, knownHostsFile=None)
        assert reason(target, means=means)[0] == "HostKeyUnknown"


def test_a_configuration_that_cannot_be_read(login_host: Sshd, tmp_path: Path) -> None:
    for text, place in (
        ("Host *\n Port many\n", "line 2"),
        ("Host *\n HostName 'open\n", "line 2"),
        ("Host *\n ServerAliveCountMax 3 4\n", "line 2"),
        ("Host *\n IdentityFile %q\n", "q"),
    ):
        means = _configured(tmp_path, text)
        told, words = reason(SshTarget(HOST), means=means)
        assert told == "SshConfigInvalid" and place in words and str(means.config) in words


def test_nothing_of_this_machine_counts_where_users_are_others(login_host: Sshd) -> None:
    """In Kubernetes whoever may make a Swarm would log in with the controller's own keys."""
    means = Means.none()
    for name in ("identityFile", "knownHostsFile"):
        given = {"identityFile": None, "knownHostsFile": None, name: "/etc/passwd"}
        told, text = reason(target_of(login_host, **given), means=means)
        assert told == "NotInThisHome" and name in text
    bare = target_of(login_host, identityFile=None, knownHostsFile=None)
    assert reason(bare, means=means)[0] == "HostKeyUnknown"
    known = replace(bare, known_hosts=login_host.known_hosts.read_text())
    told, text = reason(known, means=means)
    assert told == "AuthenticationFailed" and "there are none" in text
    assert reason(replace(known, user=None), means=means)[0] == "SshConfigInvalid"
    assert using(replace(known, key=login_host.key.read_text()), who, means=means)


def test_a_user_without_name_and_home(login_host: Sshd) -> None:
    """As in a container that runs as a number of its own."""
    script = f"""
import asyncio, os, sys
sys.path.insert(0, {str(Path.cwd())!r})
from providers.ssh import SshHost
from providers.ssh_target import Means, SshTarget
import providers.ssh_connect
for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
os.getuid = lambda: 54321
target = SshTarget({HOST!r}, {login_host.port}, {login_host.user!r},
    key={login_host.key.read_text()!r}, known_hosts={login_host.known_hosts.read_text()!r})
async def main():
    host = SshHost(target, Means.none())
    print((await host.run(["echo", "in"], seconds=20)).out.decode())
    await host.close()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "in", done.stderr


# --- jump hosts ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jump(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("jump")) as sshd:
        yield sshd


def test_over_a_jump_host(login_host: Sshd, jump: Sshd, tmp_path: Path) -> None:
    jump.authorize(login_host.key)
    both = tmp_path / "known_hosts"
    both.write_text(login_host.known_hosts.read_text() + jump.known_hosts.read_text())
    place = f"{jump.user}@{HOST}:{jump.port}"
    target = target_of(login_host, knownHostsFile=str(both), jumpHost=place)
    before = jump.logins()
    assert using(target, who) == login_host.user
    assert jump.logins() == before + 1
    twice = replace(target, jump_host=f"{place},{place}")
    assert using(twice, who) == login_host.user
    assert jump.logins() == before + 3

    told, text = reason(replace(target, port=free_port()))
    assert told == "ConnectionRefused" and "over" in text
    assert reason(replace(target, host="no-such-host.invalid"))[0] in (
        "HostNotFound",
        "ConnectionRefused",
    )
    told, text = reason(replace(target, jump_host="a:b"))
    assert told == "SshConfigInvalid" and "no port" in text


def test_a_jump_host_is_verified_as_well(login_host: Sshd, jump: Sshd) -> None:
    target = target_of(login_host, jumpHost=f"{jump.user}@{HOST}:{jump.port}")
    told, text = reason(target)
    assert told == "HostKeyUnknown" and f"[{HOST}]:{jump.port}" in text


def test_keys_of_one_machine_say_nothing_of_its_jump_host(login_host: Sshd, jump: Sshd) -> None:
    jump.authorize(login_host.key)
    place = f"{jump.user}@{HOST}:{jump.port}"
    ours = login_host.known_hosts.read_text()
    theirs = jump.known_hosts.read_text()
    target = target_of(login_host, knownHostsFile=None, knownHosts=theirs, jumpHost=place)
    assert reason(target)[0] == "HostKeyUnknown"
    assert using(replace(target, host_keys=ours), who) == login_host.user

    anybody = "".join(f"* {lines.split(None, 1)[1]}" for lines in (ours, theirs))
    told, text = reason(replace(target, known_hosts="", host_keys=anybody))
    assert told == "HostKeyUnknown" and f"[{HOST}]:{jump.port}" in text
    told, text = reason(replace(target, host_keys="nonsense"))
    assert told == "SshConfigInvalid" and "host_keys, line 1" in text


def test_keys_of_one_machine_leave_old_ones_of_its_address_out(
    login_host: Sshd, jump: Sshd, tmp_path: Path
) -> None:
    other = jump.known_hosts.read_text().split()[1:]
    here = f"[{HOST}]:{login_host.port}"
    known = tmp_path / "known_hosts"
    known.write_text(login_host.known_hosts.read_text())
    means = _configured(tmp_path, f"Host *\n UserKnownHostsFile {known}\n")
    target = target_of(login_host, knownHostsFile=None)
    assert using(target, who, means=means) == login_host.user
    told, _ = reason(replace(target, host_keys=f"{here} {' '.join(other)}"), means=means)
    assert told == "HostKeyChanged"


def test_a_jump_host_of_the_configuration(login_host: Sshd, jump: Sshd, tmp_path: Path) -> None:
    jump.authorize(login_host.key)
    means = _configured(
        tmp_path,
        f"""
        Host bastion
          HostName {HOST}
          Port {jump.port}
          UserKnownHostsFile {jump.known_hosts}
        Host inner
          HostName {HOST}
          Port {login_host.port}
          UserKnownHostsFile {login_host.known_hosts}
        Host *
          ProxyJump bastion
          User {login_host.user}
          IdentityFile {login_host.key}
        """,
    )
    before = jump.logins()
    assert using(SshTarget("inner"), who, means=means) == login_host.user
    assert jump.logins() == before + 1
    circle = _configured(tmp_path, "Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
    told, text = reason(SshTarget("a"), means=circle)
    assert told == "SshConfigInvalid" and "circles" in text
