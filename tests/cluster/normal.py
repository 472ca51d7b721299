"""Objects without what differs from home to home and from run to run, and with all the rest.

Times, uids, versions, jobs, commits, pids, sessions and paths are what differs, and what is made
of them: hashes of specs that hold paths, digests of commits, names that are hashes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_HASHED = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uid>"),
    (re.compile(r"(?<=-)[0-9a-f]{8}(?=-\d+-\d+\b)"), "<uid>"),
    (re.compile(r"\bpid \d+"), "pid <pid>"),
    (re.compile(r"\bmock-[0-9a-f]{8}\b"), "<session>"),
    (re.compile(r"\b(?:[0-9a-f]{40}|[0-9a-f]{12}|[0-9a-f]{10})\b"), "<commit>"),
    (re.compile(r"(?<=\.\d\.)[0-9a-f]{8}\b"), "<question>"),
    (_TIME, "<time>"),
)
_WORKSPACE = re.compile(r"<root>/home/workspaces/[^\s\"']+")
_METADATA = ("name", "labels", "annotations", "finalizers", "ownerReferences", "generation")
_ANNOTATIONS = frozenset({"codeswarm.dev/base-dir"})
"""Written by the CLI of one home."""
_DIGESTS = frozenset({"credential", "digest", "specHash"})
"""Of commits and paths, or with a key of their home."""


def normal(obj: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """What must be the same of an object in both homes.

    Args:
        root: the home's folder.
    """
    whole = {k: v for k, v in obj.items() if k not in ("apiVersion", "metadata")}
    metadata = {k: v for k, v in obj["metadata"].items() if k in _METADATA and v}
    if "spec" not in obj:
        metadata.pop("generation", None)  # ConfigMaps have none in a cluster
    if obj["kind"] == "Task" and "ownerReferences" not in metadata:
        # What a person made has the finalizer only once it was seen at work, which is luck.
        metadata.pop("finalizers", None)
    annotations = {
        k: v for k, v in metadata.get("annotations", {}).items() if k not in _ANNOTATIONS
    }
    if (obj.get("spec") or {}).get("type") == "integration":
        annotations.pop("codeswarm.dev/task-hash", None)
    metadata["annotations"] = annotations
    result: dict[str, Any] = _normal({"metadata": metadata, **whole}, root)
    return result


def text(value: str, root: Path) -> str:
    """A text without times, uids, commits and the like."""
    value = _WORKSPACE.sub("<workspace>", value.replace(str(root), "<root>"))
    for pattern, word in _HASHED:
        value = pattern.sub(word, value)
    return value


def _normal(value: Any, root: Path) -> Any:
    if isinstance(value, Mapping):
        return {
            name: _normal(item, root)
            for name, item in value.items()
            if not (isinstance(item, str) and _TIME.fullmatch(item)) and name not in _DIGESTS
        }
    if isinstance(value, list):
        return [_normal(item, root) for item in value]
    return text(value, root) if isinstance(value, str) else value
