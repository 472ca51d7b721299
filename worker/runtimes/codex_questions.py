"""The app-server's requests for approval as questions of ours, and our answers as its decisions."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.runtimes.base import Question
from worker.trees import every_name

COMMAND = "item/commandExecution/requestApproval"
FILE_CHANGE = "item/fileChange/requestApproval"
PERMISSIONS = "item/permissions/requestApproval"
USER_INPUT = "item/tool/requestUserInput"
ELICITATION = "mcpServer/elicitation/request"

Choices = Mapping[str, Any]
"""What to answer Codex, by our decision."""

_SHELLS = frozenset({"bash", "dash", "sh", "zsh"})
_REFUSED = {"deny": "decline", "cancel": "cancel"}
_PLAIN = {"accept": "approve", "acceptForSession": "approve-session"}


@dataclass(frozen=True)
class Request:
    """One of the app-server's requests for approval."""

    question: Question
    choices: Choices


def without_person(method: str) -> dict[str, Any] | None:
    """The answer to requests that nobody is asked about: no; None for any other."""
    if method == PERMISSIONS:
        return {"permissions": {}, "scope": "turn"}
    if method == USER_INPUT:
        return {"answers": {}}
    if method == ELICITATION:
        return {"action": "decline", "content": None}
    return None


def command_request(params: Mapping[str, Any]) -> Request:
    """A command that is to be run with more than the sandbox allows, or the network to be used.

    The command is told as it is, its shell with it: what a shell's argument means is for whoever
    judges it to find out, who must be exact.  Input for a command that runs already is no command:
    what was said of that one does not hold for it.
    """
    kind = _text(params.get("kind")) or "command"
    command = _text(params.get("command"))
    network = params.get("networkApprovalContext")
    choices = _choices(params.get("availableDecisions"))
    question = Question(
        kind="tool" if kind != "command" or (network and not command) else "command",
        cwd=_text(params.get("cwd")),
        command=command,
        tool=f"network:{_host(network)}" if network else "" if kind == "command" else kind,
        arguments={"command": params.get("command"), "network": network},
        reason=_text(params.get("reason")),
        decisions=tuple(choices),
        amendments=_amendments(choices.get("approve-always")),
    )
    return Request(question, choices)


def file_request(
    params: Mapping[str, Any], changes: Sequence[Mapping[str, Any]], paths: Sequence[str], cwd: str
) -> Request:
    """A change of files outside what may be written, or of any file.

    Args:
        changes: those of the item that the request is about.
        paths: how people know the changed files.
        cwd: the checkout.
    """
    choices = _choices(["accept", "acceptForSession", "decline", "cancel"])
    beyond = [_text(params.get("grantRoot")), *map(_target, changes)]
    question = Question(
        kind="file-change",
        cwd=cwd,
        arguments={"changes": list(changes)},
        reason=_text(params.get("reason")),
        diff="\n".join(map(_diff, paths, changes)),
        paths=tuple(every_name(Path(cwd), [*paths, *beyond])),
        decisions=tuple(choices),
    )
    return Request(question, choices)


def shell_text(command: Any) -> str:
    """What a shell is to run, of e.g. ``/bin/bash -lc 'ls -l'``, for people to read.

    It is not exact, so nothing may be decided by it.
    """
    text = _text(command)
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    shell = len(words) == 3 and words[1] in ("-lc", "-c")
    return words[2] if shell and words[0].rpartition("/")[2] in _SHELLS else text


def _choices(available: Any) -> dict[str, Any]:
    """What may be answered; no and an end of the turn always."""
    choices: dict[str, Any] = {}
    for decision in available if isinstance(available, list) else ["accept"]:
        if isinstance(decision, str) and decision in _PLAIN:
            choices[_PLAIN[decision]] = decision
        elif isinstance(decision, Mapping) and _allows(decision):
            choices.setdefault("approve-always", decision)
    return {**choices, **_REFUSED}


def _allows(decision: Mapping[str, Any]) -> bool:
    network = decision.get("applyNetworkPolicyAmendment")
    if isinstance(network, Mapping):
        amendment = network.get("network_policy_amendment")
        return isinstance(amendment, Mapping) and amendment.get("action") == "allow"
    return "acceptWithExecpolicyAmendment" in decision


def _amendments(decision: Any) -> tuple[str, ...]:
    """What would be allowed from then on, in words."""
    if not isinstance(decision, Mapping):
        return ()
    ((_, inner),) = decision.items()
    found = inner if isinstance(inner, Mapping) else {}
    words = found.get("execpolicy_amendment")
    if isinstance(words, list):
        return (f"commands that begin with: {shlex.join(map(str, words))}",)
    return (f"network access: {_host(found.get('network_policy_amendment'))}",)


def _host(network: Any) -> str:
    return _text(network.get("host")) if isinstance(network, Mapping) else ""


def _diff(path: str, change: Mapping[str, Any]) -> str:
    """A unified diff; of new and deleted files Codex tells only what is in them."""
    kind = change.get("kind")
    verb = kind.get("type") if isinstance(kind, Mapping) else kind
    text = _text(change.get("diff"))
    if verb == "add":
        return f"--- /dev/null\n+++ {path}\n{_marked('+', text)}"
    if verb == "delete":
        return f"--- {path}\n+++ /dev/null\n{_marked('-', text)}"
    return f"--- {path}\n+++ {_target(change) or path}\n{text}"


def _target(change: Mapping[str, Any]) -> str:
    """Where an updated file is moved to; empty: it stays."""
    kind = change.get("kind")
    return _text(kind.get("move_path")) if isinstance(kind, Mapping) else ""


def _marked(mark: str, text: str) -> str:
    return "".join(f"{mark}{line}\n" for line in text.splitlines())


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)
