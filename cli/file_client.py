"""The file home behind the port: ``state.db``, transcript files, and the local controller."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli import ages, transcript_files
from cli.client import Applied, ControllerState
from cli.errors import UNAVAILABLE, CliError
from controller.store.base import Conflict, Key, NotFound, Resource, key_of
from controller.store.database import Database

if TYPE_CHECKING:
    from cli.transcript_files import TranscriptFile
    from controller.runtime.home import Home
    from controller.store.base import Change, Event

    Resources = list[Resource]
    Events = list[Event]

FIRST_POLL_SECONDS, LAST_POLL_SECONDS = 0.002, 0.05
"""Looked at often at first, since one change is often followed by the next."""
_UPDATE_ATTEMPTS = 10
CLOCK_SECONDS = 0.05
"""The controller's clock and this process's may differ by so much."""


class FileWatch:
    """Notices commits of other processes by SQLite's ``data_version``, a read without I/O."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._version = database.data_version()
        self._revision = database.revision()

    def wait(self, seconds: float) -> Sequence[Change]:
        """As ``Watch.wait``."""
        deadline = time.monotonic() + seconds
        pause = FIRST_POLL_SECONDS
        while True:
            version = self._database.data_version()
            if version != self._version:
                self._version = version
                changes, self._revision = self._database.changes_since(self._revision)
                if changes:
                    return changes
            left = deadline - time.monotonic()
            if left <= 0:
                return ()
            time.sleep(min(pause, left))
            pause = min(pause * 1.3, LAST_POLL_SECONDS)

    def close(self) -> None:
        """As ``Watch.close``."""


class FileClient:
    """As ``cli.client.Client``.

    Args:
        home: where the state is.
        make: make it where it is missing; else that is an error, and nothing is made.
    """

    def __init__(self, home: Home, *, make: bool = True) -> None:
        self._home = home
        self._make = make
        self._opened: Database | None = None

    @property
    def _database(self) -> Database:
        if self._opened is None:
            traces = (self._home.state, self._home.transcripts)
            if not self._make and not any(map(os.path.lexists, traces)):
                raise CliError(
                    f"there is no Codeswarm home at {self._home.root}: "
                    "`codeswarm apply -f FILE` makes one, --home or CODESWARM_HOME names another",
                    UNAVAILABLE,
                )
            self._opened = Database(self._home.ensure().state)
        return self._opened

    def close(self) -> None:
        """As ``Client.close``."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def get(self, key: Key) -> Resource | None:
        """As ``Client.get``."""
        return self._database.get(key)

    def list(
        self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> Resources:
        """As ``Client.list``."""
        return self._database.list(kind, namespace, labels=labels)

    def events(self, key: Key | None = None, namespace: str | None = None) -> Events:
        """As ``Client.events``."""
        return self._database.events(key, namespace)

    def events_of(self, obj: Resource) -> Events:
        """As ``Client.events_of``; here an event has no uid, but a time."""
        created = ages.parse(obj["metadata"]["creationTimestamp"])
        found = self._database.events(key_of(obj))
        return [event for event in found if ages.parse(event.last) >= created - CLOCK_SECONDS]

    def apply(
        self, documents: Sequence[Any], *, namespace: str, dry_run: bool = False
    ) -> Sequence[Applied]:
        """As ``Client.apply``."""
        from cli.file_apply import apply

        return apply(self._database, documents, namespace=namespace, dry_run=dry_run)

    def create(self, obj: Resource) -> Resource:
        """As ``Client.create``."""
        from controller.resources.admission import admit

        return self._database.create(admit(obj, None))

    def update(self, key: Key, change: Callable[[Resource], None]) -> Resource:
        """As ``Client.update``."""
        from controller.resources.admission import admit

        for attempt in range(_UPDATE_ATTEMPTS):
            live = self._database.get(key)
            if live is None:
                raise NotFound(f"{key} not found")
            wanted = self._database.get(key) or live
            change(wanted)
            try:
                return self._database.update(admit(wanted, live))
            except Conflict:
                if attempt == _UPDATE_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def delete(self, key: Key, *, uid: str | None = None) -> None:
        """As ``Client.delete``."""
        self._database.delete(key, uid=uid)

    def watch(self) -> FileWatch:
        """As ``Client.watch``."""
        return FileWatch(self._database)

    def transcripts(
        self, namespace: str, *, swarm: str | None = None, jobs: Sequence[str] | None = None
    ) -> Sequence[TranscriptFile]:
        """As ``Client.transcripts``."""
        return transcript_files.find(self._home.transcripts, namespace, swarm=swarm, jobs=jobs)

    def user(self) -> str:
        """As ``Client.user``: this machine's name for who runs this process."""
        import pwd

        try:
            return pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            return str(os.getuid())

    def controller(self) -> ControllerState:
        """As ``Client.controller``."""
        from cli.process import state

        return state(self._home)

    def ensure_controller(self, say: Callable[[str], None]) -> None:
        """As ``Client.ensure_controller``."""
        from cli.process import ensure

        ensure(self._home, say)
