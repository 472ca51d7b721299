"""The process of one order: ``machine start|stop|clear ROOT``, the order on stdin.

It answers one line of JSON on stdout.  ``machine supervise`` is what ``start`` starts.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.errors import ConfigError
from worker.failures import ProviderError
from worker.log import complain
from worker.machine import orders, tree
from worker.machine.start import start
from worker.machine.stop import stop
from worker.machine.supervise import supervise

USAGE = "usage: worker machine start|stop|clear ROOT < ORDER"
_CLEAR_SECONDS = 10.0


def main(arguments: Sequence[str]) -> int:
    """Carry out an order; 0, or 2 if it cannot be understood."""
    if len(arguments) != 2:
        complain(USAGE)
        return 2
    verb, argument = arguments
    try:
        if verb == "supervise":
            return supervise(argument)
        if verb not in _VERBS:
            raise ConfigError(USAGE)
        told = orders.parse(sys.stdin.buffer.read(orders.MAX_ORDER))
        answer = _VERBS[verb](_root(argument), told)
    except ConfigError as error:
        complain(str(error))
        return 2
    except ProviderError as error:
        answer = orders.refused(error)
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    return 0


def _root(text: str) -> Path:
    """The root; not looked at, since its file system may hang. Raises: ConfigError."""
    path = Path(os.path.normpath(Path(text).expanduser()))
    if not path.is_absolute():
        raise ConfigError(f"{text!r} is no absolute path")
    return path


def _clear(root: Path, told: Any) -> dict[str, Any]:
    """Kill every worker and supervisor below a root; how many are ``left``."""
    seconds = orders.seconds_of(told, _CLEAR_SECONDS)
    # Workers know it by its path without links; those above it are on the machine's own disk.
    real = str(Path(os.path.realpath(root.parent)) / root.name)
    by_name = [tree.below(path) for path in (str(root), real)]
    return {"left": tree.kill(lambda environ: any(one(environ) for one in by_name), seconds)}


_VERBS: Mapping[str, Callable[[Path, Any], dict[str, Any]]] = {
    "start": lambda root, told: {"jobs": start(root, orders.start_order(told))},
    "stop": lambda root, told: {"jobs": stop(root, orders.stop_order(told))},
    "clear": _clear,
}
