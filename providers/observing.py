"""What is known of a swarm's jobs on this machine, from one pass over its folder."""

from __future__ import annotations

import os
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from providers.base import JobState, JobStatus, SwarmHandle
from providers.identity import has_begun, live_worker
from providers.launching import Children
from providers.layout import Layout
from providers.processes import Target, find, reap_adopted


@dataclass(frozen=True, slots=True)
class Observer:
    """Looks at jobs; its methods run in threads.

    Args:
        layout: where folders lie.
        children: the workers that this process started.
        starting: jobs whose launch is under way.
    """

    layout: Layout
    children: Children
    starting: Container[str]

    def observe(self, swarm: SwarmHandle) -> list[JobStatus]:
        """Every job with a folder, by name.

        Raises: ProviderError (``UnsafePath``), OSError.
        """
        top = self.layout.existing(swarm)
        if top is None:
            return []
        self.children.reap()
        with os.scandir(top) as entries:
            jobs = sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )
        seen = {job: self._look(top / job, job) for job in jobs}
        unclear = [Target(job, top / job) for job, status in seen.items() if status is None]
        if unclear:
            orphans = find(unclear)
            for job, folder in ((target.job, target.folder) for target in unclear):
                seen[job] = self._look(folder, job) or _unproven(job, orphans.get(job))
        return [status for status in seen.values() if status is not None]

    def _look(self, folder: Path, job: str) -> JobStatus | None:
        """What a job's folder and our own children tell; None: nothing, ask the processes."""
        begun = has_begun(folder)  # first: a worker that begins meanwhile has not ended
        heartbeat = _modified(folder / "heartbeat")
        pid = live_worker(folder, job)
        if pid is not None:
            return JobStatus(job, JobState.RUNNING, "", heartbeat, f"pid {pid}")
        if job in self.starting:
            return JobStatus(job, JobState.PENDING, "starting", heartbeat)
        child = self.children.running(job)
        if child is not None:
            state = JobState.RUNNING if begun else JobState.PENDING
            reason = "" if begun else "starting"
            return JobStatus(job, state, reason, heartbeat, f"pid {child.pid}")
        reason = reap_adopted(folder) or self.children.exit_of(job) or ""
        if reason:
            self.children.note_exit(job, reason)
        if reason or begun:
            return JobStatus(job, JobState.ENDED, reason or "gone", heartbeat)
        return None


def _unproven(job: str, pid: int | None) -> JobStatus:
    """A job that no worker has taken up: its process (by its marker), if there is one."""
    if pid is not None:
        return JobStatus(job, JobState.PENDING, "starting", None, f"pid {pid}")
    return JobStatus(job, JobState.ENDED, "not started")


def _modified(path: Path) -> float | None:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return None
