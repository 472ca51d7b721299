"""The port to a home, as the verbs need it: one implementation a home (``file_client`` here)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from controller.store.base import Change, Event, Key, Resource

    Resources = list[Resource]
    Events = list[Event]


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one document of an ``apply``."""

    key: Key
    action: str
    """``created``, ``configured`` or ``unchanged``."""
    before: Resource | None
    after: Resource
    """As stored; with ``dry_run`` as it would be."""


@dataclass(frozen=True, slots=True)
class ControllerState:
    """The controller that serves the home, as far as a client can tell."""

    running: bool
    detail: str
    """``pid 4711, epoch 3``, or why it does not run."""
    remedy: str = ""
    """What to do where it does not run."""


class Transcript(Protocol):
    """One job's outbox, copied byte for byte; it outlives the worker."""

    @property
    def job(self) -> str:
        """Name of the job."""
        ...

    def size(self) -> int:
        """Bytes so far."""
        ...

    def read(self, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``offset``."""
        ...


class Watch(Protocol):
    """Notices what others change."""

    def wait(self, seconds: float) -> Sequence[Change]:
        """What has changed since the last call, as soon as there is something; empty after
        ``seconds``. An object that changed several times comes once."""
        ...

    def close(self) -> None:
        """Stop watching."""
        ...


class Client(Protocol):
    """Objects, events and transcripts of one home. Raises ``controller.store.base.StoreError``."""

    def get(self, key: Key) -> Resource | None:
        """The object, or None."""
        ...

    def list(
        self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> Resources:
        """Objects of a kind by namespace and name; all namespaces when None."""
        ...

    def events(self, key: Key | None = None, namespace: str | None = None) -> Events:
        """Recorded events, oldest first."""
        ...

    def events_of(self, obj: Resource) -> Events:
        """Events of this very object, oldest first: none of another one that had its name."""
        ...

    def apply(
        self, documents: Sequence[Any], *, namespace: str, dry_run: bool = False
    ) -> Sequence[Applied]:
        """Merge manifests (``controller.resources.manifest.Document``) in, all of them or none.

        Raises: what admission raises; its text names every fault.
        """
        ...

    def create(self, obj: Resource) -> Resource:
        """Check, complete and store a new object.

        Raises: AlreadyExists, and what admission raises.
        """
        ...

    def update(self, key: Key, change: Callable[[Resource], None]) -> Resource:
        """Change metadata or spec of an object in place, again if somebody was faster.

        Raises: NotFound, Conflict, and what admission raises.
        """
        ...

    def delete(self, key: Key, *, uid: str | None = None) -> None:
        """Delete an object, or begin to.

        Raises: NotFound.
        """
        ...

    def watch(self) -> Watch:
        """Begin to watch; what changes after this call is noticed."""
        ...

    def transcripts(
        self, namespace: str, *, swarm: str | None = None, jobs: Sequence[str] | None = None
    ) -> Sequence[Transcript]:
        """Transcripts of a swarm, of some jobs, or of all in a namespace; by job."""
        ...

    def user(self) -> str:
        """Who this client writes as, as far as it can tell; empty where it cannot."""
        ...

    def controller(self) -> ControllerState:
        """Whether a controller serves this home."""
        ...

    def ensure_controller(self, say: Callable[[str], None]) -> None:
        """See that a controller serves this home; ``say`` gets a line when one was started.

        Raises: CliError (exit code 5) with the end of its log when it does not start.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
