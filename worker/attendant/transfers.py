"""One call with bulk data beside it, in a process and over a channel of its own.

So neither mail nor commands wait behind a repository or an archive.  A call comes in; data frames
follow it to an ``end`` frame, or go out before the answer; an answer ends it.  What takes long
says ``busy`` now and then.
"""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from worker import packing, paths
from worker.attendant import stores
from worker.attendant.calls import STORES
from worker.failures import ProviderError
from worker.packing import Packed
from worker.paths import component
from worker.wire import Frame, WireError, encode, frame, read_blocking
from worker.wire_values import Arguments, error_frame

CHUNK = 256 * 1024
"""Bytes of one data frame."""
BUSY_SECONDS = 10.0


def serve(root: Path, source: BinaryIO, sink: BinaryIO) -> int:
    """Do the one call that comes in; the exit code.

    Args:
        root: below which all is.
        source: frames from the controller.
        sink: frames to it.
    """
    line = _Line(sink)
    try:
        with line.busy():
            answer = _perform(root, _Incoming(source), _Outgoing(line))
        line.send(frame("done", json.dumps(answer).encode()))
    except ProviderError as error:
        return _failed(line, error)
    except (WireError, BrokenPipeError):
        return 1  # nobody is there any more
    except Exception as error:
        told = f"the transfer failed: {type(error).__name__}: {error}"
        return _failed(line, ProviderError("TransferFailed", told))
    return 0


def _failed(line: _Line, error: ProviderError) -> int:
    line.send(error_frame("failed", error))
    return 1


def _perform(root: Path, incoming: _Incoming, outgoing: _Outgoing) -> Any:
    call = read_blocking(incoming.source)
    if call is None or call.type != "call":
        raise WireError("a transfer must begin with a call")
    verb = _VERBS.get(call.text("verb"))
    if verb is None:
        raise ProviderError("BadRequest", f"there is no transfer {call.text('verb')!r}")
    return verb(root, Arguments.of(call.json()), incoming, outgoing)


class _Line:
    """Frames to the controller, from several threads."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._lock = threading.Lock()

    def send(self, message: Frame) -> None:
        with self._lock:
            self._sink.write(encode(message))
            self._sink.flush()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Say now and then that something is being done."""
        done = threading.Event()

        def tell() -> None:
            while not done.wait(BUSY_SECONDS):
                try:
                    self.send(frame("busy"))
                except OSError:
                    return

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()


class _Incoming(io.RawIOBase):
    """The data frames of a call, as a file; its end before the ``end`` frame is an error."""

    def __init__(self, source: BinaryIO) -> None:
        self.source = source
        self._rest = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and not self._ended:
            message = read_blocking(self.source)
            if message is None or message.type not in ("data", "end"):
                raise ProviderError("TransferCut", "the transfer was cut")
            self._rest, self._ended = message.body, message.type == "end"
        taken = self._rest[: len(buffer)]
        self._rest = self._rest[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)


class _Outgoing(io.RawIOBase):
    """Data frames, written as a file."""

    def __init__(self, line: _Line) -> None:
        self._line = line

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        for begin in range(0, len(view), CHUNK):
            self._line.send(frame("data", bytes(view[begin : begin + CHUNK])))
        return len(view)


def _pack(root: Path, told: Arguments, incoming: _Incoming, outgoing: _Outgoing) -> None:
    namespace, name, uid = told.text("namespace"), told.text("name"), told.text("uid")
    swarm = (component(namespace), component(told.text("folder")))
    folder = paths.open_folder(root, *swarm)
    try:
        file = io.BufferedWriter(outgoing, CHUNK)
        packing.pack(Packed(namespace, name, uid, swarm[1]), folder, file, threading.Event())
        file.flush()
    finally:
        if folder is not None:
            os.close(folder)


def _put_bundle(root: Path, told: Arguments, incoming: _Incoming, outgoing: _Outgoing) -> None:
    source = io.BufferedReader(incoming, CHUNK)
    commits, seconds = told.texts("commits"), told.seconds("seconds")
    place, size = root / STORES, told.number("size")
    stores.put_bundle(
        place, told.text("store"), cast(BinaryIO, source), size, commits, seconds=seconds
    )


def _get_bundle(root: Path, told: Arguments, incoming: _Incoming, outgoing: _Outgoing) -> None:
    """git writes to a pipe, since it wants a descriptor; what comes out of it goes on its way."""
    out, into = os.pipe()
    pump = threading.Thread(target=_pump, args=(out, outgoing))
    pump.start()
    try:
        with os.fdopen(into, "wb") as file:
            store, ref = told.text("store"), told.text("ref")
            known, seconds = told.texts("known"), told.seconds("seconds")
            stores.get_bundle(root / STORES, store, ref, known, file, seconds=seconds)
    finally:
        pump.join()


def _pump(descriptor: int, outgoing: _Outgoing) -> None:
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while data := file.read(CHUNK):
            outgoing.write(data)


_VERBS: Mapping[str, Callable[[Path, Arguments, _Incoming, _Outgoing], Any]] = {
    "pack": _pack,
    "put_bundle": _put_bundle,
    "get_bundle": _get_bundle,
}
