"""The end of a worker host: every worker of its own is asked to end, and given the time."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from providers.base import ProviderError
from providers.identity import has_begun, live_worker
from providers.processes import Target, signal_marked, signal_worker, snapshot

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 0.25


async def end_workers(roots: Collection[Path], hurry: asyncio.Event, patience: float) -> int:
    """SIGTERM to every worker whose folder is below one of the roots, then wait for their end.

    Args:
        roots: absolute, symlinks resolved.
        hurry: when set, waiting is given up.
        patience: seconds after which it is given up as well.

    Returns: how many are left.
    """
    asked: set[Path] = set()
    until = time.monotonic() + patience
    while True:
        alive = await asyncio.to_thread(_alive, roots)
        await asyncio.to_thread(_ask, [t for t in alive if t.folder not in asked])
        asked.update(target.folder for target in alive)
        if not alive or hurry.is_set() or time.monotonic() >= until:
            return len(alive)
        await asyncio.sleep(_LOOK_SECONDS)


def _alive(roots: Collection[Path]) -> list[Target]:
    """Jobs whose worker lives, or is just being started, by the marks of their processes."""
    jobs: dict[Path, str] = {}
    for entry in snapshot()[0].values():
        if entry.marker is not None and entry.marker.folder:
            folder = Path(entry.marker.folder)
            if any(folder.is_relative_to(root) for root in roots):
                jobs[folder] = entry.marker.job
    return [
        Target(job, folder)
        for folder, job in jobs.items()
        if live_worker(folder, job) is not None or not has_begun(folder)
    ]


def _ask(targets: Iterable[Target]) -> None:
    for target in targets:
        try:
            if not signal_worker(target.folder, target.job, signal.SIGTERM):
                signal_marked([target], signal.SIGTERM)
        except ProviderError as error:
            _LOG.warning("worker %s: %s", target.job, error)
