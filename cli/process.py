"""The local controller as a process: is it there, start it, stop it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cli.client import ControllerState
from cli.errors import UNAVAILABLE, CliError
from controller.runtime.home import VARIABLE
from controller.runtime.lock import ControllerLock, Holder

if TYPE_CHECKING:
    from controller.runtime.home import Home

START_SECONDS = 10.0
STOP_SECONDS = 30.0
_POLL = 0.02
_LOG_LINES = 10
_MODULE = "controller.runtime.local"


def state(home: Home) -> ControllerState:
    """Whether a controller runs on the home."""
    holder = ControllerLock(home).holder()
    if holder is None:
        text = "not running; `codeswarm up` or the next apply starts it"
        return ControllerState(False, text, "start it with `codeswarm up`")
    if not holder.epoch:
        return ControllerState(True, f"starting, pid {holder.pid}")
    return ControllerState(True, f"pid {holder.pid}, epoch {holder.epoch}")


def command() -> list[str]:
    """How the controller is started; ``-P``: nothing is imported from the working directory."""
    return [sys.executable, "-P", "-m", _MODULE]


def environment(home: Home) -> dict[str, str]:
    """Its environment: this one's, with the home."""
    return {**os.environ, VARIABLE: str(home.root)}


def ensure(home: Home, say: Callable[[str], None]) -> None:
    """See that a controller runs on the home, in the background if none does.

    Raises: CliError with the end of its log when it is not up within ten seconds.
    """
    lock = ControllerLock(home)
    if _up(lock.holder()):
        return
    home.ensure()
    begin = _size(home.controller_log)
    child = _spawn(home) if lock.holder() is None else None
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        holder = lock.holder()
        if holder is not None and _up(holder):
            if child is not None and holder.pid == child.pid:
                say(f"controller started (pid {holder.pid}; log: {home.controller_log})")
            elif child is not None:
                _withdraw(child)
            return
        if child is not None and child.poll() is not None and holder is None:
            raise _failed(home, begin, f"ended with exit code {child.returncode}")
        time.sleep(_POLL)
    raise _failed(home, begin, f"is not up after {START_SECONDS:.0f} s")


def _up(holder: Holder | None) -> bool:
    return holder is not None and holder.epoch > 0


def _spawn(home: Home) -> subprocess.Popen[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    log = os.open(home.controller_log, flags, 0o600)
    try:
        return subprocess.Popen(
            command(),
            env=environment(home),
            cwd=home.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    except OSError as error:
        raise CliError(f"the controller cannot be started: {error}", UNAVAILABLE) from error
    finally:
        os.close(log)


def _withdraw(child: subprocess.Popen[bytes]) -> None:
    """End a controller that came second: still starting, it would take the place of the first
    one whenever that is stopped.
    """
    child.terminate()
    child.wait()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _failed(home: Home, begin: int, what: str) -> CliError:
    try:
        with home.controller_log.open("rb") as file:
            file.seek(begin)
            lines = file.read()[-16384:].decode("utf-8", "replace").splitlines()[-_LOG_LINES:]
    except OSError:
        lines = []
    text = f"the controller {what} (log: {home.controller_log})"
    return CliError("\n".join([text, *(f"  {line}" for line in lines)]), UNAVAILABLE)


def stop(home: Home, seconds: float = STOP_SECONDS) -> int | None:
    """Ask the controller to stop and wait until it has; its pid, or None when none ran.

    Raises: CliError when it does not stop in time.
    """
    import signal

    lock = ControllerLock(home)
    holder = lock.holder()
    if holder is None:
        return None
    try:
        os.kill(holder.pid, signal.SIGTERM)
    except ProcessLookupError:
        return holder.pid
    except PermissionError:
        raise CliError(
            f"the controller (pid {holder.pid}) is another user's", UNAVAILABLE
        ) from None
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        now = lock.holder()
        if now is None or now.pid != holder.pid:
            return holder.pid
        time.sleep(_POLL)
    raise CliError(
        f"the controller (pid {holder.pid}) has not stopped after {seconds:.0f} s", UNAVAILABLE
    )
