"""How many processes beside this one the system has killed since their memory was used up.

A job's memory is limited by its cgroup.  What is killed there is the largest process, which is
mostly one that an agent has started: its worker lives on, and sees a command that failed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_COUNT = re.compile(r"^oom_kill (\d{1,18})$", re.ASCII | re.MULTILINE)


def kills(membership: Path = _MEMBERSHIP, mount: Path = _MOUNT) -> int:
    """Processes of this cgroup that were killed for lack of memory so far; 0 if nobody counts.

    Args:
        membership: in which cgroups this process is (proc(5), cgroups(7)).
        mount: where cgroups are mounted.
    """
    try:
        lines = membership.read_text("utf-8", "replace").splitlines()
    except OSError:
        return 0
    for file in _counters(lines, mount):
        try:
            text = file.read_text("utf-8", "replace")
        except OSError:
            continue
        found = _COUNT.search(text)
        if found is not None:
            return int(found[1])
    return 0


def _counters(lines: list[str], mount: Path) -> Iterator[Path]:
    """Files that may have the count: of version 1 (memory.oom_control), then 2 (memory.events).

    In a container, whose own root is mounted, the path may be one of the host's.
    """
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        inside = os.path.normpath(path).lstrip("/")
        if "memory" in controllers.split(","):
            yield from (mount / "memory" / at / "memory.oom_control" for at in (inside, "."))
        elif not controllers:
            for root in (mount, mount / "unified"):
                yield from (root / at / "memory.events" for at in (inside, "."))
