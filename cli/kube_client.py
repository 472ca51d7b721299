"""A cluster behind the port: objects and events of an API server, transcripts of its controller."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli.client import Applied, ControllerState
from cli.kube_server import FIELD_MANAGER, Server
from cli.kube_watch import KubeWatch, Scope
from controller.resources import kinds
from controller.resources.metadata import is_subdomain
from controller.store.base import Conflict, Forbidden, Key, NotFound, Resource, key_of
from controller.store.kube_rest import CHUNK, Expired, Rejected, path_of

if TYPE_CHECKING:
    from cli.kube_config import Place
    from cli.kube_controller import Controller
    from cli.kube_transcripts import KubeTranscript, Transcripts
    from controller.store.base import Event

    Resources = list[Resource]
    Events = list[Event]

WRITE = (("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict"))
DRY_RUN = (("dryRun", "All"),)
_UPDATE_ATTEMPTS = 40


class KubeClient:
    """As ``cli.client.Client``.

    Args:
        place: the context.
        namespace: where the command line is at home; its controller may be there.
    """

    def __init__(self, place: Place, namespace: str) -> None:
        self.server = Server(place)
        self._namespace = namespace
        self._watches: list[KubeWatch] = []
        self._controller: Controller | None = None
        self._transcripts: Transcripts | None = None

    def close(self) -> None:
        """As ``Client.close``."""
        for watch in list(self._watches):
            watch.close()
        self.server.close()

    # --- reads -------------------------------------------------------------------------------

    def get(self, key: Key) -> Resource | None:
        """As ``Client.get``."""
        found = self.read(key)
        for watch in self._watches:
            watch.looked_at(key, found)
        return found

    def read(self, key: Key) -> Resource | None:
        """As ``get``, without a word to the watches."""
        if not is_subdomain(key.name):
            return None
        try:
            found = self.server.request("GET", path_of(key.kind, key.namespace, key.name))
        except NotFound:
            return None
        return cleaned(found)

    def list(
        self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> Resources:
        """As ``Client.list``."""
        scope = Scope(kind, namespace)
        found, version = self._list(scope, labels)
        if not labels:
            for watch in self._watches:
                watch.listed(scope, found, version)
        return found

    def _list(self, scope: Scope, labels: Mapping[str, str] | None = None) -> tuple[Resources, str]:
        try:
            return self._pages(scope, labels)
        except Expired:
            return self._pages(scope, labels)

    def _pages(self, scope: Scope, labels: Mapping[str, str] | None) -> tuple[Resources, str]:
        """All objects and the version of the whole. Raises: Expired, if it took too long."""
        head = {"apiVersion": kinds.get(scope.kind).api_version, "kind": scope.kind}
        query = [("limit", str(CHUNK))]
        if labels:
            query.append(("labelSelector", ",".join(f"{k}={v}" for k, v in labels.items())))
        found: Resources = []
        token = ""
        while True:
            more = [("continue", token)] if token else []
            page = self.server.request("GET", path_of(*scope), query=[*query, *more])
            # Items of a list do not say what they are.
            found += [cleaned({**head, **item}) for item in page.get("items") or ()]
            metadata = page.get("metadata") or {}
            token = metadata.get("continue") or ""
            if not token:
                found.sort(key=lambda o: (o["metadata"]["namespace"], o["metadata"]["name"]))
                return found, str(metadata.get("resourceVersion") or "")

    def events(self, key: Key | None = None, namespace: str | None = None) -> Events:
        """As ``Client.events``; none, where they may not be read."""
        from cli import kube_events

        try:
            return kube_events.read(self.server, key, namespace)
        except Forbidden:
            return []

    def events_of(self, obj: Resource) -> Events:
        """As ``Client.events_of``; none, where they may not be read."""
        from cli import kube_events

        try:
            return kube_events.read(
                self.server, key_of(obj), None, uid=obj["metadata"].get("uid") or ""
            )
        except Forbidden:
            return []

    # --- writes ------------------------------------------------------------------------------

    def apply(
        self, documents: Sequence[Any], *, namespace: str, dry_run: bool = False
    ) -> Sequence[Applied]:
        """As ``Client.apply``."""
        from cli.kube_apply import apply

        return apply(self, documents, namespace=namespace, dry_run=dry_run)

    def create(self, obj: Resource) -> Resource:
        """As ``Client.create``."""
        from controller.resources.admission import admit

        admit(obj)
        return self.post(obj)

    def post(self, obj: Resource, *, dry_run: bool = False) -> Resource:
        """Write a new object.

        Raises: AlreadyExists, NotFound (its namespace), Rejected, Forbidden, StoreUnavailable.
        """
        path = path_of(obj["kind"], obj["metadata"]["namespace"])
        query = [*WRITE, *(DRY_RUN if dry_run else ())]
        return cleaned(self.server.request("POST", path, body=obj, query=query))

    def replace(self, obj: Resource, *, dry_run: bool = False) -> Resource:
        """Write an object in place of the version that it names.

        Raises: NotFound, Conflict, Rejected, Forbidden, StoreUnavailable.
        """
        metadata = obj["metadata"]
        path = path_of(obj["kind"], metadata["namespace"], metadata["name"])
        query = [*WRITE, *(DRY_RUN if dry_run else ())]
        return cleaned(self.server.request("PUT", path, body=obj, query=query))

    def update(self, key: Key, change: Callable[[Resource], None]) -> Resource:
        """As ``Client.update``."""
        for attempt in range(_UPDATE_ATTEMPTS):
            live = self.read(key)
            if live is None:
                raise NotFound(f"{key} not found")
            wanted = copy.deepcopy(live)
            change(wanted)
            try:
                return self.replace(wanted)
            except Conflict:
                if attempt == _UPDATE_ATTEMPTS - 1:
                    raise
                time.sleep(random.uniform(0, min(0.5, 0.01 * 2**attempt)))
            except Rejected:
                _explain(wanted, live)
                raise
        raise AssertionError("unreachable")

    def delete(self, key: Key, *, uid: str | None = None) -> None:
        """As ``Client.delete``."""
        if not is_subdomain(key.name):
            raise NotFound(f"{key} not found")
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            self.server.request("DELETE", path_of(key.kind, key.namespace, key.name), body=body)
        except Conflict as conflict:
            raise NotFound(f"{key} is another object now: {conflict}") from conflict

    # --- what goes on --------------------------------------------------------------------------

    def watch(self) -> KubeWatch:
        """As ``Client.watch``."""
        watch = KubeWatch(self.server, self._list, self._forget)
        self._watches.append(watch)
        return watch

    def _forget(self, watch: KubeWatch) -> None:
        if watch in self._watches:
            self._watches.remove(watch)

    def transcripts(
        self, namespace: str, *, swarm: str | None = None, jobs: Sequence[str] | None = None
    ) -> Sequence[KubeTranscript]:
        """As ``Client.transcripts``."""
        from cli.kube_gate import Gate
        from cli.kube_transcripts import Transcripts

        if self._transcripts is None:
            self._transcripts = Transcripts(Gate(self.server))
        if swarm is not None and not is_subdomain(swarm):
            return []
        live = None if swarm is None else self.get(Key("Swarm", namespace, swarm))
        uid = None if live is None else live["metadata"]["uid"]
        return self._transcripts.find(namespace, swarm=swarm, uid=uid, jobs=jobs)

    def user(self) -> str:
        """As ``Client.user``: as the server knows us, else as the kubeconfig names us."""
        from cli.kube_user import server_name

        return server_name(self.server) or self.server.place.user

    def controller(self) -> ControllerState:
        """As ``Client.controller``."""
        return self._lease().state()

    def ensure_controller(self, say: Callable[[str], None]) -> None:
        """As ``Client.ensure_controller``; here it only says so if none seems to run."""
        self._lease().ensure(say)

    def _lease(self) -> Controller:
        from cli.kube_controller import Controller

        if self._controller is None:
            self._controller = Controller(self.server, self._namespace)
        return self._controller


def cleaned(obj: Resource) -> Resource:
    """An object without its ``managedFields``, which nobody reads; the server keeps them."""
    obj["metadata"].pop("managedFields", None)
    return obj


def _explain(wanted: Resource, live: Resource) -> None:
    """Say what the server refused in the words of the file home. Raises: Invalid."""
    from controller.resources.admission import admit

    admit(wanted, live)
