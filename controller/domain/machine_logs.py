"""Set-up logs of machines as transcripts, so that they are read wherever agents' words are.

Beside ``<job>.jsonl`` of its workers a swarm has ``<machine>.jsonl`` of each of its machines:
records of the event ``machine_log``, one for each line.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

EVENT = "machine_log"
MAX_LINE = 4096
_MACHINE = re.compile(r"i-[0-9a-f]{8,17}", re.ASCII)
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) ", re.ASCII)


def is_machine(name: str) -> bool:
    """Whether a transcript of this name is a machine's, not a job's."""
    return _MACHINE.fullmatch(name) is not None


def transcript(machine: str, text: str, at: float) -> bytes:
    """A machine's set-up log as a transcript.

    Args:
        machine: its id.
        text: the log; lines that begin with a time (ISO 8601, UTC, seconds) say when they and those
            after them were written.
        at: when lines before the first time were written, seconds since the epoch.
    """
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        stamp = _STAMP.match(line)
        if stamp is not None:
            at, line = _time(stamp[1], at), line[stamp.end() :]
        if not line.strip():
            continue
        record = {
            "seq": number,
            "ts": at,
            "job_id": machine,
            "event": EVENT,
            "data": {"text": line[:MAX_LINE]},
        }
        lines.append(json.dumps(record, separators=(",", ":")).encode() + b"\n")
    return b"".join(lines)


def _time(text: str, before: float) -> float:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return before
