"""``python -m worker BASE_DIR`` or ``python worker-....pyz BASE_DIR``: one worker's process.

``attendant ROOT`` and ``transfer ROOT`` in place of a folder work for a controller on a login host,
``machine start|stop|clear ROOT`` on a machine of its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from worker import children, config, identity
from worker.environ import agent_environ
from worker.errors import ConfigError, TurnError
from worker.log import complain
from worker.loop import Loop
from worker.runtimes.base import Runtime
from worker.signals import Signals

USAGE = "usage: worker BASE_DIR (or CODESWARM_BASE_DIR)"
_FOR_CONTROLLERS = ("attendant", "transfer", "machine")


def main(arguments: list[str]) -> int:
    """Run a worker in its folder until it is told to end; the exit code.

    0: told to end (see signals.py), or another process runs in this folder; 1: the system prompt
    failed or the folder is gone; 2: the settings cannot be used.
    """
    if len(arguments) > 1 and arguments[0] in _FOR_CONTROLLERS:
        return _serve(arguments)
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        return _complain(USAGE)
    folder = arguments[0] if arguments else os.environ.get(config.BASE_VARIABLE)
    if not folder:
        return _complain(USAGE)
    base = Path(folder).absolute()
    signals = Signals()
    try:
        lock = identity.FolderLock(base)
    except identity.AlreadyRunning as error:
        complain(str(error))
        return 0
    except OSError as error:
        return _complain(f"{base}: {error.strerror}")
    with lock:
        return _live(base, signals)


def _serve(arguments: list[str]) -> int:
    """Work for a controller, as ``docs/remote.md`` describes."""
    if arguments[0] == "machine":
        from worker.machine.main import main as order

        return order(arguments[1:])
    if len(arguments) > 2:
        return _complain(USAGE)
    from worker.attendant.main import main as attend

    return attend(arguments[0], arguments[1])


def _live(base: Path, signals: Signals) -> int:
    earlier = identity.write_identity(base)
    try:
        settings = config.load(base, os.environ)
        runtime = make_runtime(settings)
        children.become_subreaper()
        if earlier:
            _end_orphans()
        return Loop(settings, runtime, dict(os.environ), signals).run()
    except (ConfigError, TurnError) as error:
        return _complain(str(error))


def _end_orphans() -> None:
    """End what an earlier process of this worker left behind when it was killed."""
    job, folder = config.JOB_VARIABLE, config.BASE_VARIABLE
    children.kill_marked({job: os.environ[job], folder: os.environ[folder]})


def make_runtime(settings: config.Config) -> Runtime:
    """The agent that the settings name.

    Raises: ConfigError.
    """
    if settings.runtime == "mock":
        from worker.runtimes.mock import MockRuntime

        return MockRuntime(settings.agent.mock_delay_seconds, settings.agent.model)
    if settings.runtime == "codex":
        from worker.runtimes.codex import CodexRuntime

        return CodexRuntime(settings, agent_environ(settings, os.environ))
    if settings.runtime == "claude":
        from worker.runtimes.claude import ClaudeRuntime

        return ClaudeRuntime(settings, agent_environ(settings, os.environ))
    raise ConfigError(
        f"worker.json: runtime {settings.runtime!r} is not known here "
        "(there are: mock, codex, claude)"
    )


def _complain(message: str) -> int:
    complain(f"worker: {message}")
    return 2


def run() -> None:
    """The process's entry point."""
    code = main(sys.argv[1:])
    os._exit(code)  # a turn's thread that hangs must not keep the process


if __name__ == "__main__":
    run()
