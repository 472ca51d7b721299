"""The TASK_RESULT block: what an agent, or the worker for it, reports of a task."""

from __future__ import annotations

import json
from collections.abc import Sequence

MAX_FILES = 200

STATUSES = ("done", "blocked", "failed", "needs_followups")


def task_result(
    *,
    task_id: str,
    status: str = "done",
    branch: str = "",
    base_commit: str = "",
    head_commit: str = "",
    files_changed: Sequence[str] = (),
    verification: Sequence[str] = (),
    notes: str = "",
) -> str:
    """The block as text: a header line and a JSON object.

    Args:
        task_id: as the project knows the task.
        status: one of ``STATUSES``.
        branch, base_commit, head_commit: left out where empty.
        files_changed: paths; the first 200 are named.
        verification: what was run, and how it went.
        notes: free text.
    """
    commits = {"base_commit": base_commit, "head_commit": head_commit}
    block = {
        "task_id": task_id,
        "status": status,
        **({"branch": branch} if branch else {}),
        **{name: commit for name, commit in commits.items() if commit},
        "files_changed": list(files_changed[:MAX_FILES]),
        "verification": list(verification),
        "notes": notes,
    }
    return "TASK_RESULT\n" + json.dumps(block, indent=2)
