"""The queue of accepted prompts and the one thread that carries them out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from worker.records import UserRecord
from worker.runtimes.base import Runtime
from worker.scope import Answer, TurnScope


class TurnsLike(Protocol):
    """What carries out turns (see turn.py)."""

    def run(self, record: UserRecord, scope: TurnScope) -> bool:
        """Carry out a record."""
        ...

    def run_system_prompt(self, scope: TurnScope) -> bool:
        """Carry out the system prompt."""
        ...

    def refuse(self, record: UserRecord, reason: str) -> None:
        """End a turn before it begins."""
        ...


class Runner:
    """Runs prompts in order; every method but the thread's own may be called by the loop.

    Args:
        turns: carries out one.
        runtime: the agent, for steering.
        on_rest: called from the turn's thread when it has nothing left to do and somebody waits
            for that (``leave``, ``end``), and after the system prompt's turn.
    """

    def __init__(self, turns: TurnsLike, runtime: Runtime, on_rest: Callable[[], None]) -> None:
        self._turns = turns
        self._runtime = runtime
        self._on_rest = on_rest
        self._changed = threading.Condition()
        self._waiting: deque[UserRecord] = deque()
        self._cancelled: dict[str, str] = {}
        self._current = ""
        self._scope: TurnScope | None = None
        self._leaving = False
        self._stopping = False
        self.system_prompt_done: bool | None = None
        """Whether the system prompt's turn completed; None before its end."""
        self._thread = threading.Thread(target=self._run, name="turns", daemon=True)

    def start(self, system_prompt: str = "") -> None:
        """Begin; ``system_prompt`` is the injection of the first turn, if there is to be one."""
        if system_prompt:
            self._current, self._scope = system_prompt, TurnScope(self._runtime.processes)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return self._scope is None and not self._waiting

    @property
    def died(self) -> bool:
        """Whether the thread has ended by an error of ours: nothing more will be carried out."""
        return self._thread.ident is not None and not (self._thread.is_alive() or self._stopping)

    def submit(self, record: UserRecord) -> None:
        """Add a prompt."""
        with self._changed:
            self._waiting.append(record)
            self._changed.notify()

    def interrupt(self, injection: str | None, reason: str) -> None:
        """End the running turn, or the named one: running, waiting or yet to come."""
        with self._changed:
            scope = self._scope if injection in (None, self._current) else None
            if scope is None and injection is not None:
                self._cancelled[injection] = reason
        if scope is not None:
            scope.interrupt(reason)
            self._runtime.interrupt()

    def answer(self, request_id: str, answer: Answer) -> None:
        """Answer a question of the running turn."""
        scope = self._scope
        if scope is not None:
            scope.answer(request_id, answer)

    def steer(self, injection: str | None, content: str) -> bool:
        """Add to the running turn, if it is this one; whether that was possible."""
        with self._changed:
            if self._scope is None or injection not in (None, self._current):
                return False
        return self._runtime.steer(content)

    def leave(self) -> None:
        """From now on call ``on_rest`` whenever there is nothing left to do."""
        with self._changed:
            self._leaving = True

    @property
    def ended(self) -> bool:
        """Whether the thread does not run (any more)."""
        return not self._thread.is_alive()

    def end(self, reason: str, save_by: float) -> None:
        """Have the running turn save its work and end, drop what waits, end the thread.

        Args:
            reason: for the interrupted turn.
            save_by: until when it may save its work (``time.monotonic()``).
        """
        scope = self._drop_waiting()
        if scope is not None:
            scope.interrupt(reason, save_by)
            if scope.interrupted:
                self._runtime.interrupt()

    def stop(self, reason: str, timeout: float) -> bool:
        """Interrupt the running turn, drop what waits, end the thread; whether it ended in time.

        Args:
            reason: for the interrupted turn.
            timeout: seconds.
        """
        scope = self._drop_waiting()
        if scope is not None:
            scope.interrupt(reason)
            self._runtime.interrupt()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _drop_waiting(self) -> TurnScope | None:
        """Begin nothing more; what runs."""
        with self._changed:
            self._stopping = True
            self._waiting.clear()
            self._changed.notify()
            return self._scope

    # --- the turn's thread ------------------------------------------------------------------

    def _run(self) -> None:
        if self._scope is not None:
            self.system_prompt_done = self._turns.run_system_prompt(self._scope)
            self._settle()
            self._on_rest()
        while True:
            record = self._next()
            if record is None:
                self._on_rest()
                return
            scope = self._scope
            reason = self._cancelled.pop(record["injection_id"], None)
            if reason is not None:
                self._turns.refuse(record, reason)
            elif scope is not None:
                self._turns.run(record, scope)
            self._settle()

    def _next(self) -> UserRecord | None:
        """Wait for the next prompt and make it the running one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if self._stopping:
                return None
            record = self._waiting.popleft()
            self._current = record["injection_id"]
            self._scope = TurnScope(self._runtime.processes)
            return record

    def _settle(self) -> None:
        with self._changed:
            self._current, self._scope = "", None
            resting = self._leaving and not self._waiting
        if resting:
            self._on_rest()
