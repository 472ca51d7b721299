"""What kopf says, in our words: a line for what happens to servers, no traceback for it.

kopf logs each request that it makes again, and the same failure once for each of its tasks, with
its traceback.  What ends the watches is told by ``kube_watch``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from aiohttp import ClientError

LOG = logging.getLogger("codeswarm")

QUIET_SECONDS = 60.0
"""Between two lines about requests that are made again."""
_AGAIN = "Request attempt"


def expected(error: BaseException | None) -> bool:
    """Whether an error is a server's or the network's, and no fault of a program."""
    return isinstance(error, ClientError | TimeoutError | OSError) or _of_kopf(error)


def _of_kopf(error: BaseException | None) -> bool:
    return isinstance(error, Exception) and type(error).__module__.startswith("kopf.")


class KopfLog(logging.Handler):
    """Passes kopf's records on, those of servers in trouble shortened or left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._quiet_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record."""
        if record.exc_info and expected(record.exc_info[1]):
            return
        text = record.getMessage()
        if not text.startswith(_AGAIN):
            logging.getLogger().handle(record)
            return
        now = self._clock()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_SECONDS
            LOG.warning("the watches do not get through: %s", text.partition(": ")[2][:300])


def _is_news(record: logging.LogRecord) -> bool:
    """Of watchers that fail together kopf looks at the first; asyncio tells of the others."""
    return not (record.exc_info and _of_kopf(record.exc_info[1]))


def install() -> None:
    """Have kopf's records go through here."""
    asyncio_logger = logging.getLogger("asyncio")
    if _is_news not in asyncio_logger.filters:
        asyncio_logger.addFilter(_is_news)
    logger = logging.getLogger("kopf")
    if not any(isinstance(handler, KopfLog) for handler in logger.handlers):
        logger.addHandler(KopfLog())
        logger.propagate = False
