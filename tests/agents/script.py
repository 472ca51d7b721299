"""What a scripted model answers: a fenced ``model`` block (JSON) in the prompt says it.

The block is a list of replies; the first answers the prompt, the next one what the reply's tool
call came to, and so on.  So a server needs no state: any number of agents may talk to it at once,
be killed and resume.  A reply is an object of any of these:

===========  =======================================================================================
``think``    a piece of reasoning, streamed
``say``      a message, streamed in a few pieces
``run``      a shell command; with ``escalate: <reason>`` it asks for more than the sandbox allows
``write``    ``{path, content}``: a new file, by the agent's own tool for that
``tool``     ``{name, arguments}``: a call of any other tool (Anthropic's only)
``usage``    ``{input, cached, written, output, reasoning}``, instead of ``USAGE``
``fail``     an HTTP status instead of an answer; with ``code``, ``message``, ``type``, ``headers``,
             and ``about``, further fields of the error
``error``    the answer fails after it began, with this code; with ``message``
``drop``     the connection is cut in the middle of the answer
``hold``     after what is said the answer goes on only when the server is told so (``release``)
===========  =======================================================================================

Placeholders: ``{report:ID}`` in ``say`` is a TASK_RESULT block of that task.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from worker.report import task_result

Reply = dict[str, Any]

USAGE: Mapping[str, int] = {"input": 1000, "cached": 200, "output": 50, "reasoning": 10}
"""Of each reply; ``input`` includes ``cached``, ``output`` includes ``reasoning``."""

NOTHING: Reply = {"say": "There is nothing more in the script."}

_BLOCK = re.compile(r"```model\n(.*?)\n```", re.DOTALL)
_REPORT = re.compile(r"\{report:([^}]+)\}")


def prompt(*replies: Reply, before: str = "Do it.") -> str:
    """A prompt that is answered by these replies."""
    return f"{before}\n\n```model\n{json.dumps(list(replies), indent=1)}\n```\n"


def replies_in(text: str) -> list[Reply] | None:
    """The replies that a text scripts; None if it scripts none."""
    found = _BLOCK.findall(text)
    return json.loads(found[-1]) if found else None


def reply_at(replies: Sequence[Reply] | None, number: int) -> Reply:
    """The reply of this number, from 0."""
    if replies is None or number >= len(replies):
        return dict(NOTHING)
    return replies[number]


def said(reply: Reply) -> str:
    """What a reply says, placeholders filled in."""
    return _REPORT.sub(lambda found: report(found.group(1)), str(reply.get("say", "")))


def pieces(text: str, count: int = 3) -> list[str]:
    """A text cut into a few pieces, for streaming."""
    size = max(1, -(-len(text) // count))
    return [text[start : start + size] for start in range(0, len(text), size)]


def report(task: str) -> str:
    """A TASK_RESULT block as an agent writes it."""
    return task_result(task_id=task, notes="scripted")
