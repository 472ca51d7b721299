"""What an agent asks, in words, and the commands with which a person answers it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cli import ages
from controller.domain.shell import inner

if TYPE_CHECKING:
    from cli.session import Session
    from controller.store.base import Resource

MAX_DIFF_LINES = 40
MAX_COMMAND_LINES = 20
MAX_PATHS = 20
_FLAGS = {
    "approve": "approve {}",
    "approve-session": "approve {} --session",
    "approve-always": "approve {} --always",
    "deny": "deny {}",
    "cancel": "deny {} --cancel",
}


def question_of(request: Mapping[str, Any]) -> str:
    """What is asked for, in a line: the command, the files, or the tool."""
    paths = ", ".join(request.get("paths") or ())
    command = inner(str(request.get("command") or ""))
    text = command or (f"change {paths}" if paths else request.get("tool"))
    text = " ".join(str(text or request.get("reason") or request.get("kind") or "").split())
    return text if len(text) <= 60 else text[:57] + "..."


def how_to_answer(about: Session, approval: Resource) -> Iterator[str]:
    """What is asked, and the commands that answer it."""
    name, request = approval["metadata"]["name"], approval["spec"].get("request") or {}
    asked = inner(str(request.get("command") or "")) or question_of(request) or "a question"
    yield from _block(f"because it asks for approval (approval/{name}): ", asked)
    if request.get("reason") and request["reason"] != asked:
        yield f"  its reason: {_flat(request['reason'])}"
    yield from (f"  {line}" for line in _ways(about, approval))


def told_of(about: Session, approval: Resource, now: float, diff_lines: int) -> Iterator[str]:
    """A whole question for a person who decides.

    Args:
        now: seconds since the epoch.
        diff_lines: most lines of a diff.
    """
    meta, request = approval["metadata"], approval["spec"].get("request") or {}
    where = f"{request.get('swarm', '')}/{request.get('worker', '')}"
    age = ages.age(meta.get("creationTimestamp"), now)
    yield f"approval/{meta['name']}: task/{request.get('task', '')} on {where} asks, {age} ago"
    yield from (f"  {line}" for line in asked_of(request, diff_lines))
    yield from (f"  {line}" for line in _ways(about, approval))


def asked_of(request: Mapping[str, Any], diff_lines: int) -> Iterator[str]:
    """What a question is about: command or tool, folder, reason, files and diff."""
    if request.get("command"):
        yield from _block("$ ", inner(request["command"]))
    if request.get("tool"):
        digest = request.get("argumentsDigest", "")
        yield f"tool {_flat(request['tool'])}" + (f", arguments {digest[:12]}" if digest else "")
    paths = list(request.get("paths") or ())
    for path in paths[:MAX_PATHS]:
        yield f"changes {_flat(path)}"
    if len(paths) > MAX_PATHS:
        yield f"... and {len(paths) - MAX_PATHS} more files"
    if request.get("directory"):
        yield f"in {_flat(request['directory'])}"
    if request.get("reason"):
        yield f"because: {_flat(request['reason'])}"
    if request.get("diff"):
        yield from _cut([request["diff"]], diff_lines)
    for amendment in request.get("amendments") or ():
        yield f"approve-always would allow: {_flat(amendment)}"
    if request.get("truncated"):
        yield "NOT ALL OF IT IS SHOWN: it was too long to be kept whole"


def _flat(text: str) -> str:
    """What an agent wrote, on one line: it must not look like ours."""
    return " ".join(text.split())


def _block(head: str, text: str) -> Iterator[str]:
    """A command after ``head``; its further lines are set in."""
    for number, line in enumerate(_cut([text], MAX_COMMAND_LINES)):
        yield f"  {line}" if number else f"{head}{line}"


def _cut(texts: list[str], most: int) -> Iterator[str]:
    lines = [line for text in texts for line in text.splitlines()]
    yield from lines[:most]
    if len(lines) > most:
        yield f"... and {len(lines) - most} more lines"


def _ways(about: Session, approval: Resource) -> Iterator[str]:
    name, request = approval["metadata"]["name"], approval["spec"].get("request") or {}
    offered = [str(value) for value in request.get("decisions") or ["approve", "deny"]]
    yield f"answer with one of {', '.join(offered)}:"
    for decision in offered:
        yield f"  {_command(about, name, decision)}"
    if request.get("expiresAt"):
        default = request.get("defaultDecision") or "deny"
        yield f"without an answer by {request['expiresAt']} it is {default}"


def _command(about: Session, name: str, decision: str) -> str:
    words = ["codeswarm"]
    if about.in_cluster:
        words += ["--context", shlex.quote(about.place.context)]
    if about.in_cluster or about.namespace != "default":
        words += ["-n", about.namespace]
    return " ".join([*words, _FLAGS.get(decision, "approve {}").format(shlex.quote(name))])
