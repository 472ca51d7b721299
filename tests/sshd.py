"""A real sshd on loopback, for tests: OpenSSH's server with keys, a port and a home of its own.

``Sshd(path)`` starts one; everything it needs lies below ``path``.  Who logs in is the user who
runs the tests, with a home folder that is empty and belongs to the test alone.  Faults are caused
for real: the host goes away and comes back, sessions are cut, the host key changes, a key is
refused.  A second ``Sshd`` is a jump host.
"""

from __future__ import annotations

import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import pytest

from tests.processes import having
from tests.sshd_options import COMMON

HOST = "127.0.0.1"
_PORTS = range(20000, 32000)
"""Below the range from which systems give ports to whoever asks for any."""
_READY = 15.0
_MARK = "CODESWARM_TEST_SSHD"
"""A variable of all that runs in sessions, by which it is found."""


def missing_sshd() -> str:
    """Why no sshd can be started here; empty if one can."""
    return "" if _program() else "sshd is not installed (Debian: openssh-server)"


def require_sshd() -> None:
    """Skip the test where no sshd is installed; in CI that fails it."""
    why = missing_sshd()
    if why and os.environ.get("CI"):
        pytest.fail(f"{why}: CI must have it")
    if why:
        pytest.skip(why)


def _program() -> str | None:
    """sshd wants to be started by its absolute path."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as attempt:
            try:
                attempt.bind((HOST, port))
            except OSError:
                continue
            return port


class Sshd:
    """One sshd that listens on loopback.

    Args:
        path: folder for all its files; made if it is not there.
        environment: variables that sessions get beside the usual ones (``SLURM_CONF``).
        max_sessions: channels that one connection may have open.
        home: home folder of who logs in; None: an empty one below ``path``.
        options: further lines of sshd_config.

    A client key that may log in is made with it: ``key``, and ``known_hosts`` holds its host key.
    """

    def __init__(
        self,
        path: Path,
        *,
        environment: Mapping[str, str] | None = None,
        max_sessions: int = 10,
        home: Path | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        require_sshd()
        self.path = path
        self.path.mkdir(parents=True, exist_ok=True)
        self.home = home or path / "home"
        self.home.mkdir(exist_ok=True)
        self.user = getpass.getuser()
        self.environment = {
            "HOME": str(self.home),
            _MARK: str(path),
            **(environment or {}),
        }
        self.log = path / "sshd.log"
        self.known_hosts = path / "known_hosts"
        self.authorized = path / "authorized_keys"
        self.host_key = path / "host_key"
        self.key = self.make_key("client")
        self.port = 0
        self._max_sessions = max_sessions
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.authorize()
        self._make_host_key()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- how to get in ---------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """The host as known_hosts files name it."""
        return f"[{HOST}]:{self.port}"

    def parameters(self, **more: Any) -> dict[str, Any]:
        """The part of a provider block that says how to log in here."""
        return {
            "loginHost": HOST,
            "port": self.port,
            "user": self.user,
            "identityFile": str(self.key),
            "knownHostsFile": str(self.known_hosts),
            **more,
        }

    def make_key(self, name: str, *, passphrase: str = "", kind: str = "ed25519") -> Path:
        """A new private key below ``path``; its public part lies beside it (``.pub``)."""
        key = self.path / name
        for old in (key, _public(key)):
            old.unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", name, "-f", str(key)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=30)
        return key

    def authorize(self, *keys: Path) -> None:
        """Let these private keys log in beside those that may already; without any, ``key``."""
        with self.authorized.open("a") as file:
            for key in keys or (self.key,):
                file.write(_public(key).read_text())

    def deauthorize(self) -> None:
        """Let nobody log in any more."""
        self.authorized.write_text("")

    # --- the server ------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen, on the port of before if there was one; returns when it does."""
        if self._process is not None:
            return
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # privilege separation
        program = _program()
        assert program is not None
        deadline = time.monotonic() + _READY
        while self._process is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"sshd does not start:\n{self._words()}")
            moving = not self.port
            port = self.port or free_port()
            self._write_config(port)
            command = [program, "-D", "-e", "-f", str(self.path / "sshd_config")]
            begin = len(self._words())
            with self.log.open("ab") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            while process.poll() is None and f"port {port}.\n" not in self._words()[begin:]:
                if time.monotonic() > deadline:
                    process.kill()
                    process.wait()
                time.sleep(0.01)
            if process.poll() is not None:
                continue  # somebody else took the port: another, or the same a little later
            self._process, self.port = process, port
            if moving:
                self.remember()

    def stop(self, *, sessions: bool = True) -> None:
        """Go away: nobody listens any more, and sessions are cut (unless told not to be)."""
        if self._process is None:
            return
        if self._process.poll() is not None:  # somebody else has ended it
            self._process = None
            return
        if sessions:
            self._process.send_signal(signal.SIGSTOP)  # nobody comes in meanwhile
            self.cut()
        self._process.kill()
        self._process.wait(10)
        self._process = None

    def close(self) -> None:
        """End it, and everything that was started through it and still runs.

        What a batch system runs is that one's.
        """
        self.stop()
        for process in having(_MARK, str(self.path)):
            try:
                variables = process.environ()
            except (psutil.Error, OSError):
                continue
            if variables.get(_MARK) == str(self.path) and "SLURM_JOB_ID" not in variables:
                _send(process, signal.SIGKILL)

    def cut(self) -> None:
        """Kill every session: clients see their connections end without a word.

        What runs in them lives on and sees the end of its input, as when a network is cut.
        """
        servers = self._servers()
        for process in servers:
            _send(process, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while any(_alive(process) for process in servers):
            assert time.monotonic() < deadline, "a session does not end"
            time.sleep(0.005)

    def freeze(self) -> None:
        """Let sshd stand still: connections stay and can be made, but nobody answers."""
        for process in [*self._servers(), self._listener()]:
            _send(process, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let what ``freeze`` stopped go on."""
        for process in [*self._servers(), self._listener()]:
            _send(process, signal.SIGCONT)

    def _listener(self) -> psutil.Process:
        assert self._process is not None, "it is not running"
        return psutil.Process(self._process.pid)

    def _servers(self) -> list[psutil.Process]:
        """The processes of sshd that serve sessions, without what runs in these."""
        found = []
        for process in self._listener().children(recursive=True):
            try:
                if process.name().startswith("sshd"):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def rekey(self, kind: str = "ed25519") -> None:
        """Take another host key, as a host that was installed anew; ``known_hosts`` stays."""
        running = self._process is not None
        self.stop()
        self._make_host_key(kind)
        if running:
            self.start()

    def sessions(self) -> int:
        """How many connections there are now."""
        return len(self._listener().children()) if self._process is not None else 0

    def connections(self) -> int:
        """How many connections were made since the beginning, whatever became of them."""
        return self._words().count("Connection from ")

    def logins(self) -> int:
        """How many connections have logged in since the beginning."""
        return self._words().count("Accepted publickey")

    # --- inside ----------------------------------------------------------------------------------

    def _make_host_key(self, kind: str = "ed25519") -> None:
        self.make_key(self.host_key.name, kind=kind)

    def remember(self) -> None:
        """Put the present host key into ``known_hosts``, as a person who has checked it."""
        kind, text, *_ = _public(self.host_key).read_text().split()
        self.known_hosts.write_text(f"{self.address} {kind} {text}\n")

    def _words(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _write_config(self, port: int) -> None:
        variables = " ".join(f'"{name}={value}"' for name, value in self.environment.items())
        lines = [
            f"Port {port}",
            f"ListenAddress {HOST}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.authorized}",
            f"MaxSessions {self._max_sessions}",
            f"SetEnv {variables}",
            *COMMON,
            *self._options,
        ]
        (self.path / "sshd_config").write_text("\n".join(lines) + "\n")


def _public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        pass


@pytest.fixture(scope="module")
def login_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One sshd for the tests of a file."""
    with Sshd(tmp_path_factory.mktemp("login")) as sshd:
        yield sshd
