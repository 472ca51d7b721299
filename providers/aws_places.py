"""Which regions and endpoints a home ever had machines in: a file, since swarms are forgotten."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from providers.aws_values import Api

LOG = logging.getLogger(__name__)


class Places:
    """The file: one line of JSON a place, only ever added to.

    Args:
        path: of the file; made when first needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._noted: set[Api] | None = None

    def note(self, api: Api) -> None:
        """Remember a place. One that cannot be written down is said in the log, and used."""
        if self._noted is None:
            self._noted = set(self.all())
        if api in self._noted:
            return
        self._noted.add(api)
        line = json.dumps({"region": api.region, "endpoint": api.endpoint}) + "\n"
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            with os.fdopen(os.open(self._path, flags, 0o600), "w") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            LOG.warning("%s: %s is not remembered: %s", self._path, api, error.strerror)

    def all(self) -> list[Api]:
        """All that are written down, in order; lines that are none of ours are passed over."""
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        return list(dict.fromkeys(_read(lines)))


def _read(lines: Iterable[str]) -> Iterable[Api]:
    for line in lines:
        try:
            told = json.loads(line)
            yield Api(str(told["region"]), str(told["endpoint"]) if told["endpoint"] else None)
        except (ValueError, KeyError, TypeError):
            continue


def place_in(settings: Mapping[str, Any]) -> Iterator[Api]:
    """Where a swarm with these settings has its machines; nothing, if that is not on AWS."""
    block = (settings.get("provider") or {}).get("aws") or {}
    if block.get("region"):
        yield Api(str(block["region"]), block.get("endpointUrl") or None)
