"""Transcripts of a cluster's controller: what there is is listed, and only what has grown is read.

``logs -f`` asks each transcript many times a second whether it has grown.  One listing answers
for all of them, and is asked for again only after a moment.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cli.transcript_files import order_of, swarm_of
from controller.store.base import NotFound, StoreError

if TYPE_CHECKING:
    from cli.kube_gate import Gate

REFRESH_SECONDS = 0.4
"""Between two listings while nothing but growth is waited for."""
MANY_JOBS = 40
"""More than these are not named in a request: everything is listed then."""
SIZE_HEADER = "X-Codeswarm-Size"


class _File(NamedTuple):
    folder: str
    job: str


class _Query(NamedTuple):
    namespace: str
    swarm: str | None
    jobs: tuple[str, ...]


class Transcripts:
    """The transcripts that the controller has, as last listed."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._query: _Query | None = None
        self._listed = 0.0
        self._sizes: dict[tuple[str, _File], int] = {}

    def find(
        self,
        namespace: str,
        *,
        swarm: str | None,
        uid: str | None,
        jobs: Sequence[str] | None,
    ) -> list[KubeTranscript]:
        """As ``Client.transcripts``.

        Args:
            uid: of the swarm, if there is one of that name; else its last namesake's are taken.
        """
        named = tuple(jobs or ()) if len(jobs or ()) <= MANY_JOBS else ()
        files = self._list(_Query(namespace, swarm, named))
        if swarm is not None:
            files = _of_swarm(files, swarm, uid)
        if jobs is not None:
            wanted = set(jobs)
            files = [file for file in files if file.job in wanted]
        files.sort(key=lambda file: order_of(file.job))
        return [KubeTranscript(self, namespace, file) for file in files]

    def _list(self, query: _Query) -> list[_File]:
        parameters = [("swarm", query.swarm)] if query.swarm is not None else []
        parameters += [("job", job) for job in query.jobs]
        try:
            found = self._gate.get(_parts(query.namespace), parameters).json()
        except NotFound:
            found = {}
        files = []
        for entry in _entries(found.get("transcripts")):
            file = _File(str(entry.get("swarm")), str(entry.get("job")))
            files.append(file)
            self._grown(query.namespace, file, entry.get("size"))
        self._query, self._listed = query, time.monotonic()
        return files

    def _grown(self, namespace: str, file: _File, size: object) -> None:
        if isinstance(size, int) and size >= 0:
            self._sizes[namespace, file] = size

    def size(self, namespace: str, file: _File) -> int:
        """Bytes of one, as far as known; asked for again after a moment."""
        if time.monotonic() - self._listed > REFRESH_SECONDS and self._query is not None:
            self._list(self._query)
        return self._sizes.get((namespace, file), 0)

    def read(self, namespace: str, file: _File, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes; nothing if it has not grown beyond ``offset``."""
        if offset >= self._sizes.get((namespace, file), 0) and offset >= self.size(namespace, file):
            return b""
        parameters = [("offset", str(offset)), ("limit", str(limit))]
        try:
            answer = self._gate.get(_parts(namespace, *file), parameters)
        except NotFound:
            self._sizes[namespace, file] = 0
            return b""
        with suppress(ValueError):
            self._grown(namespace, file, int(answer.headers.get(SIZE_HEADER) or ""))
        return answer.body[:limit]


@dataclass(frozen=True, slots=True)
class KubeTranscript:
    """As ``cli.client.Transcript``."""

    transcripts: Transcripts
    namespace: str
    file: _File

    @property
    def job(self) -> str:
        """Name of the job."""
        return self.file.job

    def size(self) -> int:
        """Bytes so far."""
        return self.transcripts.size(self.namespace, self.file)

    def read(self, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``offset``."""
        return self.transcripts.read(self.namespace, self.file, offset, limit)


def _parts(namespace: str, *more: str) -> list[str]:
    return ["namespaces", namespace, "transcripts", *more]


def _entries(found: object) -> list[dict[str, object]]:
    if not isinstance(found, list):
        raise StoreError("the controller's list of transcripts cannot be read")
    return [entry for entry in found if isinstance(entry, dict)]


def _of_swarm(files: list[_File], swarm: str, uid: str | None) -> list[_File]:
    """Those of one swarm: the one there is, else the last one listed of that name."""
    if uid is not None:
        return [file for file in files if file.folder == f"{swarm}-{uid[:8]}"]
    folders = [file.folder for file in files if swarm_of(file.folder) == swarm]
    return [file for file in files if folders and file.folder == folders[-1]]
