"""The prompts that agents get: a task's, a planner's, an integration's, and what a retry adds.

Only a task's own prompt and a planner's specification stand flush left, word for word, because
a fenced block in them must stay one.  All other text that comes from people or agents is
quoted with an indent, so that nothing in it can begin a fence; the instructions have no fences,
and their examples are no valid answers, so that an agent that repeats them has not answered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from controller.domain.planning import HEADER as PLAN_HEADER
from controller.domain.results import HEADER as RESULT_HEADER

MAX_QUOTE = 2000
"""Characters of another agent's text that a prompt repeats."""
QUOTE = "  | "


@dataclass(frozen=True, slots=True)
class Dependency:
    """A finished task whose work the checkout contains."""

    name: str
    title: str = ""
    commit: str = ""
    files_changed: tuple[str, ...] = ()
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Previous:
    """An attempt that failed before this one."""

    attempt: int
    reason: str
    message: str = ""
    ref: str = ""
    """Where its commits are kept, if it made any."""
    commit: str = ""
    """The last of them, which is at hand in the checkout."""
    stopped: bool = False
    """It did not fail: its worker had to leave."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a task's prompt is made of."""

    task_id: str
    title: str
    prompt: str
    branch: str
    acceptance_criteria: tuple[str, ...] = ()
    owned_paths: tuple[str, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    previous: Previous | None = None


@dataclass(frozen=True, slots=True)
class Merge:
    """One branch that an integration takes in."""

    name: str
    commit: str
    title: str = ""


def work_prompt(work: Work) -> str:
    """The prompt of a project's task."""
    parts = [f"# Task {_line(work.task_id)}: {_line(work.title or work.task_id)}"]
    if work.previous is not None:
        parts.append(retry_note(work.previous))
    parts.append(work.prompt.strip("\n"))
    if work.acceptance_criteria:
        parts.append("## Acceptance criteria\n\n" + _bullets(work.acceptance_criteria))
    if work.owned_paths:
        parts.append(
            "## Owned paths\n\nChange only these (a path that ends in / is a whole directory):\n\n"
            + _bullets(work.owned_paths)
        )
    if work.dependencies:
        parts.append(
            "## What this builds on\n\nYour checkout already contains these finished tasks:\n\n"
            + "\n".join(_dependency(found) for found in work.dependencies)
        )
    parts.append(_WORK_RULES)
    parts.append(_result_format(work.task_id, work.branch))
    return _join(parts)


def plan_prompt(title: str, specification: str, previous: Previous | None = None) -> str:
    """The prompt that asks a planner for a project's task graph."""
    parts = [f"# Plan the project: {_line(title)}"]
    if previous is not None:
        parts.append(retry_note(previous))
    parts += [_PLAN_TASK, "## Specification", specification.strip("\n"), _PLAN_FORMAT]
    return _join(parts)


def integration_prompt(
    title: str,
    branch: str,
    merges: Sequence[Merge],
    verify: Sequence[str] | None,
    previous: Previous | None = None,
) -> str:
    """The prompt of an integration, for the case that an agent is needed.

    ``verify`` as in the Project: None asks the agent to find the verification, an empty list
    asks for none.
    """
    parts = [f"# Integrate the project: {_line(title)}"]
    if previous is not None:
        parts.append(retry_note(previous))
    listed = "\n".join(
        f"- {_line(merge.name)} ({_line(merge.commit)[:12]})"
        + (f": {_line(merge.title)}" if merge.title else "")
        for merge in merges
    )
    parts.append(f"{_INTEGRATION_TASK}\n\n{listed}")
    if verify is None:
        parts.append(f"## Verification\n\n{_FIND_VERIFICATION}")
    elif verify:
        parts.append(
            "## Verification\n\nThese commands must succeed, in this order, after the last merge:"
            "\n\n" + _bullets(verify)
        )
    parts.append(_result_format("integration", branch))
    return _join(parts)


def retry_note(previous: Previous) -> str:
    """What an attempt is told of the one before it."""
    reason = _line(previous.reason)
    if previous.stopped:
        text = (
            f"This is another attempt. Attempt {previous.attempt} did not fail: its worker had to "
            f"leave before it was done ({reason}). You start from a clean checkout."
        )
    else:
        text = (
            f"This is another attempt. Attempt {previous.attempt} failed ({reason}). "
            "You start from a clean checkout."
        )
    at = _line(f"{previous.commit} ({previous.ref})" if previous.commit else previous.ref)
    if previous.stopped and previous.ref:
        text += (
            f" All that it had done is in commit {at}, which git knows in this checkout: look at "
            "it (git show, git diff), take over what is good (git cherry-pick, git merge), and go "
            "on from there."
        )
    elif previous.ref:
        text += f" Its commits, if you need them, are at {at}."
    if previous.message and not previous.stopped:
        text += "\nWhat is known about the failure:\n\n" + _quote(previous.message)
    return text


def _dependency(found: Dependency) -> str:
    text = f"- {_line(found.name)}"
    if found.title:
        text += f": {_line(found.title)}"
    if found.commit:
        text += f" ({_line(found.commit)[:12]})"
    if found.files_changed:
        names = ", ".join(_line(name) for name in found.files_changed[:20])
        more = len(found.files_changed) - 20
        text += f"\n  changed: {names}" + (f" and {more} more" if more > 0 else "")
    if found.notes:
        text += "\n  its notes:\n" + _quote(found.notes)
    return text


def _join(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _line(text: str) -> str:
    """Text on one line."""
    return " ".join(text.split())


def _bullets(items: Iterable[str]) -> str:
    return "\n".join("- " + "\n  ".join(item.strip().splitlines() or [""]) for item in items)


def _quote(text: str) -> str:
    """Another agent's words: shortened, and never at the start of a line."""
    text = text.strip()
    if len(text) > MAX_QUOTE:
        text = text[:MAX_QUOTE] + " ..."
    return "\n".join(QUOTE + line for line in text.splitlines())


_WORK_RULES = """\
## How to work

You are in a checkout of the repository made for this task alone. Work only inside it. You need
not commit: what you leave is committed for you. Do not push, and do not change branches.
Check your work before you report it."""

_PLAN_TASK = """\
Break the specification below into tasks that several agents can carry out, each in its own
checkout on its own branch. You are in a checkout of the repository; read it, change nothing.
Make tasks small enough for one sitting and as independent as possible; let a task depend on
another only if it needs its result. Tasks that run at the same time must not change the same
files: name the files or directories that each one owns."""

_PLAN_FORMAT = f"""\
## How to answer

End your answer with a line that consists of {PLAN_HEADER}, followed by one JSON object of this
form, and nothing after it:

    {PLAN_HEADER}
    {{
      "tasks": [
        {{
          "task_id": "T-001",
          "title": "one line",
          "prompt": "everything that the agent must know to do this task",
          "acceptance_criteria": ["what must be true when it is done"],
          "depends_on": [],
          "owned_paths": ["src/module.py", "docs/"]
        }},
        ...
      ]
    }}

Do not indent the header line. Every task_id is unique; depends_on names task_ids of this list,
without cycles; a path in owned_paths that ends in / is a whole directory."""

_INTEGRATION_TASK = """\
The finished branches of this project are being merged, one by one, in the order below. You are
asked because a merge conflicts, or because the result needs verification or fails it. Resolve
conflicts so that the intent of both sides is kept, and commit the merge; repair what the
verification shows to be broken. Do not push, and do not leave out any of the branches."""

_FIND_VERIFICATION = """\
No commands are given. Find the strongest verification that this repository offers (its tests,
its build, its linters), run it, and report under verification what you ran and how it ended."""


def _result_format(task_id: str, branch: str) -> str:
    return f"""\
## How to answer

End your answer with a line that consists of {RESULT_HEADER}, followed by one JSON object of this
form, and nothing after it:

    {RESULT_HEADER}
    {{
      "task_id": {_json(task_id)},
      "status": "done | blocked | failed | needs_followups",
      "branch": {_json(branch)},
      "base_commit": "the commit you started from",
      "head_commit": "the last commit, if you made one",
      "files_changed": ["path/of/a/file"],
      "verification": ["what you ran, and how it ended"],
      "notes": "what those who build on this should know"
    }}

Do not indent the header line. status is one word: done (all of it, checked), blocked (you cannot
go on without something that only a person can give; say what in notes), failed (you tried and
could not), needs_followups (done as far as it goes; say in notes what remains)."""


def _json(text: str) -> str:
    return json.dumps(_line(text), ensure_ascii=False)
