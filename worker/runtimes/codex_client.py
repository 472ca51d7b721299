"""A client of ``codex app-server``: one JSON object a line, over the process's pipes.

The process's output is read by an event loop in a thread of its own, whatever the turn does, so
that the process is never kept waiting.  Lines that are too long or no JSON are passed over.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from worker.log import complain

Message = dict[str, Any]
"""A notification or a request of the server."""

MAX_LINE_BYTES = 32 << 20
"""A longer line is passed over."""
MAX_ERRORS_BYTES = 8 << 10
"""How much of the end of standard error is kept."""

_END_SECONDS = 0.5  # between a process's end and that of its output

_KILL_SECONDS = 5.0  # until a killed process is seen to be gone

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
NOISE = "could not find bubblewrap on PATH"  # it then uses its own

# How a line begins that may be missed, should it be too long.
_DISPENSABLE = re.compile(rb'\{"method":"(?:item|turn/diff|rawResponseItem)/')


class ServerGone(Exception):
    """The process has ended, or was never there; the text says how."""


class ServerSilent(Exception):
    """No answer came in time."""


class RequestRefused(Exception):
    """The server answered with an error."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: {message}")
        self.code = code
        self.message = message


class AppServer:
    """One process and the conversation with it; every method may be called from any thread.

    Args:
        receive: called in the client's thread with each message and its size in bytes.
        traffic: called with ``->`` or ``<-`` and each line that is sent or comes.
        on_end: called in the client's thread once the process has ended.
    """

    def __init__(
        self,
        receive: Callable[[Message, int], None],
        traffic: Callable[[str, bytes], None],
        on_end: Callable[[], None],
    ) -> None:
        self._receive = receive
        self._traffic = traffic
        self._on_end = on_end
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[str, concurrent.futures.Future[Any]]] = {}
        self._errors = bytearray()
        self._process: subprocess.Popen[bytes] | None = None
        self._loop = asyncio.new_event_loop()
        self._stdin: asyncio.WriteTransport | None = None
        self._early: list[bytes] = []  # written before there was a pipe
        self._transports: list[asyncio.BaseTransport] = []
        self._open = 0
        self._why = ""
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name="codex", daemon=True)

    def start(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        """Start the process.

        Raises: OSError.
        """
        self._process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """The process, until it has been reaped."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    @property
    def gone(self) -> str:
        """How the process ended; empty while it lives."""
        return self._why

    @property
    def alive(self) -> bool:
        """Whether the process runs, at this very moment."""
        pid = self.pid
        if pid is None:
            return False
        try:
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return ended is None

    @property
    def errors(self) -> str:
        """The end of what it wrote to standard error, in plain text."""
        text = _COLOURS.sub("", bytes(self._errors).decode("utf-8", "replace"))
        return "\n".join(line for line in text.splitlines() if NOISE not in line).strip()

    def send(self, method: str, params: Mapping[str, Any]) -> concurrent.futures.Future[Any]:
        """Send a request; its result comes as the future's, or ServerGone or RequestRefused."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        number = next(self._ids)
        with self._lock:
            gone = self._why
            if not gone:
                self._waiting[number] = (method, future)
        if gone:
            future.set_exception(ServerGone(gone))
        else:
            self._write({"id": number, "method": method, "params": dict(params)})
        return future

    def request(self, method: str, params: Mapping[str, Any], timeout: float) -> Any:
        """Send a request and wait for its result.

        Args:
            timeout: seconds.

        Raises: ServerGone, ServerSilent, RequestRefused.
        """
        future = self.send(method, params)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            raise ServerSilent(f"no answer to {method} within {timeout:g} s") from None

    def notify(self, method: str) -> None:
        """Send a notification."""
        self._write({"method": method})

    def reply(self, number: Any, result: Mapping[str, Any]) -> None:
        """Answer a request of the server."""
        self._write({"id": number, "result": dict(result)})

    def refuse(self, number: Any, message: str) -> None:
        """Answer a request of the server with an error (JSON-RPC: method not found)."""
        self._write({"id": number, "error": {"code": -32601, "message": message}})

    def kill(self) -> None:
        """End the process at once."""
        process = self._process
        if process is not None and process.returncode is None:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # ended, and the thread will see it

    def close(self, timeout: float = 2.0) -> None:
        """End the process: it does so by itself once its input ends, else it is killed.

        Args:
            timeout: seconds that it gets.
        """
        if self._process is None:
            return
        self._soon(lambda: self._stdin.close() if self._stdin else None)
        if not self._finished.wait(timeout):
            self.kill()
            self._finished.wait(_KILL_SECONDS)

    # --- in the client's thread -----------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._connect())
            self._loop.run_forever()
        except Exception as error:  # must not leave anybody waiting for an answer
            complain(f"codex: {type(error).__name__}: {error}")
            self.kill()
        finally:
            self._finish()

    async def _connect(self) -> None:
        process = cast("subprocess.Popen[bytes]", self._process)
        loop = self._loop
        self._open = 2
        lines = _Lines(self._line, self._overlong, self._closed)
        self._transports = [
            (await loop.connect_read_pipe(lambda: lines, process.stdout))[0],
            (
                await loop.connect_read_pipe(
                    lambda: _Tail(self._errors, self._closed), process.stderr
                )
            )[0],
        ]
        transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, process.stdin)
        self._stdin = transport
        transport.writelines(self._early)
        self._transports.append(transport)
        self._watch(process.pid)

    def _watch(self, pid: int) -> None:
        """See the process's end even where something else holds its output open."""
        try:
            handle = os.pidfd_open(pid)
        except (AttributeError, OSError):
            return  # then its output ends with it

        def ended() -> None:
            self._loop.remove_reader(handle)
            os.close(handle)
            self._loop.call_later(_END_SECONDS, self._loop.stop)

        self._loop.add_reader(handle, ended)

    def _overlong(self, head: bytes) -> None:
        what = f"codex: a message of more than {MAX_LINE_BYTES >> 20} MiB"
        if _DISPENSABLE.match(head):
            complain(f"{what} is passed over")
        else:
            self._why = f"it was ended because of {what}"
            self.kill()

    def _closed(self) -> None:
        self._open -= 1
        if not self._open:
            self._loop.stop()

    def _line(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return  # not a word of the protocol
        if not isinstance(message, dict):
            return
        self._traffic("<-", line)
        if isinstance(message.get("method"), str):
            self._receive(message, len(line))
            return
        number, error = message.get("id"), message.get("error")
        with self._lock:
            waiting = self._waiting.pop(number, None) if isinstance(number, int) else None
        if waiting is None:
            return
        method, future = waiting
        if error is None:
            future.set_result(message.get("result"))
        else:
            future.set_exception(_refused(method, error))

    def _soon(self, what: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:
            pass  # closed: the process is gone

    def _write(self, message: Message) -> None:
        line = json.dumps(message, separators=(",", ":")).encode()
        self._traffic("->", line)
        data = line + b"\n"

        def write() -> None:
            if self._stdin is None:
                self._early.append(data)
            elif not self._stdin.is_closing():
                self._stdin.write(data)

        self._soon(write)

    def _finish(self) -> None:
        """The process has ended or must: reap it and tell whoever waits."""
        process = cast("subprocess.Popen[bytes]", self._process)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with self._lock:
            self._why = self._why or _how(process.returncode)
            waiting, self._waiting = list(self._waiting.values()), {}
        for _, future in waiting:
            future.set_exception(ServerGone(self._why))
        for transport in self._transports:
            transport.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()
        self._on_end()
        self._finished.set()


class _Lines(asyncio.Protocol):
    """Cuts a stream into lines, without those that are too long."""

    def __init__(
        self,
        take: Callable[[bytes], None],
        overlong: Callable[[bytes], None],
        closed: Callable[[], None],
    ) -> None:
        self._take = take
        self._overlong = overlong
        self._closed = closed
        self._buffer = bytearray()
        self._skipping = False

    def data_received(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self._skipping:
                self._skipping = False
                continue
            whole = bytes(self._buffer + line) if self._buffer else line
            self._buffer.clear()
            self._take(whole)
        if self._skipping:
            return
        self._buffer += rest
        if len(self._buffer) > MAX_LINE_BYTES:
            head = bytes(self._buffer[:256])
            self._buffer.clear()
            self._skipping = True
            self._overlong(head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed()


class _Tail(asyncio.Protocol):
    """Keeps the end of a stream."""

    def __init__(self, kept: bytearray, closed: Callable[[], None]) -> None:
        self._kept = kept
        self._closed = closed

    def data_received(self, data: bytes) -> None:
        self._kept += data
        del self._kept[:-MAX_ERRORS_BYTES]

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed()


def _refused(method: str, error: Any) -> RequestRefused:
    if not isinstance(error, dict):
        error = {}
    code, message = error.get("code"), error.get("message")
    number = code if isinstance(code, int) else 0
    return RequestRefused(method, number, str(message or "refused without a reason"))


def _how(returncode: int) -> str:
    if returncode < 0:
        return f"the Codex process was ended by signal {-returncode}"
    return f"the Codex process ended with exit code {returncode}"
