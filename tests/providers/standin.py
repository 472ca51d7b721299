"""A worker small enough to start in no time: keeps the folder's promises, runs ``run`` steps.

Standard library only, run as a script with the job's folder as its argument.  ``worker.json``
may hold ``standin: {delay, exit, silent}``: seconds before the lock is taken, an exit status to
end with at once, and not to write ``worker.pid``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

_RUN = re.compile(r'^- run: (".*")$', re.MULTILINE)


class Standin:
    """The process for one job."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.config: dict[str, Any] = json.loads((base / "worker.json").read_text())
        self.job = self.config["job"]
        name = f"{self.job}_{self.config['index']:02d}.jsonl"
        self.inbox = base / "mailbox" / "inbox" / name
        self.outbox = base / "mailbox" / "outbox" / name
        self.seq = 0
        self.offset = 0
        self.seen: set[str] = set()

    def run(self) -> None:
        """Live until SIGTERM."""
        options = self.config.get("standin", {})
        time.sleep(options.get("delay", 0))
        if "exit" in options:
            sys.exit(options["exit"])
        lock = (self.base / "worker.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(3)
        if not options.get("silent"):
            self._write_pid()
        (self.base / "env").unlink(missing_ok=True)
        (self.base / "repo").mkdir(exist_ok=True)
        threading.Thread(target=self._beat, daemon=True).start()
        signal.signal(signal.SIGTERM, self._end)
        wake = os.open(self.base / "mailbox" / "inbox" / "wake", os.O_RDWR)
        self.emit("thread_status", {"status": "idle", "pid": os.getpid()})
        while True:
            self._read()
            os.read(wake, 4096)

    def emit(self, event: str, data: dict[str, Any], injection: str | None = None) -> None:
        """Append a record and give the hint."""
        self.seq += 1
        record = {
            "seq": self.seq,
            "ts": time.time(),
            "job_id": self.job,
            "node_id": "n",
            "injection_id": injection,
            "event": event,
            "data": data,
        }
        with self.outbox.open("ab") as file:
            file.write(json.dumps(record).encode() + b"\n")
        with contextlib.suppress(OSError):
            hint = os.open(self.config["hint"], os.O_WRONLY | os.O_NONBLOCK)
            os.write(hint, self.job.encode() + b"\n")
            os.close(hint)

    def _write_pid(self) -> None:
        start = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        part = self.base / "pid.part"
        part.write_text(json.dumps({"pid": os.getpid(), "start": int(start)}))
        part.replace(self.base / "worker.pid")

    def _beat(self) -> None:
        while True:
            (self.base / "heartbeat").touch()
            time.sleep(0.1)

    def _read(self) -> None:
        with contextlib.suppress(FileNotFoundError), self.inbox.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.offset += len(line)
                self._take(json.loads(line))

    def _take(self, record: dict[str, Any]) -> None:
        if record["type"] == "control" and (record.get("payload") or {}).get("action") == "drain":
            self._end()
        injection = record["injection_id"]
        if injection in self.seen:
            return
        self.seen.add(injection)
        self.emit("turn_started", {"attempt": 1}, injection)
        for command in _RUN.findall(record["content"]):
            subprocess.run(json.loads(command), shell=True, cwd=self.base / "repo", check=False)
        self.emit("turn_complete", {"status": "completed", "answer": "done"}, injection)

    def _end(self, *_: object) -> None:
        self.emit("thread_status", {"status": "stopped"})
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    Standin(Path(sys.argv[1])).run()
