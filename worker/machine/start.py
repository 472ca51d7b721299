"""Starting workers on this machine: each is claimed, once and for all, and gets a supervisor.

The lock on ``supervisor.lock`` is taken before the claim and handed on to the supervisor, which
holds it as long as it lives.  So there is no moment at which a worker is claimed, nobody holds its
lock, and a supervisor is still to come: an order that is repeated after a crash knows what it sees.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker import claims, paths
from worker.config import BASE_VARIABLE, JOB_VARIABLE, NODE_VARIABLE
from worker.failures import ProviderError
from worker.locks import lock
from worker.machine import notices
from worker.machine.orders import CLAIMED, LEAVING, STARTED, Job, StartOrder, refused
from worker.machine.tree import SUPERVISOR_VARIABLE
from worker.signals import SPOT_INTERRUPTION

LOCK = "supervisor.lock"
ENDED = "ended"
LOG = "worker.log"
METADATA = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
"""The one variable of that kind that a supervisor, not its worker, takes over from the login."""
_NOT_FOR_WORKERS = ("AWS_", "SSH_")
"""A login's variables that tell who logged in, or let in elsewhere."""
_PATIENCE, _PAUSE = 1.0, 0.02


def start(root: Path, order: StartOrder) -> dict[str, Any]:
    """Start workers; by job, what came of it: ``started``, ``{"claimed": ...}``, or a reason."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # also for the supervisor, from its first moment
    for node in {order.node: None, order.coordinator: None}:
        if notices.of(root, node) is not None:
            return {job.job: _leaving(node) for job in order.jobs}
    return {job.job: _attempt(root, order, job) for job in order.jobs}


def _leaving(node: str) -> dict[str, str]:
    """The answer where nothing begins any more."""
    reason = SPOT_INTERRUPTION.reason
    error = ProviderError(reason, f"{node} is about to be taken away by EC2")
    return {**refused(error), LEAVING: node}


def _attempt(root: Path, order: StartOrder, job: Job) -> Any:
    try:
        return _start(root, order, job)
    except ProviderError as error:
        return refused(error)
    except OSError as error:
        where = error.filename or job.job
        text = f"{where} on {order.node}: {error.strerror or error}"
        return refused(ProviderError("StartFailed", text))


def _start(root: Path, order: StartOrder, job: Job) -> Any:
    folder = paths.existing(root, *job.folder)
    if folder is None or not (folder / "worker.json").exists():
        raise ProviderError(
            "NotPrepared",
            f"{root.joinpath(*job.folder)} on {order.node}: no worker's folder is there (is "
            "the swarm's volume mounted?)",
        )
    mine = str(order.claim(job.job))
    held = take_lock(folder)
    deadline = time.monotonic() + _PATIENCE
    while held is None:  # somebody supervises it, is about to claim it, or only looks
        claim = claims.read(folder)
        if claim is not None:
            return STARTED if claim == mine else {CLAIMED: claim}
        if time.monotonic() >= deadline:
            raise ProviderError("LockHeld", f"{folder / LOCK} is held by somebody else")
        time.sleep(_PAUSE)
        held = take_lock(folder)
    try:
        claim = claims.take(folder, mine)
        if claim != mine:
            return {CLAIMED: claim}
        if not has_begun(folder):
            _supervise(root, order, job, held)
        return STARTED
    finally:
        os.close(held)


def has_begun(folder: Path) -> bool:
    """Whether a claimed folder's worker began, and maybe ended: then it never begins again."""
    return any(os.path.lexists(folder / name) for name in (ENDED, "worker.pid"))


def take_lock(folder: Path) -> int | None:
    """Descriptor of a folder's lock; None: somebody else holds it. Raises: OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(folder / LOCK, flags, paths.PRIVATE_FILE)
    try:
        lock(handle, wait=False)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        os.close(handle)
        raise
    return handle


def _supervise(root: Path, order: StartOrder, job: Job, held: int) -> None:
    """Start a supervisor that outlives us and the login. Raises: OSError."""
    folder = root.joinpath(*job.folder)
    told = {
        "folder": str(folder),
        "job": job.job,
        "node": order.node,
        "lock": held,
        "path": list(order.path),
        "python": order.python or sys.executable,
        "spot": order.spot,
        "root": str(root),
        "coordinator": order.coordinator,
    }
    program = str(Path(sys.argv[0]).absolute())
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    log = os.open(folder / LOG, flags, paths.PRIVATE_FILE)
    try:
        os.set_blocking(log, True)
        subprocess.Popen(
            [sys.executable, "-I", program, "machine", "supervise", json.dumps(told)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environ(os.environ, folder, order, job),
            cwd="/",
            pass_fds=(held,),
            start_new_session=True,
        )
    finally:
        os.close(log)


def _environ(
    environ: Mapping[str, str], folder: Path, order: StartOrder, job: Job
) -> dict[str, str]:
    """A supervisor's environment: the login's, and what marks the job's processes."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(_NOT_FOR_WORKERS) or name == METADATA
    }
    marks = {
        JOB_VARIABLE: job.job,
        BASE_VARIABLE: str(folder),
        NODE_VARIABLE: order.node,
        SUPERVISOR_VARIABLE: "1",
    }
    return {**kept, **marks}
