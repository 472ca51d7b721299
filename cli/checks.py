"""What ``doctor`` looks at. Each check looks only, and answers in one line."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controller.http.endpoint import EndpointFile
from controller.runtime.home import Home
from controller.runtime.lock import ControllerLock, is_held
from controller.store.base import StoreError
from controller.store.database import Database

MIN_PYTHON = (3, 11)
MIN_GIT = (2, 25)
HTTP_SECONDS = 5.0
FEW_BYTES, TOO_FEW_BYTES = 2 * 1024**3, 200 * 1024**2


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    level: str
    """OK, WARN or FAIL."""
    name: str
    text: str
    advice: str = ""
    """What to do."""


def run(home: Home) -> Iterator[Check]:
    """All checks, in order; what needs the state is left out when it cannot be opened."""
    yield python()
    yield git()
    yield ssh()
    yield folder(home)
    yield disk(home)
    yield controller(home)
    if ControllerLock(home).holder() is not None:
        yield http(home)
    state, database = open_state(home)
    yield state
    if database is not None:
        with database:
            yield workers(home, database)
            yield from agents(home, database)


def python() -> Check:
    """Python's version."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= MIN_PYTHON:
        return Check("OK", "python", version)
    return Check("FAIL", "python", version, f"needs {'.'.join(map(str, MIN_PYTHON))} or newer")


def git() -> Check:
    """Git's version."""
    path = shutil.which("git")
    if path is None:
        return Check("FAIL", "git", "not found", "install git")
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Check("FAIL", "git", f"does not run: {error}", "install git anew")
    return git_version(done.stdout)


def git_version(text: str) -> Check:
    """The check of what ``git --version`` prints, ``git version 2.39.2``."""
    words = text.split()
    version = words[2] if len(words) > 2 else text.strip()
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers >= MIN_GIT:
        return Check("OK", "git", version)
    return Check("FAIL", "git", version, f"needs {'.'.join(map(str, MIN_GIT))} or newer")


def ssh() -> Check:
    """Whether there is an SSH client."""
    if shutil.which("ssh"):
        return Check("OK", "ssh", "found")
    return Check("WARN", "ssh", "not found", "only needed for ssh repositories, Slurm and AWS")


def folder(home: Home) -> Check:
    """The home: there, ours, private, writable."""
    name = "home"
    try:
        home.ensure()
    except StoreError as error:
        return Check("FAIL", name, str(error))
    if not os.access(home.root, os.R_OK | os.W_OK | os.X_OK):
        return Check("FAIL", name, f"{home.root} is not writable", "set CODESWARM_HOME")
    mode = stat.S_IMODE(home.root.stat().st_mode)
    if mode & 0o077:
        return Check("WARN", name, f"{home.root} is open to others ({mode:o})", "chmod 700 it")
    return Check("OK", name, str(home.root))


def disk(home: Home) -> Check:
    """Free space where the home is."""
    place = next((p for p in (home.root, *home.root.parents) if p.exists()), Path("/"))
    free = shutil.disk_usage(place).free
    text = f"{free / 1024**3:.1f} GiB free"
    if free < TOO_FEW_BYTES:
        return Check("FAIL", "disk", text, "free some: state and checkouts need space")
    if free < FEW_BYTES:
        return Check("WARN", "disk", text, "checkouts may need more")
    return Check("OK", "disk", text)


def controller(home: Home) -> Check:
    """The controller and its lock."""
    lock = ControllerLock(home)
    holder = lock.holder()
    if holder is not None:
        return Check("OK", "controller", f"runs (pid {holder.pid}, epoch {holder.epoch})")
    if is_held(home.lock):
        text = f"{home.lock} is held, but not by the controller that it names"
        return Check("WARN", "controller", text, "look again; if it stays, look who has it open")
    stale = lock.stale()
    if stale is not None:
        text = f"does not run; the last one (pid {stale}) ended without saying so"
        return Check("WARN", "controller", text, "`codeswarm up` takes over where it was")
    return Check("WARN", "controller", "does not run", "the next apply or `codeswarm up` starts it")


def http(home: Home) -> Check:
    """Where the running controller's HTTP listens, and whether it answers."""
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlsplit

    endpoint = EndpointFile(home.http).read()
    if endpoint is None:
        return Check("OK", "http", "does not listen", "http.enabled in config.yaml, or see the log")
    connection = HTTPConnection(urlsplit(endpoint.url).netloc, timeout=HTTP_SECONDS)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        text = f"{endpoint.url} does not answer: {error}"
        return Check("WARN", "http", text, f"the log may say why: {home.controller_log}")
    finally:
        connection.close()
    if status != 200:
        text = f"{endpoint.url}/healthz says {status}"
        return Check("WARN", "http", text, f"ask it what is stuck: curl {endpoint.url}/healthz")
    return Check("OK", "http", endpoint.url)


def open_state(home: Home) -> tuple[Check, Database | None]:
    """The database: opens, is on a local disk, is readable; the caller closes it."""
    try:
        database = Database(home.state)
        count = sum(len(database.list(kind)) for kind in ("Swarm", "Project", "Task"))
    except StoreError as error:
        return Check("FAIL", "state", str(error)), None
    return Check("OK", "state", f"{home.state} opens, {count} objects"), database


def workers(home: Home, database: Database) -> Check:
    """Workers that run here and that no swarm knows."""
    known = {
        worker.get("job")
        for swarm in database.list("Swarm")
        for worker in (swarm.get("status") or {}).get("workers") or []
    }
    running = [path.parent for path in home.workspaces.glob("*/*/*/worker.lock") if is_held(path)]
    orphans = [path for path in running if path.name not in known]
    if not orphans:
        return Check("OK", "workers", f"{len(running)} running here, all of known swarms")
    names = ", ".join(_with_pid(path) for path in orphans[:5])
    return Check(
        "WARN",
        "workers",
        f"{len(orphans)} running that no swarm knows: {names}",
        "end them by their pid once you know what they are",
    )


def agents(home: Home, database: Database) -> Iterator[Check]:
    """The agents that can be started here, and what their providers refuse."""
    from cli.agent_checks import environment, of_home

    holder = ControllerLock(home).holder()
    return of_home(environment(holder.pid if holder else None), database.list("Swarm"))


def _with_pid(folder: Path) -> str:
    import json

    try:
        pid = json.loads((folder / "worker.pid").read_text())["pid"]
    except (OSError, ValueError, KeyError, TypeError):
        return folder.name
    return f"{folder.name} (pid {pid})"
