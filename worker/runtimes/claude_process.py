"""Claude Code's process and its JSON lines: the SDK's transport, with exactly our environment.

The SDK's own transport hands the whole environment of this process on, and does not tell the
process's id.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from claude_agent_sdk import CLIConnectionError, ProcessError, Transport

MAX_LINE_BYTES = 32 << 20
"""A longer message of the program is dropped."""
CLOSE_SECONDS = 1.5
"""For each of the three ways to end the program: closed input, SIGTERM, SIGKILL."""
WRITE_SECONDS = 30.0

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_CHUNK = 64 << 10
_ERROR_LINES = 20


class CliProcess(Transport):
    """One run of the program.

    Args:
        argv: program and arguments.
        cwd: where it works.
        env: its whole environment.
        trace: told each message that goes over the wire (``->`` or ``<-``, and the line).
        answered: told the tool call whose permission was decided, once the program has it.
    """

    def __init__(
        self,
        argv: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        trace: Callable[[str, str], None],
        answered: Callable[[str], None],
    ) -> None:
        self._argv = argv
        self._cwd = cwd
        self._env = env
        self._trace = trace
        self._answered = answered
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self._asked: dict[str, str] = {}
        self._errors: deque[str] = deque(maxlen=_ERROR_LINES)
        self._error_reader: asyncio.Task[None] | None = None
        self.used: dict[str, Mapping[str, Any]] = {}
        """Tokens since the result before, by model; by the result's own id. The SDK drops it."""

    @property
    def pid(self) -> int | None:
        """The process's id as long as it lives."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def complaint(self) -> str:
        """The last lines of its standard error."""
        return "\n".join(self._errors)

    async def connect(self) -> None:
        """See Transport."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                cwd=self._cwd,
                env=dict(self._env),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        except OSError as error:
            raise CLIConnectionError(f"{self._argv[0]} cannot be started: {error}") from error
        self._error_reader = asyncio.ensure_future(self._read_errors())

    async def write(self, data: str) -> None:
        """See Transport."""
        process = self._process
        if process is None or process.stdin is None or process.returncode is not None:
            raise CLIConnectionError("Claude Code's process has ended")
        self._trace("->", data.rstrip("\n"))
        async with self._lock:
            try:
                process.stdin.write(data.encode())
                await asyncio.wait_for(process.stdin.drain(), WRITE_SECONDS)
            except (OSError, RuntimeError, asyncio.TimeoutError) as error:  # noqa: UP041 - 3.10
                raise CLIConnectionError(f"Claude Code takes no input: {error}") from error
        self._note_answer(data)

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """See Transport; what is no message is passed over."""
        process = self._process
        if process is None or process.stdout is None:
            raise CLIConnectionError("Claude Code's process was not started")
        async for line in _lines(process.stdout):
            message = _message(line)
            if message is not None:
                self._trace("<-", line.decode("utf-8", "replace"))
                self._note_question(message)
                self._note_usage(message)
                yield message
        code = await process.wait()
        if self._error_reader is not None:
            await asyncio.wait([self._error_reader], timeout=CLOSE_SECONDS)
        how = f" by {_signal_name(-code)}" if code < 0 else ""
        raise ProcessError(f"Claude Code ended{how}", code, self.complaint)

    async def end_input(self) -> None:
        """See Transport."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def close(self) -> None:
        """See Transport: end it, first gently, so that it can store the conversation."""
        process = self._process
        if process is None:
            return
        await self.end_input()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None and process.returncode is None:
                self._signal(number)
            try:
                await asyncio.wait_for(process.wait(), CLOSE_SECONDS)
                break
            except asyncio.TimeoutError:  # noqa: UP041 - Python 3.10 has two
                continue
        if self._error_reader is not None:
            self._error_reader.cancel()

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def is_ready(self) -> bool:
        """See Transport."""
        return self.pid is not None

    def _signal(self, number: int) -> None:
        pid = self.pid
        if pid is not None:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    async def _read_errors(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        async for line in _lines(self._process.stderr):
            text = line.decode("utf-8", "replace").strip()
            if text:
                self._errors.append(text[:2_000])

    def _note_question(self, message: Mapping[str, Any]) -> None:
        """Remember which request asks about which call of a tool."""
        request = message.get("request")
        if message.get("type") == "control_request" and isinstance(request, dict):
            call = request.get("tool_use_id")
            if request.get("subtype") == "can_use_tool" and isinstance(call, str):
                self._asked[str(message.get("request_id"))] = call
        elif message.get("type") == "control_cancel_request":
            self._asked.pop(str(message.get("request_id")), None)

    def _note_usage(self, message: Mapping[str, Any]) -> None:
        used = message.get("model_usage_since_last_result")
        if message.get("type") == "result" and isinstance(used, dict):
            self.used = {str(message.get("uuid")): used}

    def _note_answer(self, data: str) -> None:
        """Tell that a question's answer was written."""
        if not self._asked or '"control_response"' not in data:
            return
        message = json.loads(data)
        call = self._asked.pop(str((message.get("response") or {}).get("request_id")), None)
        if call is not None:
            self._answered(call)


def _end_with_parent() -> None:
    """In the new process: have it end when this one is killed, so that it calls no model then.

    prctl(2), PR_SET_PDEATHSIG; the signal lets it end its own commands. The thread that starts
    the process is its parent, and lives as long as this program.
    """
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Lines as they come; one that is too long is dropped."""
    kept, dropping = bytearray(), False
    while True:
        chunk = await stream.read(_CHUNK)
        if not chunk:
            break
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            if not dropping:
                yield bytes(kept + part)
            kept.clear()
            dropping = False
        kept += rest
        if len(kept) > MAX_LINE_BYTES:
            kept.clear()
            dropping = True
    if kept and not dropping:
        yield bytes(kept)


def _message(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None
