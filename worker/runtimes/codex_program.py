"""Where the Codex CLI is, and which of its processes are its own."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.children import Spared, children_of
from worker.config import Config
from worker.errors import RuntimeUnusable

MINIMUM = (0, 160, 0)
"""The oldest version that the tests were run with; 0.150 loses conversations when it is killed."""
INSTALL = "npm install --global @openai/codex"
PROGRAM = "codex"

_VERSION = re.compile(r"\b(\d+)\.(\d+)\.(\d+)")
_VERSION_SECONDS = 20.0
_SYSTEM = frozenset({"bin", "sbin", "lib", "libexec", ".local"})


@dataclass(frozen=True)
class Program:
    """An installed CLI."""

    path: Path
    """What people call: maybe a script."""
    binary: Path
    """What is run: the native program behind it, where it can be found."""

    def spared(self, pid: int) -> Spared:
        """The running agent: its process, and its helpers by where their programs lie."""
        return Spared(pid, own_folder(_running(pid) or self.binary))

    def version(self, env: Mapping[str, str]) -> str:
        """What ``codex --version`` says; empty if it does not run."""
        try:
            done = subprocess.run(
                [self.binary, "--version"],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_VERSION_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return version_text(done.stdout.decode("utf-8", "replace"))


def find_program(config: Config, env: Mapping[str, str]) -> Program:
    """The CLI that a worker is to run.

    Raises: RuntimeUnusable (AgentNotInstalled).
    """
    named = config.agent.codex.get("path")
    return locate(str(named) if named else "", env)


def locate(named: str, env: Mapping[str, str]) -> Program:
    """The CLI of this name or path; empty: ``codex`` on the path.

    Raises: RuntimeUnusable (AgentNotInstalled).
    """
    asked = str(Path(named).expanduser()) if named else PROGRAM
    found = shutil.which(asked, path=env.get("PATH"))
    if found is None and named:
        raise RuntimeUnusable(
            "AgentNotInstalled", f"agent.codex.path: {named} is no program that can be run here"
        )
    if found is None:
        raise RuntimeUnusable(
            "AgentNotInstalled",
            f"the Codex CLI is not installed: there is no {PROGRAM} on the worker's PATH; install "
            f"it ({INSTALL}), or name it in agent.codex.path",
        )
    path = Path(found)
    return Program(path, native(path))


def native(path: Path) -> Path:
    """The program behind npm's starter script, which would be one more process; else the same."""
    real = path.resolve()
    if real.suffix != ".js":
        return real
    package = real.parent.parent
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}.get(platform.machine().lower())
    part = f"codex-{platform.system().lower()}-{machine or platform.machine()}"
    for folder in (
        package.parent / part,
        package / "node_modules" / "@openai" / part,
        package,
    ):
        for found in sorted(folder.glob("vendor/*/bin/codex")):
            if os.access(found, os.X_OK):
                return found
    return path


def own_folder(binary: Path) -> Path:
    """What of the file system is Codex's alone: its folder, or else only the program itself."""
    folder = binary.parent
    if folder.name == "bin" and "vendor" in folder.parts:
        return folder.parent
    return binary if folder.name in _SYSTEM or folder == Path("/") else folder


def version_text(text: str) -> str:
    """The first version in a text, e.g. ``0.169.0``; empty if there is none."""
    found = _VERSION.search(text)
    return found.group() if found else ""


def check_version(text: str) -> None:
    """Raises: RuntimeUnusable (AgentTooOld); a text without a version passes."""
    found = _VERSION.search(text)
    if found is None:
        return
    version = tuple(map(int, found.groups()))
    if version < MINIMUM:
        wanted = ".".join(map(str, MINIMUM))
        raise RuntimeUnusable(
            "AgentTooOld",
            f"Codex {found.group()} is too old: {wanted} or newer is needed ({INSTALL}@latest)",
        )


def _running(pid: int) -> Path | None:
    """The native program that a process is, or that a starter script has begun."""
    for process in (pid, *children_of(pid)):
        try:
            program = Path(f"/proc/{process}/exe").readlink()
        except OSError:
            continue
        if program.name.startswith(PROGRAM):
            return program
    return None
