"""The worker's main loop: mail in, heartbeat out, signals; the turns run in a thread beside it."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worker import records
from worker.children import kill_descendants
from worker.config import Config
from worker.errors import RuntimeUnusable
from worker.inbox import Fault, Inbox
from worker.log import complain
from worker.mailbox import open_wake
from worker.masking import Masker
from worker.outbox import Outbox
from worker.records import ControlPayload, ControlRecord
from worker.runner import Runner
from worker.runtimes.base import Runtime
from worker.scope import Answer
from worker.signals import STOPPED, Notice, Signals, explained
from worker.turn import Turns, lost

CUT_SECONDS = 1.5
"""Of the time that a leaving worker has: what is left for its last words."""
POLL_SECONDS = 0.25
"""Between two looks at the inbox where there is no FIFO."""


class Loop:
    """One worker's life.

    Args:
        config: its settings.
        runtime: its agent.
        environ: the process environment.
        signals: what tells it to leave.
    """

    def __init__(
        self, config: Config, runtime: Runtime, environ: Mapping[str, str], signals: Signals
    ) -> None:
        self._config = config
        self._runtime = runtime
        masker = Masker(config.secrets)
        self._outbox = Outbox(
            config.outbox, config.job, config.node, config.hint, masker, shared=config.shared
        )
        history = self._outbox.history
        self._unfinished = sorted(history.started - history.completed)
        system = f"{config.job}.system"
        self._inbox = Inbox(config.inbox, history.started | {system}, history.faults)
        self._note, self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._runner = Runner(
            Turns(config, self._outbox, runtime, environ, masker), runtime, self._nudge
        )
        self._exit_code: int | None = None
        self._draining = False
        self._announced = False
        self._signals = signals
        self._leave_by: float | None = None
        self._poll = config.poll_seconds
        self._reason = ""
        self._complaint = ""
        self._folder = config.base.stat().st_ino
        self._actions: dict[str, Callable[[ControlPayload], None]] = {
            "interrupt": self._interrupt,
            "approval": self._approve,
            "steer": self._steer,
            "drain": self._drain,
            "shutdown": lambda payload: self._leave(
                Notice(payload.get("reason") or STOPPED.reason, STOPPED.seconds)
            ),
        }

    def run(self) -> int:
        """Live until told to end; the exit code."""
        config = self._config
        signal.set_wakeup_fd(self._wakeup)
        config.inbox.parent.mkdir(parents=True, exist_ok=True)
        selector = selectors.DefaultSelector()
        selector.register(self._note, selectors.EVENT_READ)
        wake = self._open_wake()
        if wake is not None:
            selector.register(wake, selectors.EVENT_READ)
        self._beat()
        self._begin()
        next_beat = time.monotonic() + config.heartbeat_seconds
        while self._exit_code is None:
            ready = selector.select(self._pause(next_beat))
            for key, _ in ready:
                self._clear(key.fd)
            if time.monotonic() >= next_beat:
                self._beat()
                next_beat = time.monotonic() + config.heartbeat_seconds
            self._look()
        self._end()
        return self._exit_code

    def _open_wake(self) -> int | None:
        """The FIFO that tells of new mail, if there is to be one and there can be."""
        if not self._poll:
            try:
                return open_wake(self._config.wake)
            except OSError as error:
                self._complain(f"no FIFO for the inbox, it is looked at instead: {error}")
                self._poll = POLL_SECONDS
        return None

    def _pause(self, next_beat: float) -> float:
        """Seconds until something is due."""
        now = time.monotonic()
        pauses = [next_beat - now]
        if self._poll:
            pauses.append(self._poll)
        if self._leave_by is not None:
            cut = self._leave_by - CUT_SECONDS
            pauses.append((cut if now < cut else self._leave_by) - now)
        return max(0.0, min(pauses))

    # --- beginning and end ------------------------------------------------------------------

    def _begin(self) -> None:
        for injection in self._unfinished:
            self._outbox.emit(records.TURN_COMPLETE, lost(), injection)
        agent = self._config.agent
        first = self._config.system_prompt and not agent.fresh_thread_per_prompt
        self._tell("starting", pid=os.getpid())
        try:
            self._runtime.start()
        except RuntimeUnusable as error:
            self._unusable(error)
            return
        self._runner.start(f"{self._config.job}.system" if first else "")
        if not first:
            self._ready()
        self._look()

    def _unusable(self, error: RuntimeUnusable) -> None:
        """Leave, and say why: another worker in this place would do no better."""
        complain(f"the agent cannot be started: {error.message}")
        told = {"class": "runtime", "reason": error.reason, "message": error.message}
        self._outbox.emit(records.AGENT_ERROR, {**told, "will_retry": False})
        self._reason, self._exit_code = error.reason, 1

    def _ready(self) -> None:
        self._announced = True
        self._tell("idle")
        self._flush()

    def _end(self) -> None:
        self._tell("stopped", **({"reason": self._reason} if self._reason else {}))
        self._runtime.close()
        kill_descendants()
        self._outbox.close()

    def _stop(self, reason: str, exit_code: int = 0) -> None:
        """Interrupt what runs and leave, whatever becomes of its work."""
        if not self._runner.stop(reason, STOPPED.seconds):
            complain("the turn did not end in time")
        self._reason = reason
        self._exit_code = exit_code

    def _leave(self, notice: Notice) -> None:
        """Take nothing more, have the running turn save its work, then leave.

        The loop and its heartbeat go on meanwhile.  Told once more, there may be less time.
        """
        leave_by = time.monotonic() + notice.seconds
        if self._leave_by is None:
            self._reason = notice.reason
            self._tell("draining", reason=notice.reason)
            self._flush()
        else:
            leave_by = min(leave_by, self._leave_by)
        self._leave_by = leave_by
        self._runner.end(self._reason, leave_by - CUT_SECONDS)

    def _go_on_leaving(self, leave_by: float) -> None:
        now = time.monotonic()
        if self._runner.ended:
            self._exit_code = 0
        elif now >= leave_by:
            complain("the turn did not end in time")
            self._exit_code = 0
        elif now >= leave_by - CUT_SECONDS:
            self._runner.interrupt(None, self._reason)

    # --- one round --------------------------------------------------------------------------

    def _look(self) -> None:
        """Take in what is new, and see whether it is time to leave."""
        for notice in self._signals.take():
            self._leave(explained(notice, self._config.base))
        if self._leave_by is not None:
            self._go_on_leaving(self._leave_by)
            return
        if self._runner.died:
            self._stop("TurnsFailed", exit_code=1)
        if self._exit_code is None:
            self._read()
        if self._exit_code is None and not self._announced:
            self._after_system_prompt()
        if self._exit_code is None and self._draining and self._runner.idle:
            self._stop(STOPPED.reason)

    def _after_system_prompt(self) -> None:
        done = self._runner.system_prompt_done
        if done:
            self._ready()
        elif done is not None:
            self._stop("SystemPromptFailed", exit_code=1)

    def _read(self) -> None:
        try:
            self._take_in()
        except OSError as error:
            self._complain(f"inbox: {error}")  # looked at again with the next heartbeat
        if self._outbox.pending and self._runner.idle:
            self._flush()

    def _take_in(self) -> None:
        for found in self._inbox.read():
            if isinstance(found, Fault):
                self._report(found)
            elif found["type"] == "control":
                self._control(found)
            elif not self._draining:
                self._runner.submit(found)
            if self._exit_code is not None or self._leave_by is not None:
                return

    def _report(self, fault: Fault) -> None:
        told = {"class": "mailbox", "message": fault.message, "will_retry": False}
        self._outbox.emit(records.AGENT_ERROR, {**told, "offset": fault.offset})
        self._flush()

    def _beat(self) -> None:
        """Touch ``heartbeat`` and write what waits; leave if the folder is gone."""
        base = self._config.base
        try:
            gone = base.stat().st_ino != self._folder
            if not gone:
                _touch(base / "heartbeat")
        except FileNotFoundError:
            gone = True
        except OSError as error:
            self._complain(f"heartbeat: {error}")
            gone = False
        if gone:
            self._stop("FolderGone", exit_code=1)
        elif self._outbox.pending:
            self._flush()

    # --- control records --------------------------------------------------------------------

    def _control(self, record: ControlRecord) -> None:
        payload = record["payload"]
        self._actions[payload["action"]](payload)

    def _interrupt(self, payload: ControlPayload) -> None:
        reason = payload.get("reason") or "Interrupted"
        self._runner.interrupt(payload.get("injection_id"), reason)

    def _approve(self, payload: ControlPayload) -> None:
        decision = payload.get("decision") or "deny"
        answer = Answer(decision, payload.get("by", ""), payload.get("reason", ""))
        self._runner.answer(payload.get("request_id", ""), answer)

    def _steer(self, payload: ControlPayload) -> None:
        injection = payload.get("injection_id")
        if not self._runner.steer(injection, payload.get("content", "")):
            message = "the text could not be steered into the turn: it does not run, or cannot"
            told = {"class": "steer", "message": message, "will_retry": False}
            self._outbox.emit(records.AGENT_ERROR, told, injection)
            self._flush()

    def _drain(self, payload: ControlPayload) -> None:
        if not self._draining:
            self._draining = True
            self._runner.leave()
            self._tell("draining")
            self._flush()

    # --- small things -----------------------------------------------------------------------

    def _tell(self, status: str, **more: Any) -> None:
        self._outbox.emit(records.THREAD_STATUS, {"status": status, **more})

    def _flush(self) -> None:
        try:
            self._outbox.flush()
        except OSError as error:
            self._complain(f"outbox: {error}")  # tried again with the next heartbeat

    def _complain(self, message: str) -> None:
        """Log a trouble that may last, once as long as it stays the same."""
        if message != self._complaint:
            self._complaint = message
            complain(message)

    def _clear(self, handle: int) -> None:
        """Take hints out of a pipe; how many there were says nothing."""
        try:
            os.read(handle, 4096)
        except BlockingIOError:
            pass

    def _nudge(self) -> None:
        """Wake the loop (any thread)."""
        try:
            os.write(self._wakeup, b"\0")
        except BlockingIOError:
            pass  # it has enough to wake up for


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except FileNotFoundError:
        path.touch(0o600)
