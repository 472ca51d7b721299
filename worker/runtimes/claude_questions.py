"""What a person is shown of a call that Claude Code may not make by itself."""

from __future__ import annotations

import difflib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.runtimes.base import Question
from worker.runtimes.claude_policy import COMMAND_TOOLS, EDIT_TOOLS, edited_path, inside
from worker.trees import every_name

DECISIONS = ("approve", "approve-session", "deny", "cancel")

MAX_COMPARED_BYTES = 256 << 10
"""Larger files are not compared: the change alone is shown."""
MAX_SUMMARY_CHARS = 400


def question(
    tool: str, arguments: Mapping[str, Any], root: Path, reason: str, suggestions: list[str]
) -> Question:
    """The question about one call.

    Args:
        tool: its name.
        arguments: as the model gave them.
        root: the checkout.
        reason: why it is asked.
        suggestions: rules that Claude Code would remember.
    """
    description = text_of(arguments, "description")
    why = f"{description}: {reason}" if description and tool in COMMAND_TOOLS else reason
    common: dict[str, Any] = {
        "cwd": str(root),
        "tool": tool,
        "arguments": dict(arguments),
        "reason": why,
        "decisions": DECISIONS,
        "amendments": suggestions,
    }
    if tool in COMMAND_TOOLS:
        return Question(kind="command", command=text_of(arguments, "command"), **common)
    if tool in EDIT_TOOLS:
        path = shown_path(root, edited_path(arguments))
        diff = change(tool, arguments, root)
        return Question(kind="file-change", diff=diff, paths=every_name(root, [path]), **common)
    return Question(kind="tool", command=summary(tool, arguments, root), **common)


def summary(tool: str, arguments: Mapping[str, Any], root: Path) -> str:
    """A call in one line: ``Read src/a.py``."""
    if tool in COMMAND_TOOLS:
        return text_of(arguments, "command")
    path = edited_path(arguments) or text_of(arguments, "path")
    names = ("url", "query", "pattern", "skill", "description", "subject")
    about = next((text_of(arguments, name) for name in names if arguments.get(name)), "")
    shown = shown_path(root, path) if path else ""
    if not shown and not about and arguments:
        about = json.dumps(dict(arguments), sort_keys=True, default=str)
    line = " ".join(part for part in (tool, about, shown) if part)
    return line if len(line) <= MAX_SUMMARY_CHARS else f"{line[:MAX_SUMMARY_CHARS]} ..."


def shown_path(root: Path, path: str) -> str:
    """A path relative to the checkout if it lies there, else as it is."""
    if not path or not inside(root, path):
        return path
    absolute = os.path.normpath(root / path)
    for base in (str(root), os.path.realpath(root)):
        if absolute.startswith(base + os.sep):
            return absolute[len(base) + 1 :]
    return path


def change(tool: str, arguments: Mapping[str, Any], root: Path) -> str:
    """A file change as a unified diff; of a large file the change alone."""
    path = edited_path(arguments)
    old = _text_at(root / path) if path else None
    if tool == "NotebookEdit":
        return _lines("+", text_of(arguments, "new_source"))
    if tool == "Write":
        new = text_of(arguments, "content")
        fits = len(new) <= MAX_COMPARED_BYTES
        return (
            _diff(shown_path(root, path), old, new)
            if fits and old is not None
            else _lines("+", new)
        )
    edits = arguments.get("edits")
    listed = (
        [e for e in edits if isinstance(e, Mapping)] if isinstance(edits, list) else [arguments]
    )
    edited = old
    for edit in listed:
        was, becomes = text_of(edit, "old_string"), text_of(edit, "new_string")
        if edited is None or was not in edited:
            edited = None
            break
        edited = edited.replace(was, becomes, -1 if edit.get("replace_all") else 1)
    if old is not None and edited is not None and len(edited) <= 2 * MAX_COMPARED_BYTES:
        return _diff(shown_path(root, path), old, edited)
    return "".join(
        _lines("-", text_of(edit, "old_string")) + _lines("+", text_of(edit, "new_string"))
        for edit in listed
    )


def text_of(arguments: Mapping[str, Any], name: str) -> str:
    """A text among the arguments; empty if there is none."""
    value = arguments.get(name)
    return value if isinstance(value, str) else ""


def _text_at(path: Path) -> str | None:
    """A small file's text; empty if it is not there, None if it cannot be shown."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError):
        return None
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        data = file.read(MAX_COMPARED_BYTES + 1)
    return None if len(data) > MAX_COMPARED_BYTES else data.decode("utf-8", "replace")


def _diff(path: str, old: str | None, new: str) -> str:
    before, after = (old or "").splitlines(), new.splitlines()
    source = f"a/{path}" if old else "/dev/null"
    lines = difflib.unified_diff(before, after, source, f"b/{path}", lineterm="")
    return "".join(f"{line}\n" for line in lines)


def _lines(sign: str, text: str) -> str:
    return "".join(f"{sign}{line}\n" for line in text.splitlines())


class Remembered:
    """What a person allowed for the rest of a conversation.

    Args:
        root: the checkout.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._kept: set[tuple[str, str]] = set()

    def keep(self, tool: str, arguments: Mapping[str, Any]) -> None:
        """Allow this call, and those like it, from now on."""
        self._kept.add(self._key(tool, arguments))

    def covers(self, tool: str, arguments: Mapping[str, Any]) -> bool:
        """Whether a call is like one that was allowed."""
        return self._key(tool, arguments) in self._kept

    def _key(self, tool: str, arguments: Mapping[str, Any]) -> tuple[str, str]:
        """The same command; any file of the checkout, or the same one outside; the same tool."""
        if tool in COMMAND_TOOLS:
            sandboxed = "" if arguments.get("dangerouslyDisableSandbox") else "sandbox"
            return (f"command/{sandboxed}", text_of(arguments, "command"))
        if tool in EDIT_TOOLS:
            path = edited_path(arguments)
            return ("edit", "" if inside(self._root, path) else path)
        return ("tool", tool)
