"""Ending workers on this machine, and saying of those of which nothing is left that they ended."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker import claims, notes, paths
from worker.failures import ProviderError
from worker.machine import tree
from worker.machine.orders import GONE, RUNNING, Job, StopOrder, refused
from worker.machine.start import take_lock
from worker.machine.supervise import write_ended

_PAUSE = 0.02
KILLED = "signal 9"


@dataclass
class _Leaving:
    """A worker that is being ended."""

    job: Job
    path: Path
    wanted: tree.Wanted
    killed: bool = False


def stop(root: Path, order: StopOrder) -> dict[str, Any]:
    """End workers: TERM to each, or with ``force`` KILL to all that belongs to it.

    What is left of a worker that is gone is killed in any case.  By job: ``gone``, ``running``, or
    a reason.
    """
    deadline = time.monotonic() + order.seconds
    leaving = [
        _Leaving(job, path, tree.of_job(job.job, path))
        for job in order.jobs
        for path in [root.joinpath(*job.folder)]
    ]
    for one in leaving:
        _signal(one, order.force, deadline)
    told: dict[str, Any] = {}
    while True:
        for one in leaving:
            if one.job.job not in told:
                answer = _settle(root, one, order)
                if answer != RUNNING:
                    told[one.job.job] = answer
        if len(told) == len(leaving) or time.monotonic() >= deadline:
            return {one.job.job: told.get(one.job.job, RUNNING) for one in leaving}
        time.sleep(_PAUSE)


def _signal(one: _Leaving, force: bool, deadline: float) -> None:
    found = tree.find(one.wanted)
    if not found:
        return
    # With force nothing is asked of the folder before the kill: its file system may hang.
    heads = [p for p in found.values() if not force and (p.supervises or _is_worker(p, one.path))]
    if not heads:
        one.killed = True
        tree.kill(one.wanted, max(0.0, deadline - time.monotonic()))
        return
    for process in heads:
        tree.send(process, signal.SIGTERM)


def _is_worker(process: tree.Process, folder: Path) -> bool:
    """Whether this is the process that the folder calls its worker."""
    try:
        told = json.loads(notes.read(folder / "worker.pid") or "")
        return (told["pid"], told["start"]) == (process.pid, process.start)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _settle(root: Path, one: _Leaving, order: StopOrder) -> Any:
    """What is to be said of a worker now."""
    try:
        found = tree.find(one.wanted)
        if found:
            return RUNNING
        return _note_end(root, one, order)
    except ProviderError as error:
        return refused(error)
    except OSError as error:
        text = f"{error.filename or one.path}: {error.strerror or error}"
        return refused(ProviderError("StopFailed", text))


def _note_end(root: Path, one: _Leaving, order: StopOrder) -> Any:
    """Say in the folder that the worker ended, if it is this machine's. Raises: OSError, ..."""
    folder = paths.existing(root, *one.job.folder)
    claim = None if folder is None else claims.read(folder)
    if folder is None or not claim:
        return GONE
    words = claim.split()
    if len(words) != 3 or (order.node and words[0] != order.node):
        return GONE
    held = take_lock(folder)
    if held is None:
        return RUNNING  # it is being started
    try:
        if tree.find(one.wanted):
            return RUNNING
        write_ended(folder, KILLED if one.killed else GONE)
    finally:
        os.close(held)
    return GONE
