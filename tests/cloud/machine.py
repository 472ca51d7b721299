"""One machine: its first process, and what the host sees of it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

_INIT = Path(__file__).with_name("guest") / "init.sh"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Machine:
    """One machine.

    Args:
        box: folder of all that it has written; it outlives a reboot.
        console: file for what its first process and sshd say.
        instance: EC2's (moto's).
        boot: seconds until sshd listens.
    """

    def __init__(self, box: Path, console: Path, instance: Any, boot: float) -> None:
        self.id: str = instance.id
        self.box = box
        self.console = console
        self.private: str = instance.private_ip or ""
        self.public: str = instance.public_ip or ""
        self.pid = 0
        """Of its first process, as the host counts; 0: not yet."""
        self.ready = threading.Event()
        self.ended = False
        self.frozen = False
        self._boot = boot
        self._process: subprocess.Popen[str] | None = None
        self._guard = threading.Lock()

    def start(self) -> None:
        """Boot; returns when its root is there, before its sshd listens."""
        host = f"ip-{self.private.replace('.', '-')}"
        command = [
            "setpriv", "--pdeathsig", "KILL",
            "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child=KILL",
            "sh", str(_INIT), str(self.box), host, str(self._boot),
        ]  # fmt: skip
        with self.console.open("ab") as console, self._guard:
            if self.ended:
                return
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=console,
                env={"PATH": _PATH, "LANG": "C.UTF-8"}, text=True, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("pid "):
                self.pid = int(line.split()[1])
            if line.strip() == "ready":
                self.ready.set()
                return

    def kill(self) -> None:
        """Kill everything of it."""
        with self._guard:
            self.ended = True
            if self._process is not None:
                self._process.kill()  # and with it, by its death signal, the first process

    def fall(self) -> None:
        """Let it end as if by itself."""
        assert self._process is not None
        self._process.kill()

    @property
    def alive(self) -> bool:
        """Whether anything of it is there, or about to be."""
        if self._process is None:
            return not self.ended
        return self._process.poll() is None

    @property
    def fell(self) -> bool:
        """Whether it ended though nobody had asked for that."""
        return self._process is not None and not self.alive and not self.ended

    def close(self) -> None:
        """Wait for its end."""
        if self._process is not None:
            self._process.wait(20)
            assert self._process.stdout is not None
            self._process.stdout.close()

    # --- inside ----------------------------------------------------------------------------------

    def inside(self, path: str) -> Path:
        """A path of its root, as the host reaches it."""
        return Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def processes(self) -> list[int]:
        """All of its processes, as the host counts, the first one too."""
        found = []
        try:
            own = Path(f"/proc/{self.pid}/ns/pid").readlink()
        except OSError:
            return []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and (entry / "ns/pid").readlink() == own:
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def mounts(self) -> list[tuple[int, str]]:
        """Devices and folders of what is mounted there."""
        found = []
        try:
            text = Path(f"/proc/{self.pid}/mountinfo").read_text()
        except OSError:
            return []
        for line in text.splitlines():
            words = line.split()
            major, _, minor = words[2].partition(":")
            found.append((os.makedev(int(major), int(minor)), words[4]))
        return found

    def users(self, device: int) -> list[int]:
        """Processes that have files or their working directory on a device."""
        found = []
        for pid in self.processes():
            folder = Path(f"/proc/{pid}")
            try:
                places = [folder / "cwd", *(folder / "fd").iterdir()]
            except OSError:
                continue
            for place in places:
                try:
                    if place.stat().st_dev == device:
                        found.append(pid)
                        break
                except OSError:
                    continue
        return found

    def sshd(self) -> tuple[list[int], list[int]]:
        """Processes of sshd: those that listen, and those that serve connections."""
        listening, serving = [], []
        for pid in self.processes():
            try:
                text = Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                continue
            name = text[text.index("(") + 1 : text.rindex(")")]
            parent = int(text[text.rindex(")") + 2 :].split()[1])
            if name.startswith("sshd"):
                (listening if parent == self.pid else serving).append(pid)
        return listening, serving

    def freeze(self) -> None:
        """Let it stand still."""
        self.frozen = True
        send(self.processes(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.frozen = False
        send(self.processes(), signal.SIGCONT)


def send(pids: list[int], number: signal.Signals) -> None:
    """A signal to processes, some of which may be gone."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
