"""Which regions and endpoints a home ever had machines in: a file, since swarms are forgotten."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from providers.aws_values import Api
from providers.base import ProviderUnreachable

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
        self._write({"region": api.region, "endpoint": api.endpoint})

    def _write(self, told: Mapping[str, str | None]) -> None:
        line = json.dumps(told) + "\n"
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            with os.fdopen(os.open(self._path, flags, 0o600), "w") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            LOG.warning("%s: %s is not remembered: %s", self._path, told, error.strerror)

    def belongs(self, api: Api, account: str) -> None:
        """Remember whose a place is.

        Raises: ProviderUnreachable (``AnotherAccount``), if it was another's before: machines
            that cannot be seen with these credentials are not gone.
        """
        before = {told: whose for told, whose in _read(self._lines()) if whose}.get(api, "")
        if before and before != account:
            raise ProviderUnreachable(
                "AnotherAccount",
                f"{api}: the credentials are of account {account}, but this home's machines there "
                f"are in account {before}: use that one's again, or, if nothing is left there "
                f"(`codeswarm doctor --aws` with them), delete its line from {self._path}",
            )
        if not before:
            self._write({"region": api.region, "endpoint": api.endpoint, "account": account})

    def all(self) -> list[Api]:
        """All that are written down, in order; lines that are none of ours are passed over."""
        return list(dict.fromkeys(api for api, _ in _read(self._lines())))

    def _lines(self) -> list[str]:
        try:
            return self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []


def _read(lines: Iterable[str]) -> Iterable[tuple[Api, str]]:
    """Places, and whose they are, where that is known."""
    for line in lines:
        try:
            told = json.loads(line)
            endpoint = str(told["endpoint"]) if told["endpoint"] else None
            yield Api(str(told["region"]), endpoint), str(told.get("account") or "")
        except (ValueError, KeyError, TypeError):
            continue


def place_in(settings: Mapping[str, Any]) -> Iterator[Api]:
    """Where a swarm with these settings has its machines; nothing, if that is not on AWS."""
    block = (settings.get("provider") or {}).get("aws") or {}
    if block.get("region"):
        yield Api(str(block["region"]), block.get("endpointUrl") or None)
