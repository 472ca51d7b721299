"""What every reconciler is given, and the few verbs that all of them share."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from controller.reconcile.clock import Clock, stamp
from controller.reconcile.ferry import Ferry
from controller.reconcile.infos import TaskInfo
from controller.reconcile.observer import Observer
from controller.reconcile.queue import WorkQueue
from controller.reconcile.transcripts import Transcripts
from controller.reconcile.turns import Turns
from controller.reconcile.world import World
from controller.repository.service import Repositories
from controller.resources.conditions import OWNED, find, set_condition
from controller.resources.price_list import built_in
from controller.resources.prices import Prices
from controller.resources.settings import Settings
from controller.resources.texts import (
    FILE_MODE,
    Sources,
    Unresolved,
    resolve_env,
    resolve_secret,
    resolve_text,
)
from controller.store.base import Key, Resource, Store, StoreUnavailable, key_of
from providers.base import Provider, ProviderError, ProviderUnreachable, SwarmHandle

LOG = logging.getLogger(__name__)

AWAY_SECONDS = 10.0
"""Between two lines that say that the store is away, for the same reason."""


@dataclass(slots=True)
class Context:
    """The ports, the shared picture and the ways to ask for passes."""

    store: Store
    clock: Clock
    epoch: int
    providers: Mapping[str, Provider]
    repositories: Repositories
    settings: Settings
    transcripts: Transcripts
    stores: Path
    """Folder of the shared object stores on this machine."""
    archives: Path
    sources: Sources = FILE_MODE
    """What besides stored objects manifests may refer to in this home."""
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    """The controller's own environment: what profiles are filled in from, and what is inherited."""
    observer: Observer = field(default_factory=Observer)
    """Who is told what happens."""
    world: World = field(default_factory=World)
    turns: Turns = field(default_factory=Turns)
    queue: WorkQueue = field(default_factory=WorkQueue)
    observed: Callable[[Resource], None] = lambda _: None
    """Takes an object that was just written into the world (set by the manager)."""
    refresh: Callable[[TaskInfo], None] = lambda _: None
    """Put a task into the dispatcher's queue, or take it out (set by the manager)."""
    wake_dispatch: Callable[[], None] = lambda: None
    """Ask for a look at ready tasks and idle workers (set by the manager)."""
    delivered: set[str] = field(default_factory=set)
    """Injections handed to their workers in this controller's life."""
    delivering: set[str] = field(default_factory=set)
    """Injections that the dispatcher gives to their workers right now."""
    away: tuple[str, float] = ("", 0.0)
    """Why the store was away last, as it was logged, and until when that need not be repeated."""
    let_in: dict[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """What let us in last, by a swarm's uid: the end of a swarm may come after that of its Secret,
    as with ``kubectl delete -f`` or a namespace."""
    prices: Prices = field(init=False)
    """What models cost: the settings' prices over the built-in list."""
    ferry: Ferry = field(init=False)
    """Carries repositories to workers that do not reach them, and results back."""

    def __post_init__(self) -> None:
        self.ferry = Ferry(self.repositories, self.stores, self.queue.add, self._tell)
        self.prices = Prices(self.settings.model_pricing, built_in())

    def now(self) -> str:
        """The time as status shows it."""
        return stamp(self.clock.now())

    async def write_status(self, obj: Resource, status: Mapping[str, Any]) -> Resource:
        """Store a status if it differs, and take it over; returns the stored object.

        Raises: Conflict, NotFound.
        """
        if (obj.get("status") or {}) == status:
            return obj
        stored = await self.store.update_status({**obj, "status": dict(status)})
        self.observed(stored)
        return stored

    async def write(self, obj: Resource) -> Resource:
        """Store metadata and spec, and take them over. Raises: Conflict, NotFound."""
        stored = await self.store.update(obj)
        self.observed(stored)
        return stored

    async def create(self, obj: Resource) -> Resource:
        """Store a new object, and take it over. Raises: AlreadyExists."""
        stored = await self.store.create(obj)
        self.observed(stored)
        return stored

    def text(self, obj: Resource, holder: Mapping[str, Any], field: str) -> str | Unresolved | None:
        """A text of a spec, inline or by reference (see ``resolve_text``)."""
        return resolve_text(obj, holder, field, self.store.get, self.sources)

    def secret(
        self, obj: Resource, source: Mapping[str, Any], where: str = "valueFrom"
    ) -> str | Unresolved:
        """The value behind a ``valueFrom`` (see ``resolve_secret``)."""
        return resolve_secret(obj, source, self.store.get, self.sources, where=where)

    def environment(
        self, obj: Resource, env: Iterable[Mapping[str, Any]]
    ) -> dict[str, str] | Unresolved:
        """The variables of ``agent.env`` (see ``resolve_env``)."""
        return resolve_env(obj, env, self.store.get, self.sources)

    def _tell(self, key: Key, reason: str, message: str) -> None:
        self.store.record_event(key, "Normal", reason, message)

    def event_for(self, key: Key, reason: str, message: str) -> None:
        """Warn about an object by its key."""
        self.store.record_event(key, "Warning", reason, message)

    def handle_to(self, obj: Resource, parameters: Mapping[str, Any] | None) -> SwarmHandle:
        """A swarm's identity with its provider under these parameters, ready for use.

        Raises: ProviderUnreachable (what lets us in cannot be found).
        """
        meta = obj["metadata"]
        handle = SwarmHandle(meta["namespace"], meta["name"], meta["uid"], parameters or {})
        return self._let_in(handle)

    def _let_in(self, handle: SwarmHandle) -> SwarmHandle:
        """A handle with its secrets, looked up afresh for each use. Raises: ProviderUnreachable."""
        secrets = secrets_of(self, handle.namespace, handle.parameters)
        if isinstance(secrets, Unresolved):
            known = self.let_in.get(handle.uid)
            if known is None or not self._is_going(handle):
                raise ProviderUnreachable(secrets.reason, secrets.message)
            return replace(handle, secrets=known)
        if secrets:
            self.let_in[handle.uid] = secrets
        return replace(handle, secrets=secrets) if secrets else handle

    def _is_going(self, handle: SwarmHandle) -> bool:
        obj = self.store.get(Key("Swarm", handle.namespace, handle.name))
        return obj is not None and "deletionTimestamp" in obj["metadata"]

    def handle_of(self, swarm: Key) -> tuple[SwarmHandle, Provider]:
        """A swarm's identity with its provider, as its last pass resolved it.

        Raises: ProviderError (``SwarmGone``); ProviderUnreachable.
        """
        info = self.world.swarms.get(swarm)
        provider = self.providers.get(info.provider) if info else None
        if info is None or provider is None:
            raise ProviderError("SwarmGone", f"swarm {swarm.name} is gone")
        return self._let_in(info.handle), provider

    def seen_refs(self, project: Key, before: Mapping[str, str], seen: Mapping[str, str]) -> None:
        """Take over what a look at a remote has found (see ``World.seen_refs``).

        Tasks begin only after the first look: what an attempt may replace is known from it.
        """
        if self.world.seen_refs(project, before, seen):
            for task in self.world.members(project).values():
                self.refresh(task)

    def report(self, key: Key, error: BaseException) -> None:
        """Log what should not have happened; the key's pass is tried again."""
        LOG.error("%s: %s", key, error, exc_info=error)

    def unavailable(self, key: Key, error: StoreUnavailable) -> None:
        """Log that the store is away: a line now and then, not one for each key that waits."""
        now, (said, until) = self.clock.now(), self.away
        if str(error) != said or now >= until:
            self.away = str(error), now + AWAY_SECONDS
            LOG.warning("%s waits: %s", key, error)

    def event(self, obj: Resource, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell people about a transition; in the log too, but for each task's success."""
        if warning or obj["kind"] != "Task":
            level = logging.WARNING if warning else logging.INFO
            LOG.log(level, "%s: %s: %s", key_of(obj), reason, message)
        self.store.record_event(key_of(obj), "Warning" if warning else "Normal", reason, message)


_SECRETS = (("sshKeyFrom", "sshKey"),)
"""Parameters that name what lets us in, and what a provider calls it (``SwarmHandle.secrets``)."""


def secrets_of(
    ctx: Context, namespace: str, parameters: Mapping[str, Any]
) -> dict[str, str] | Unresolved:
    """What lets us in where a swarm's workers are: the texts behind its provider's parameters.

    They are in no status and no hash: another key gives nobody another worker.
    """
    found = {}
    for name, secret in _SECRETS:
        if name in parameters:
            obj = {"metadata": {"namespace": namespace}}
            value = ctx.secret(obj, parameters[name], f"provider: {name}")
            if isinstance(value, Unresolved):
                return value
            found[secret] = value
    return found


class ConditionWriter:
    """Conditions of one object, collected during a pass."""

    def __init__(self, obj: Resource, now: str) -> None:
        self._generation = obj["metadata"]["generation"]
        self._now = now
        self._order = {type: n for n, type in enumerate(OWNED.get(obj["kind"], ()))}
        self._before = list((obj.get("status") or {}).get("conditions") or [])
        self.conditions: list[dict[str, Any]] = list(self._before)

    def set(self, type: str, status: bool | None, reason: str, message: str = "") -> None:
        """Set one; None is ``Unknown``. What counts as a flip is judged from what is stored."""
        text = "Unknown" if status is None else str(status)
        known = find(self._before, type)
        new = set_condition(
            [known] if known else [],
            type,
            text,
            reason,
            message,
            generation=self._generation,
            now=self._now,
        )
        if self.missing(type):
            self.conditions = [*self.conditions, *new]
            self.conditions.sort(key=lambda c: self._order.get(c["type"], len(self._order)))
        else:
            self.conditions = [new[0] if c["type"] == type else c for c in self.conditions]

    def status_of(self, type: str) -> tuple[str, str]:
        """Status and message of one; empty if it has not been set yet."""
        for condition in self.conditions:
            if condition["type"] == type:
                return condition["status"], condition["message"]
        return "", ""

    def missing(self, type: str) -> bool:
        """Whether a type has not been set yet."""
        return all(c["type"] != type for c in self.conditions)


def owner_reference(owner: Resource) -> dict[str, Any]:
    """The ownerReference that ties a child to its controller."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owned_by(obj: Resource, uid: str) -> bool:
    """Whether ``uid`` owns the object."""
    return any(ref.get("uid") == uid for ref in obj["metadata"].get("ownerReferences") or ())


def sibling(obj: Resource, kind: str, name: str) -> Key:
    """The key of another object in the same namespace."""
    return Key(kind, obj["metadata"]["namespace"], name)
