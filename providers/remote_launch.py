"""The files with which a worker's folder on another host begins."""

from __future__ import annotations

import json

from providers.base import LaunchRequest

POLL_SECONDS = 0.25
"""Between a worker's looks at its inbox: no FIFO works across a shared file system."""


def job_files(root: str, request: LaunchRequest) -> dict[str, str]:
    """``worker.json`` and ``env`` of a worker.

    Args:
        root: ``workspaceRoot`` where the worker is, absolute.
        request: the worker.
    """
    given = {name: value for name, value in request.config.items() if value is not None}
    identity = {
        "job": request.job,
        "index": request.index,
        "namespace": request.swarm.namespace,
        "swarm": request.swarm.name,
        "swarm_uid": request.swarm.uid,
        "stores": f"{root}/stores",
        "hint": None,
        "pollSeconds": POLL_SECONDS,
    }
    return {
        "env": json.dumps(dict(request.env)),
        "worker.json": json.dumps({**given, **identity}),
    }
