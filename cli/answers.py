"""How a person answers what an agent asks, as commands to copy."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from controller.resources.kinds import API_VERSION

if TYPE_CHECKING:
    from cli.session import Session
    from controller.store.base import Resource


def how_to_answer(about: Session, approval: Resource) -> Iterator[str]:
    """What is asked, and the command that answers it."""
    name, request = approval["metadata"]["name"], approval["spec"].get("request") or {}
    asked = request.get("command") or request.get("reason") or request.get("kind") or "a question"
    yield f"because it asks for approval (approval/{name}): {asked}"
    if request.get("reason") and request["reason"] != asked:
        yield f"  its reason: {request['reason']}"
    decisions = [str(value) for value in request.get("decisions") or ["approve", "deny"]]
    yield f"  answer with one of {', '.join(decisions)}:"
    yield f"    {_command(about, name, decisions[0])}"
    if request.get("expiresAt"):
        default = request.get("defaultDecision") or "deny"
        yield f"  without an answer by {request['expiresAt']} it is {default}"


def _command(about: Session, name: str, decision: str) -> str:
    if about.in_cluster:
        patch = json.dumps({"spec": {"decision": {"value": decision}}})
        return (
            f"kubectl --context {shlex.quote(about.place.context)} -n {about.namespace} "
            f"patch approval {name} --type merge -p {shlex.quote(patch)}"
        )
    manifest = json.dumps(
        {
            "apiVersion": API_VERSION,
            "kind": "Approval",
            "metadata": {"name": name},
            "spec": {"decision": {"value": decision}},
        }
    )
    space = "" if about.namespace == "default" else f" -n {about.namespace}"
    return f"echo {shlex.quote(manifest)} | codeswarm{space} apply -f -"
