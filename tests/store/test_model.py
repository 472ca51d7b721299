"""The store against a plain model: any sequence of operations gives what the rules say."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controller.store.base import AlreadyExists, Conflict, NotFound, Resource, StoreError
from controller.store.database import Database
from tests.store.helpers import key, names, reference, revision_of, task

NAMES = st.sampled_from(["a", "b", "c", "d"])
SPECS = st.sampled_from([{"n": 0}, {"n": 1}, {"n": 1, "m": [None, {}]}])
STATUSES = st.sampled_from([None, {"phase": "x"}, {"phase": "y", "n": 1}])
LABELS = st.sampled_from([{}, {"l": "1"}, {"l": "2"}])
FINALIZERS = st.sampled_from([[], [], ["f"], ["f", "g"]])


@dataclass
class Model:
    """What the rules say of one object."""

    uid: str
    spec: Any
    labels: dict[str, str]
    finalizers: list[str]
    owners: list[str]
    status: Any = None
    generation: int = 1
    deleting: bool = False


@dataclass
class World:
    """All objects of the model."""

    objects: dict[str, Model] = field(default_factory=dict)
    touched: dict[str, bool] = field(default_factory=dict)
    """By uid, since the last look: whether it is gone."""

    def named(self, uid: str) -> str | None:
        return next((name for name, one in self.objects.items() if one.uid == uid), None)

    def delete(self, name: str) -> None:
        one = self.objects[name]
        if one.finalizers:
            if not one.deleting:
                one.deleting = True
                one.generation += 1
                self.touched[one.uid] = False
            return
        del self.objects[name]
        self.touched[one.uid] = True
        for child in [c for c, other in self.objects.items() if one.uid in other.owners]:
            # It may have gone already, with another of its owners.
            if child in self.objects:
                self.lose_owner(child)

    def lose_owner(self, name: str) -> None:
        one = self.objects[name]
        left = [uid for uid in one.owners if self.named(uid)]
        if left:
            one.owners = left
            self.touched[one.uid] = False
        else:
            self.delete(name)


class StoreMachine(RuleBasedStateMachine):
    """Random operations on four names."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database(Path(self.folder.name) / "state.db")
        self.world = World()
        self.revision = 0

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()

    def references(self, owners: list[str]) -> list[Any]:
        found = [self.database.get(key(name)) for name in owners]
        return [reference(owner) for owner in found if owner is not None]

    def live(self, name: str) -> Resource | None:
        obj = self.database.get(key(name))
        assert (obj is None) == (name not in self.world.objects)
        return obj

    @rule(
        name=NAMES,
        spec=SPECS,
        labels=LABELS,
        finalizers=FINALIZERS,
        owners=st.lists(NAMES, max_size=2, unique=True),
    )
    def create(self, name: str, spec: Any, labels: Any, finalizers: Any, owners: list[str]) -> None:
        owned_by = self.references(owners)
        obj = task(name, spec, labels=labels, finalizers=finalizers, ownerReferences=owned_by)
        if name in self.world.objects:
            with pytest.raises(AlreadyExists):
                self.database.create(obj)
            return
        made = self.database.create(obj)
        uid = made["metadata"]["uid"]
        uids = [one["uid"] for one in owned_by]
        self.world.objects[name] = Model(uid, spec, labels, finalizers, uids)
        self.world.touched[uid] = False
        assert revision_of(made) > self.revision

    @rule(
        name=NAMES,
        spec=SPECS,
        labels=LABELS,
        finalizers=FINALIZERS,
        owners=st.none() | st.lists(NAMES, max_size=2, unique=True),
    )
    def update(self, name: str, spec: Any, labels: Any, finalizers: list[str], owners: Any) -> None:
        obj = self.live(name)
        if obj is None:
            with pytest.raises(NotFound):
                self.database.update(task(name, spec, resourceVersion="1"))
            return
        one = self.world.objects[name]
        before = revision_of(obj)
        obj["spec"] = spec
        obj["status"] = {"ignored": True}
        obj["metadata"] |= {"labels": labels, "finalizers": finalizers}
        if owners is not None:
            obj["metadata"]["ownerReferences"] = self.references(owners)
        if one.deleting and set(finalizers) - set(one.finalizers):
            with pytest.raises(StoreError, match="is being deleted"):
                self.database.update(obj)
            return
        made = self.database.update(obj)
        wanted = (spec, labels, finalizers, one.owners)
        if owners is not None:
            wanted = (*wanted[:3], [r["uid"] for r in obj["metadata"]["ownerReferences"]])
        if wanted == (one.spec, one.labels, one.finalizers, one.owners):
            assert revision_of(made) == before
            return
        one.generation += spec != one.spec
        one.spec, one.labels, one.finalizers, one.owners = wanted
        self.world.touched[one.uid] = False
        if one.deleting and not finalizers:
            self.world.delete(name)
        else:
            assert revision_of(made) > self.revision

    @rule(name=NAMES, status=STATUSES)
    def update_status(self, name: str, status: Any) -> None:
        obj = self.live(name)
        if obj is None:
            return
        one = self.world.objects[name]
        obj["spec"], obj["status"] = {"ignored": True}, status
        before = revision_of(obj)
        made = self.database.update_status(obj)
        assert (revision_of(made) == before) == (status == one.status)
        if status != one.status:
            self.world.touched[one.uid] = False
            one.status = status

    @rule(name=NAMES, stale=st.integers(1, 3))
    def write_stale(self, name: str, stale: int) -> None:
        obj = self.live(name)
        if obj is None:
            return
        obj["metadata"]["resourceVersion"] = str(revision_of(obj) - stale)
        for write in (self.database.update, self.database.update_status):
            with pytest.raises(Conflict):
                write({**obj, "spec": {"stale": True}, "status": {"stale": True}})

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        if name not in self.world.objects:
            with pytest.raises(NotFound):
                self.database.delete(key(name))
            return
        self.database.delete(key(name), uid=self.world.objects[name].uid)
        self.world.delete(name)

    @rule()
    def reopen(self) -> None:
        path = self.database.path
        self.database.close()
        self.database = Database(path)

    @rule()
    def collect_orphans(self) -> None:
        before = self.database.revision()
        assert self.database.collect_orphans() == 0, "deletions leave no orphans"
        assert self.database.revision() == before

    @invariant()
    def objects_are_as_the_model_says(self) -> None:
        objects = self.database.list("Task")
        assert names(objects) == sorted(self.world.objects)
        for obj in objects:
            meta = obj["metadata"]
            one = self.world.objects[meta["name"]]
            found = Model(
                meta["uid"],
                obj["spec"],
                meta.get("labels", {}),
                meta.get("finalizers", []),
                [owner["uid"] for owner in meta.get("ownerReferences", [])],
                obj.get("status"),
                meta["generation"],
                "deletionTimestamp" in meta,
            )
            assert found == one
            assert self.database.get(key(meta["name"])) == obj
            uids = {owner for owner in one.owners if self.world.named(owner)}
            for uid in uids:
                assert obj in self.database.list("Task", owner_uid=uid)

    @invariant()
    def changes_are_complete(self) -> None:
        changes, revision = self.database.changes_since(self.revision)
        assert {change.uid: change.deleted for change in changes} == self.world.touched
        assert len(changes) == len(self.world.touched), "each once"
        assert (revision > self.revision) == bool(changes)
        assert revision == self.database.revision()
        self.revision = revision
        self.world.touched = {}


StoreMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, print_blob=True
)
TestStore = StoreMachine.TestCase
