"""Noticing what others change in a cluster: one stream for each kind and namespace that is read.

Nobody says beforehand what is to be watched; it is what the client reads while a watch is open.
A stream begins at the first ``wait`` after such a read, where the read left off, so a watch that
nobody waits on costs nothing, and nothing that happens between the two is missed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from controller.store.base import (
    Change,
    Key,
    Resource,
    StoreError,
    StoreUnavailable,
    is_newer,
    key_of,
)
from controller.store.kube_rest import Expired, path_of

if TYPE_CHECKING:
    from cli.kube_server import Server, Stream

SERVER_SECONDS = 240
"""A stream is begun anew after so long; nothing is lost by it."""
SILENCE_SECONDS = 300.0
"""Without a byte for so long, the connection is taken as dead."""
FIRST_PAUSE, LAST_PAUSE = 0.2, 5.0
GIVE_UP_SECONDS = 120.0
"""A server that is away for so long is told to whoever waits."""
END_SECONDS = 5.0

Listing = Callable[["Scope"], "tuple[list[Resource], str]"]
"""Reads all of a scope; gives the objects and the version of the whole."""


class Scope(NamedTuple):
    """What one stream carries."""

    kind: str
    namespace: str | None
    """None: all of them."""

    def covers(self, other: Scope) -> bool:
        """Whether the other one's changes are among this one's."""
        return self.kind == other.kind and self.namespace in (None, other.namespace)


class _Known(NamedTuple):
    uid: str
    version: str


class KubeWatch:
    """As ``cli.client.Watch``; fed by the client's reads and by its own streams.

    Args:
        server: where the streams come from.
        listing: how everything is read again, when a stream cannot go on where it was.
        on_close: called once, at the end.
    """

    def __init__(
        self, server: Server, listing: Listing, on_close: Callable[[KubeWatch], None]
    ) -> None:
        self._server = server
        self._listing = listing
        self._on_close = on_close
        self._news = threading.Condition()
        self._changes: dict[Key, Change] = {}
        self._known: dict[Key, _Known] = {}
        self._wanted: dict[Scope, str] = {}
        self._streams: dict[Scope, _Reader] = {}
        self._error: StoreError | None = None

    # --- what the client reads ----------------------------------------------------------------

    def listed(self, scope: Scope, objects: Sequence[Resource], version: str) -> None:
        """Everything of a scope was read, in this version."""
        with self._news:
            self._take_list(scope, objects, version, tell=False)
            if not self._covered(scope):
                self._wanted[scope] = version

    def looked_at(self, key: Key, obj: Resource | None) -> None:
        """One object was read; or there is none."""
        scope = Scope(key.kind, key.namespace)
        with self._news:
            if obj is not None:
                self._known[key] = _known(obj)
            else:
                self._known.pop(key, None)
            if not self._covered(scope):
                self._wanted.setdefault(scope, "")

    def _covered(self, scope: Scope) -> bool:
        return any(stream.covers(scope) for stream in self._streams)

    # --- what whoever watches asks ----------------------------------------------------------------

    def wait(self, seconds: float) -> Sequence[Change]:
        """As ``Watch.wait``.

        Raises: Forbidden, StoreUnavailable.
        """
        deadline = time.monotonic() + seconds
        with self._news:
            self._begin()
            while not self._changes and self._error is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return ()
                self._news.wait(left)
            if self._error is not None:
                raise self._error
            changes, self._changes = self._changes, {}
            return list(changes.values())

    def _begin(self) -> None:
        """Start the streams that are missing; the widest of a kind first."""
        for scope in sorted(self._wanted, key=lambda scope: scope.namespace is not None):
            if not self._covered(scope):
                reader = _Reader(self, self._server, scope, self._wanted[scope], self._listing)
                reader.start()  # first: Ctrl-C may come in between
                self._streams[scope] = reader
        self._wanted.clear()

    def close(self) -> None:
        """As ``Watch.close``."""
        with self._news:
            readers = list(self._streams.values())
            self._streams.clear()
        for reader in readers:
            reader.stop()
        deadline = time.monotonic() + END_SECONDS
        for reader in readers:
            reader.join(max(0.0, deadline - time.monotonic()))
        self._on_close(self)

    # --- what the streams bring ------------------------------------------------------------------

    def take(self, obj: Resource, *, deleted: bool) -> None:
        """An object is different now, or gone."""
        with self._news:
            if deleted:
                self._gone(key_of(obj), obj["metadata"]["uid"])
            else:
                self._here(obj, tell=True)

    def take_list(self, scope: Scope, objects: Sequence[Resource], version: str) -> None:
        """Everything of a scope, read again by a stream."""
        with self._news:
            self._take_list(scope, objects, version, tell=True)

    def fail(self, error: StoreError) -> None:
        """A stream cannot go on."""
        with self._news:
            self._error = error
            self._news.notify_all()

    def _take_list(
        self, scope: Scope, objects: Sequence[Resource], version: str, *, tell: bool
    ) -> None:
        there = set()
        for obj in objects:
            there.add(key_of(obj))
            self._here(obj, tell=tell)
        for key, known in list(self._known.items()):
            # What was read after the list may well be newer than it.
            older = not is_newer(known.version, version)
            if key not in there and older and scope.covers(Scope(key.kind, key.namespace)):
                if tell:
                    self._gone(key, known.uid)
                else:
                    del self._known[key]

    def _here(self, obj: Resource, *, tell: bool) -> None:
        key, new = key_of(obj), _known(obj)
        old = self._known.get(key)
        if old is not None and not is_newer(new.version, old.version):
            return
        self._known[key] = new
        if tell:
            self._changes[key] = Change(key, new.uid, version=new.version)
            self._news.notify_all()

    def _gone(self, key: Key, uid: str) -> None:
        known = self._known.get(key)
        if known is not None and known.uid != uid:
            return  # another object of that name is there already
        self._known.pop(key, None)
        self._changes[key] = Change(key, uid, deleted=True)
        self._news.notify_all()


def _known(obj: Resource) -> _Known:
    return _Known(obj["metadata"]["uid"], obj["metadata"]["resourceVersion"])


class _Reader(threading.Thread):
    """One stream: kept up in the background until it is stopped."""

    def __init__(
        self, watch: KubeWatch, server: Server, scope: Scope, version: str, listing: Listing
    ) -> None:
        super().__init__(name=f"watch {scope.kind}", daemon=True)
        self._watch = watch
        self._server = server
        self._scope = scope
        self._version = version
        self._listing = listing
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._heard = False
        """Whether the server was there since the last failure."""

    def stop(self) -> None:
        """End it soon; from another thread."""
        self._stopped.set()
        with self._lock:
            if self._stream is not None:
                self._stream.close()

    def run(self) -> None:
        """Read until stopped."""
        pause, since = FIRST_PAUSE, time.monotonic()
        while not self._stopped.is_set():
            try:
                self._catch_up()
                self._follow()
                pause, since = FIRST_PAUSE, time.monotonic()
            except Expired:
                self._version = ""
            except StoreUnavailable as error:
                if self._heard:
                    pause, since = FIRST_PAUSE, time.monotonic()
                if time.monotonic() - since > GIVE_UP_SECONDS:
                    self._watch.fail(error)
                    return
            except StoreError as error:
                if not self._stopped.is_set():
                    self._watch.fail(error)
                return
            self._stopped.wait(pause)
            pause = min(2 * pause, LAST_PAUSE)

    def _catch_up(self) -> None:
        self._heard = False
        if not self._version:
            objects, version = self._listing(self._scope)
            self._watch.take_list(self._scope, objects, version)
            self._version = version

    def _follow(self) -> None:
        """Read one stream to its end. Raises: Expired, StoreError."""
        query = [
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self._version),
            ("timeoutSeconds", str(SERVER_SECONDS)),
        ]
        path = path_of(*self._scope)
        stream = self._server.stream(path, query, SILENCE_SECONDS)
        self._heard = True
        with self._lock:
            self._stream = stream
            if self._stopped.is_set():
                stream.close()
        try:
            for type_, obj in _events(stream):
                self._version = obj["metadata"]["resourceVersion"]
                if type_ != "BOOKMARK":
                    obj = {**obj, "kind": self._scope.kind}
                    self._watch.take(obj, deleted=type_ == "DELETED")
        finally:
            with self._lock:
                self._stream = None


def _events(stream: Stream) -> Iterator[tuple[str, dict[str, Any]]]:
    """Type and object of each event. Raises: Expired, StoreUnavailable."""
    for line in stream:
        if not line.strip():
            continue
        try:
            event = json.loads(line)
            type_, obj = event["type"], event["object"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreUnavailable(f"a watch brought what is no event: {error}") from error
        if type_ == "ERROR":
            if obj.get("code") == 410:
                raise Expired(str(obj.get("message")))
            raise StoreUnavailable(f"the watch ended: {obj.get('message')}")
        yield type_, obj
